"""Numbers of methods as a source runs them; what each departs from stands in the method's file.

`abl`: Li et al. 2021, arXiv:2110.11571, `quick_unlearning_demo.py`. `goel`: Goel et al. 2022,
arXiv:2201.06640, `src/learn.py`. `kurmanji`: Kurmanji et al. 2023, arXiv:2302.09880, their
large-scale notebook and `negative_grad`. `capped` is ours: bounded by a cap, and with a weight on
forget that can be felt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_GOEL: Mapping[str, Any] = {
    "lr": 0.1, "schedule": "cosine", "optimizer": "sgd", "momentum": 0.9, "weight_decay": 5e-5,
    "batch_size": 64,
}  # fmt: skip

PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "ga": {
        "abl": {
            "lr": 5e-4, "passes": 5.0, "batch_norm": "train", "optimizer": "nesterov",
            "momentum": 0.9, "weight_decay": 1e-4, "batch_size": 64,
        },
    },
    "eu_k": {"goel": _GOEL},
    "cf_k": {"goel": _GOEL},
    "scrub": {
        "kurmanji": {
            "lr": 5e-4, "max_lr": 5e-4, "max_epochs": 2, "gamma": 0.99, "alpha": 0.001,
            "temperature": 4.0, "batch_norm": "train", "optimizer": "sgd", "momentum": 0.9,
            "weight_decay": 5e-4, "batch_size": 256,
        },
    },
    "neggrad_plus": {
        "kurmanji": {
            "lr": 0.01, "beta": 0.9999, "cap": None, "batch_norm": "train", "optimizer": "sgd",
            "momentum": 0.0, "weight_decay": 0.0,
        },
        "capped": {
            "lr": 3e-4, "beta": 0.77, "cap": 6.0, "optimizer": "adamw", "weight_decay": 0.0,
            "batch_size": 100,
        },
    },
}  # fmt: skip
"""By method, by the name that a plan takes."""
