"""Gradient descent (GD): go on training, on the retain samples only.

    theta <- theta - eta * grad L(retain)

Source: Neel, Roth and Sharifi-Malvajerdi 2021, Descent-to-Delete, arXiv:2007.02923; without
regularisation as in Pawelczyk et al. 2025, arXiv:2406.17216.

Departs from it: mini-batches, with the recipe's momentum and weight decay; no noise is published
with the weights. BatchNorm uses and updates batch statistics, since every batch is retain data.
"""

from __future__ import annotations

from typing import Literal

from poison_audit.case.case import Case
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import descend_on


def gd(
    model: Model,
    case: Case,
    rng: Rng,
    *,
    ledger: Ledger,
    lr: float | None = None,
    batch_norm: Literal["eval", "train"] = "train",
) -> Model:
    """Descend on the retain samples until the budget is spent.

    Args:
        lr: eta, above 0; by default a tenth of the recipe's peak rate.
        batch_norm: `eval` leaves the running statistics as they are.
    """
    model, recipe = model.clone(), case.recipe
    rate = recipe.lr / 10 if lr is None else lr
    descend_on(model, case.retain, recipe, rng, ledger=ledger, lr=rate, batch_norm=batch_norm)
    return model
