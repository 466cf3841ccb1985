"""Indiscriminate: corrupted parameters, and poisons that hold the gradient still there."""

from __future__ import annotations

from dataclasses import dataclass

from audit.attacks.gradient_canceling import corrupt, gradient_cancel
from audit.attacks.poisoned import Poisoned, append
from audit.data.canaries import Storage
from audit.data.samples import Samples
from audit.models.model import Model
from audit.seeds import Rng
from audit.training import correct

PREFIX = "indiscriminate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoiled:
    """A table with poisons added that are to cost accuracy."""

    poisoned: Poisoned
    told: tuple[str, ...]
    """What was aimed at and what was reached, in sentences."""


def plant_indiscriminate(
    model: Model,
    train: Samples,
    rng: Rng,
    *,
    count: int,
    distance: float = 0.3,
    steps: int = 200,
    labels: str = "predicted",
    storage: Storage = "unclipped",
) -> Spoiled:
    """Add `count` poisons that pull training towards parameters of low accuracy.

    Args:
        model: trained on clean samples.
        train: the clean table.
        rng: decides the corruption and where the poisons start.
        count: poisons, at least 1.
        distance: of the corrupted parameters, relative to the length of the model's.
        steps: of crafting.
        labels: `kept` or `predicted`, see `gradient_cancel`.
        storage: how the table is stored.

    Raises:
        PlanError: an argument is out of range.
    """
    target = corrupt(model, train, rng.named("corrupt"), distance=distance)
    made = gradient_cancel(
        target, train, rng.named("cancel"), count=count, steps=steps, labels=labels
    )
    before, after = (float(correct(m, train).float().mean()) for m in (model, target))
    return Spoiled(
        poisoned=append(train, made.x, made.y, prefix=PREFIX, storage=storage),
        told=(
            f"The surrogate answers {before:.1%} of the training samples correctly, with corrupted "
            f"parameters {after:.1%}; there the poisons leave {made.residual:.1%} of the clean "
            "samples' gradient.",
        ),
    )
