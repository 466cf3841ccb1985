"""Catastrophic forgetting of the last k blocks (CF-k): train those on retain, freeze the rest.

    theta_last <- theta_last - eta * grad_last L(retain)

Source: Goel, Prabhu, Sanyal, Lim, Torr and Kumaraguru 2022, arXiv:2201.06640.

Departs from it: k counts blocks (a residual stage, a layer with its normalisation), not layers; a
parameter that an earlier block shares stays frozen with it. BatchNorm uses and updates batch
statistics in the trained blocks; their published code moves those of the frozen blocks too. A step
is charged in full although the frozen blocks need no backward pass.
"""

from __future__ import annotations

from poison_audit.case.case import Case
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import descend_on
from poison_audit.training.modes import last_blocks


def cf_k(
    model: Model, case: Case, rng: Rng, *, ledger: Ledger, lr: float | None = None, k: int = 2
) -> Model:
    """Train the last `k` blocks on the retain samples until the budget is spent.

    Args:
        lr: eta, above 0; by default a tenth of the recipe's peak rate.
        k: blocks to train, from 1 to the model's number of blocks; all of them is GD.

    Raises:
        PlanError: the model has fewer than `k` blocks.
    """
    names = last_blocks(model, k)
    model, recipe = model.clone(), case.recipe
    rate = recipe.lr / 10 if lr is None else lr
    descend_on(model, case.retain, recipe, rng, ledger=ledger, lr=rate, parameters=names)
    return model
