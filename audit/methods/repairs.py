"""What `repair` tries, from cheap to dear: a start, then how it is finished.

A start takes the poison down by descent. Each goes on from what it names, so that what was spent on
the cheaper is not lost. Every start is finished in every way: as it is; with BatchNorm's
statistics of clean samples; with the last layer edited; with both. The edit comes last, since it is
made for the features that the statistics give.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from poison_audit.case.case import Case
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.training.batches import subsample
from poison_audit.training.ledger import FORWARD, Ledger
from poison_audit.training.recalibrate import norm_layers, recalibrated

CLEAN = 2000
"""Retain samples that statistics are taken of, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A descent that repairs begin with."""

    method: str
    """Empty: none, the deployed model itself."""
    share: float = 0.0
    """Of repair's budget, what it may spend."""
    after: tuple[int, tuple[str, ...]] = (0, ())
    """What it goes on from: the place of a start and how that was finished."""
    params: Mapping[str, Any] = field(default_factory=dict)
    blind: bool = False
    """Whether it is for cases of which no trigger is known."""


# Rates that do not hang on what the recipe is said to be, and that end at zero.
_STAMPED = {"optimizer": "adamw", "lr": 1e-3, "schedule": "cosine"}
STARTS = (
    Start(method=""),
    Start(method="restamp", share=0.15, after=(0, ("recalibrate",)), params=_STAMPED),
    Start(method="npo", share=0.06),
    Start(method="restamp", share=0.6, after=(1, ()), params=_STAMPED),
    Start(method="weight_distortion", share=0.8, blind=True),
)
"""From cheap to dear; together they spend less than all."""
FINISHES: tuple[tuple[str, ...], ...] = (
    (), ("recalibrate",), ("head_edit",), ("recalibrate", "head_edit"),
)  # fmt: skip


def recalibrate(model: Model, case: Case, rng: Rng, *, ledger: Ledger) -> Model:
    """Return a model with BatchNorm's statistics of at most 2,000 retain samples."""
    fits = min(CLEAN, ledger.steps(FORWARD))
    if fits < 1 or not norm_layers(model.module):
        return model.clone()
    return recalibrated(model, subsample(case.retain, fits, rng.named("clean")), ledger=ledger)
