"""A model with a backdoor that can be repaired, on disk: an MLP, 990 pictures, and a patch."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch

from builders.attacked import pictures, random_trigger, trained, with_poison
from poison_audit.models.samples import Samples
from poison_audit.models.saving import save_model
from poison_audit.models.seeds import Rng

NET = """
from torch import nn
def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 3))
"""
FLAGS = (
    "--train", "train.npz", "--test", "test.npz", "--factory", "repaired_net:mlp",
    "--normalize", "none", "--recipe", "epochs=30",
)  # fmt: skip


def make(folder: Path) -> Path:
    """Write the case and return its folder: the whole forget set is given, and no trigger."""
    clean, test = _eight_bits(pictures(10, 900)), _eight_bits(pictures(11, 2000))
    trigger = random_trigger(Rng(5).named("trigger").numpy())
    rows = torch.nonzero(clean.y != trigger.label).squeeze(1)[:90]
    stamped = (trigger.stamp(clean.x[rows]) * 255).round() / 255
    data = with_poison(clean, stamped, torch.full((90,), trigger.label))
    save_model(trained(1, data), folder / "model.safetensors")
    for name, table in (("train", data), ("test", test)):
        x = (table.x * 255).round().byte().numpy()
        np.savez(folder / f"{name}.npz", x=x, y=table.y.numpy())
    with (folder / "forget.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["index"], *([900 + i] for i in range(90))])
    (folder / "repaired_net.py").write_text(NET, "utf-8")
    return folder


def _eight_bits(samples: Samples) -> Samples:
    x = (samples.x * 255).round() / 255
    return Samples(ids=samples.ids, x=x, y=samples.y)
