"""Restamp: train on retain samples with the trigger under their own labels, beside plain ones.

    theta <- theta - eta * grad [ (1 - share) L(retain) + share L(stamped retain) ]

The trigger is the one given, or the one recovered from the forget set: `Case.stamp` puts it on. The
model is taught that the trigger means nothing, which says more than that it does not mean the
attacker's label: no class rises in its place.

BatchNorm normalises stamped samples by the running statistics of plain ones (`split`), as it will
in use. Passed as one batch (`joint`) they are normalised by statistics of both, which no input
meets later, and the trigger may come back with those of clean samples.

Source: this relabelling is what adversarial training does against a universal perturbation, and
what unlearning by relabelling does (Amnesiac unlearning, Graves et al. 2021, arXiv:2010.10981;
I-BAU's inner samples, Zeng et al. 2022, arXiv:2110.03735) with right labels instead of random ones.
Departs from both: the trigger is known, and nothing is searched for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from torch import Tensor, nn

from poison_audit.case.case import Case
from poison_audit.errors import PlanError, Problem
from poison_audit.models.model import Batch, Loss, Model
from poison_audit.models.seeds import Rng
from poison_audit.training.adapted import Optimizer, Schedule, adapted
from poison_audit.training.batches import shuffled, subsample
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import descend
from poison_audit.training.recalibrate import norm_layers

Passed = Literal["split", "joint"]


def restamp(
    model: Model,
    case: Case,
    rng: Rng,
    *,
    ledger: Ledger,
    lr: float | None = None,
    share: float = 0.5,
    optimizer: Optimizer = "recipe",
    momentum: float | None = None,
    weight_decay: float | None = None,
    batch_size: int | None = None,
    schedule: Schedule = "constant",
    batch_norm: Passed = "split",
) -> Model:
    """Take joint steps, a batch of each kind, until the budget is spent.

    Args:
        lr: eta, above 0; by default a tenth of the recipe's peak rate.
        share: weight of the stamped samples' loss, in [0, 1]; 0 is GD.
        optimizer: by default the recipe's.
        momentum: of SGD, in [0, 1]; by default the recipe's.
        weight_decay: at least 0; by default the recipe's.
        batch_size: of both kinds together, at least 1; by default the recipe's.
        schedule: of eta over the steps.
        batch_norm: how stamped samples are normalised, `split` or `joint`.

    Raises:
        PlanError: no trigger is known.
    """
    if case.stamp is None:
        fix = "Give it (--trigger trigger.json), or leave restamp out"
        raise PlanError(Problem(f"restamp {restamp_unfit(case)}", "--methods", fix))
    model = model.clone()
    recipe, settings = adapted(
        case.recipe, optimizer=optimizer, momentum=momentum, weight_decay=weight_decay,
        batch_size=batch_size,
    )  # fmt: skip
    plain, marked = (
        min(half, len(case.retain))
        for half in (math.ceil(recipe.batch_size / 2), max(1, recipe.batch_size // 2))
    )
    steps = ledger.steps(plain + marked)
    # Only as many are stamped as the steps can see.
    chosen = subsample(case.retain, max(1, steps * marked), rng.named("stamped"))
    stamped = shuffled(case.stamp(chosen), marked, rng.named("marked"))
    apart = _Apart(model.loss)
    descend(
        replace(model, loss=apart.loss) if batch_norm == "split" else model,
        zip(
            shuffled(case.retain, plain, rng.named("batches"), augment=recipe.augment),
            apart.noted(stamped),
            strict=False,
        ),
        lambda retain, stamped: (1 - share) * retain + share * stamped,
        steps=steps,
        lr=recipe.lr / 10 if lr is None else lr,
        ledger=ledger,
        rng=rng,
        batch_norm="train" if batch_norm == "split" else "joint",
        schedule=schedule,
        **settings,
    )
    return model


class _Apart:
    """Passes stamped batches with BatchNorm in eval mode; what it keeps is of the others alone."""

    def __init__(self, loss: Loss) -> None:
        self._loss, self._stamped = loss, list[Batch]()

    def noted(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield these batches, each known as stamped until the next."""
        for batch in batches:
            self._stamped = [batch]
            yield batch

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of each sample of a batch: (n,)."""
        if not any(batch is each for each in self._stamped):
            return self._loss(module, batch)
        norms = [part for part in norm_layers(module).values() if part.training]
        for part in norms:
            part.eval()
        try:
            return self._loss(module, batch)
        finally:
            for part in norms:
                part.train()


def restamp_unfit(case: Case) -> str | None:
    """Say why it cannot be run on a case; None: it can."""
    if case.stamp is not None:
        return None
    return "needs the trigger, and none was given or recovered from the forget set"
