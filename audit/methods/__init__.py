"""Unlearning methods, one file each: `(model, case, rng, *, ledger, numbers) -> Model`.

Each clones the model first and never changes it, stays within the ledger to the step, and returns
a new model in eval mode. The same stream of random numbers gives the same bits.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from poison_audit.case.case import Case
from poison_audit.errors import Problem, did_you_mean
from poison_audit.methods.cf_k import cf_k
from poison_audit.methods.eu_k import eu_k
from poison_audit.methods.ga import ga
from poison_audit.methods.gd import gd
from poison_audit.methods.head_edit import head_edit, head_edit_spends, head_edit_unfit
from poison_audit.methods.i_bau import i_bau, i_bau_spends, i_bau_unfit
from poison_audit.methods.method import (
    DEFAULT,
    NOT_NEGATIVE,
    POSITIVE,
    STEPS,
    Method,
    Range,
    Search,
)
from poison_audit.methods.neggrad_plus import neggrad_plus
from poison_audit.methods.ngd import ngd
from poison_audit.methods.npo import npo
from poison_audit.methods.potion import potion, potion_spends
from poison_audit.methods.presets import PRESETS
from poison_audit.methods.restamp import restamp, restamp_unfit
from poison_audit.methods.retrain import retrain
from poison_audit.methods.scrub import scrub
from poison_audit.methods.ssd import ssd, ssd_idle
from poison_audit.methods.weight_distortion import weight_distortion


def _of_passes(allowed: float, case: Case, params: Mapping[str, Any]) -> float:
    passes: float | None = params["passes"]
    if passes is None:
        passes = allowed / (len(case.retain) + len(case.forget))
    return min(allowed, passes * len(case.forget))


METHODS: dict[str, Method] = {
    "gd": Method(
        run=gd,
        title="Gradient descent",
        source="Neel et al. 2021, arXiv:2007.02923",
        needs=frozenset({"retain"}),
        ranges={"lr": POSITIVE},
        search={"lr": Search(1e-3, 1.0, "rate")},
    ),
    "ngd": Method(
        run=ngd,
        title="Noisy gradient descent",
        source="Chien et al. 2024, arXiv:2401.10371",
        needs=frozenset({"retain"}),
        ranges={"lr": POSITIVE, "sigma": NOT_NEGATIVE},
        search={"lr": Search(1e-3, 1.0, "rate"), "sigma": Search(1e-5, 1e-2)},
    ),
    "ga": Method(
        run=ga,
        title="Gradient ascent",
        source="Graves et al. 2021, arXiv:2010.10981",
        needs=frozenset({"forget"}),
        ranges={**STEPS, "passes": NOT_NEGATIVE},
        presets=PRESETS["ga"],
        search={"lr": Search(1e-4, 0.3, "rate"), "passes": Search(0.5, 10.0)},
        spends=_of_passes,
    ),
    "eu_k": Method(
        run=eu_k,
        title="Exact unlearning of the last k blocks",
        source="Goel et al. 2022, arXiv:2201.06640",
        needs=frozenset({"retain"}),
        ranges={**STEPS, "k": (1, None)},
        presets=PRESETS["eu_k"],
        search={"lr": Search(0.03, 3.0, "rate"), "k": Search(1, 8, "blocks")},
    ),
    "cf_k": Method(
        run=cf_k,
        title="Catastrophic forgetting of the last k blocks",
        source="Goel et al. 2022, arXiv:2201.06640",
        needs=frozenset({"retain"}),
        ranges={**STEPS, "k": (1, None)},
        presets=PRESETS["cf_k"],
        search={"lr": Search(1e-3, 1.0, "rate"), "k": Search(1, 8, "blocks")},
    ),
    "scrub": Method(
        run=scrub,
        title="SCRUB",
        source="Kurmanji et al. 2023, arXiv:2302.09880",
        needs=frozenset({"retain", "forget"}),
        ranges={
            **STEPS,
            "max_lr": POSITIVE,
            "max_epochs": NOT_NEGATIVE,
            "gamma": NOT_NEGATIVE,
            "alpha": NOT_NEGATIVE,
            "temperature": POSITIVE,
        },
        presets=PRESETS["scrub"],
        search={
            "lr": Search(1e-4, 0.3, "rate"),
            "max_lr": Search(1e-4, 0.3, "rate"),
            "max_epochs": Search(1, 6, "whole"),
            "alpha": Search(1e-3, 1.0),
        },
        anew=True,
    ),
    "neggrad_plus": Method(
        run=neggrad_plus,
        title="NegGrad+",
        source="Kurmanji et al. 2023, arXiv:2302.09880",
        needs=frozenset({"retain", "forget"}),
        ranges={**STEPS, "beta": (0, 1), "cap": POSITIVE},
        presets=PRESETS["neggrad_plus"],
        search={"lr": Search(1e-4, 0.3, "rate"), "beta": Search(0.5, 0.999, "linear")},
    ),
    "npo": Method(
        run=npo,
        title="Negative preference optimisation",
        source="Zhang et al. 2024, arXiv:2404.05868",
        needs=frozenset({"retain", "forget"}),
        ranges={**STEPS, "beta": POSITIVE, "gamma": NOT_NEGATIVE},
        search={"lr": Search(1e-4, 0.3, "rate"), "beta": Search(0.01, 3.0)},
    ),
    "ssd": Method(
        run=ssd,
        title="Selective synaptic dampening",
        source="Foster et al. 2024, arXiv:2308.07707",
        needs=frozenset({"retain", "forget"}),
        ranges={"alpha": NOT_NEGATIVE, "lam": NOT_NEGATIVE},
        search={"alpha": Search(1.0, 100.0), "lam": Search(0.1, 1.0)},
        spends=lambda allowed, case, params: min(allowed, len(case.retain) + len(case.forget)),
        idle=ssd_idle,
    ),
    "head_edit": Method(
        run=head_edit,
        title="Edit of the last layer, in closed form",
        source="ours; in the metric of Belrose et al. 2023, arXiv:2306.03819",
        needs=frozenset({"retain", "forget"}),
        ranges={"rank": (0, 3), "ridge": POSITIVE},
        search={"rank": Search(1, 3, "whole"), "ridge": Search(1e-3, 10.0)},
        spends=head_edit_spends,
        unfit=head_edit_unfit,
    ),
    "restamp": Method(
        run=restamp,
        title="Training with the trigger under right labels",
        source="ours; as relabelling in Graves et al. 2021, arXiv:2010.10981",
        needs=frozenset({"retain"}),
        ranges={**STEPS, "share": (0, 1)},
        search={"lr": Search(1e-3, 1.0, "rate"), "share": Search(0.1, 0.9, "linear")},
        unfit=restamp_unfit,
    ),
    "potion": Method(
        run=potion,
        title="Poison trigger neutralisation",
        source="Schoepf et al. 2024, arXiv:2406.09173",
        needs=frozenset({"retain", "forget"}),
        ranges={
            "samples": (1, None),
            "growth": (1 + sys.float_info.epsilon, None),
            "left": (0, 1),
            "lost": (0, 1),
        },
        search={"left": Search(0.05, 0.5, "linear"), "lost": Search(0.005, 0.05)},
        anew=True,
        spends=potion_spends,
    ),
    "i_bau": Method(
        run=i_bau,
        title="Implicit backdoor adversarial unlearning",
        source="Zeng et al. 2022, arXiv:2110.03735",
        needs=frozenset({"retain"}),
        ranges={
            "lr": POSITIVE,
            "rounds": (1, None),
            "iterations": (1, None),
            "samples": (1, None),
            "batch": (1, None),
        },
        search={"lr": Search(1e-5, 1e-2), "rounds": Search(1, 5, "whole")},
        anew=True,
        spends=i_bau_spends,
        unfit=i_bau_unfit,
    ),
    "weight_distortion": Method(
        run=weight_distortion,
        title="Weight distortion",
        source="Siddiqui et al. 2025, arXiv:2505.22310",
        needs=frozenset({"retain"}),
        ranges={"lr": POSITIVE, "noise": NOT_NEGATIVE},
        search={"lr": Search(1e-2, 1.0, "rate"), "noise": Search(0.03, 1.0)},
    ),
    "retrain": Method(
        run=retrain,
        title="Retraining without the forget samples",
        source="Bourtoule et al. 2021, arXiv:1912.03817",
        needs=frozenset({"retain"}),
        spends=lambda allowed, case, params: (case.recipe.epochs or 0) * len(case.retain),
        reference=True,
        candidate="retrained",
        paced_by="gd",
    ),
}
"""Every method, by the name that a plan takes."""

UNLEARNING = tuple(name for name, method in METHODS.items() if not method.reference)
"""The methods on trial: all but retraining, which is the reference."""

REFERENCES = tuple(method.candidate for method in METHODS.values() if method.reference)
"""What the models of the others are called."""


def parameters(name: str) -> dict[str, Any]:
    """Return the numbers that a method takes, with their defaults.

    >>> parameters("ssd")
    {'alpha': 10.0, 'lam': 1.0}
    """
    return {key: parameter.default for key, parameter in _signature(name).items()}


def filled(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return every number of a method: as given, else as its preset has it, else by default.

    >>> filled("ga", {"preset": "abl", "lr": 0.1})["lr"], filled("ga", {"preset": "abl"})["lr"]
    (0.1, 0.0005)
    """
    own = {key: value for key, value in given.items() if key != "preset"}
    preset = METHODS[name].presets.get(given.get("preset", DEFAULT), {})
    return {**parameters(name), **preset, **own}


def check_params(
    name: str, params: Mapping[str, object], *, blocks: int | None = None
) -> list[Problem]:
    """Return everything that is wrong with the numbers given to a method.

    Args:
        params: what a plan gives it; what is left out takes its default.
        blocks: the model's number of blocks, None while that is not known.
    """
    known = _signature(name)
    presets = [DEFAULT, *METHODS[name].presets]
    problems = []
    for key, value in params.items():
        where = f"[methods.{name}] {key}"
        if key == "preset":
            if value not in presets:
                what = f"expected {_either(presets)}, got {value!r:.60}"
                problems.append(Problem(what, where))
        elif key not in known:
            hint = did_you_mean(key, known) if known else "It takes none."
            problems.append(Problem(f"{name} has no such parameter", where, hint))
        elif wrong := _wrong(value, known[key].annotation, METHODS[name].ranges.get(key)):
            problems.append(Problem(f"expected {wrong}, got {value!r:.60}", where))
        elif key == "k" and blocks is not None and isinstance(value, int) and value > blocks:
            what = f"k = {value}, but the model has {blocks} blocks"
            problems.append(Problem(what, where, f"Use 1..{blocks}"))
    return problems


def _signature(name: str) -> dict[str, inspect.Parameter]:
    every = inspect.signature(METHODS[name].run, eval_str=True).parameters
    return {
        key: parameter
        for key, parameter in every.items()
        if parameter.kind is parameter.KEYWORD_ONLY and key != "ledger"
    }


def _wrong(value: object, kind: Any, bounds: Range | None) -> str | None:
    """Return what was expected instead of `value`; None if it will do."""
    if words := _words(kind):
        return None if value in words else _either(words)
    if value is None and type(None) in get_args(kind):
        return None
    whole = int in (kind, *get_args(kind))
    low, high = bounds or (None, None)
    number = isinstance(value, int if whole else (int, float))
    if isinstance(value, int | float) and number and not isinstance(value, bool):
        above = low is None or value >= low
        if abs(value) <= sys.float_info.max and above and (high is None or value <= high):
            return None
    text = "a whole number" if whole else "a number"
    if bounds == POSITIVE:
        return f"{text} above 0"
    if high is None:
        return text if low is None else f"{text} of at least {low:g}"
    return f"{text} in [{low:g}, {high:g}]"


def _words(kind: Any) -> tuple[str, ...]:
    """Return the words that a type allows; empty: it is no choice of words."""
    parts = (kind,) if get_origin(kind) is Literal else get_args(kind)
    return tuple(word for part in parts if get_origin(part) is Literal for word in get_args(part))


def _either(words: Sequence[str]) -> str:
    return f"one of {', '.join(words)}" if len(words) > 1 else f"nothing but {words[0]}"
