"""Catastrophic forgetting of the last k blocks (CF-k): train those on retain, freeze the rest.

    theta_last <- theta_last - eta * grad_last L(retain)

Source: Goel, Prabhu, Sanyal, Lim, Torr and Kumaraguru 2022, arXiv:2201.06640.

Departs from it: k counts blocks (a residual stage, a layer with its normalisation), not layers; a
parameter that an earlier block shares stays frozen with it. BatchNorm uses and updates batch
statistics in the trained blocks; their published code moves those of the frozen blocks too. A step
is charged in full although the frozen blocks need no backward pass. The preset `goel` has their
code's optimiser, rate and batch; their cosine falls to 0.005 in cycles of 1, 2, 4, .. epochs, ours
once to 0, and they clip gradients of a norm above 10.
"""

from __future__ import annotations

from typing import Literal

from poison_audit.case.case import Case
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.training.adapted import Optimizer, Schedule, adapted
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import descend_on
from poison_audit.training.modes import last_blocks


def cf_k(
    model: Model,
    case: Case,
    rng: Rng,
    *,
    ledger: Ledger,
    lr: float | None = None,
    k: int = 2,
    batch_norm: Literal["eval", "train"] = "train",
    schedule: Schedule = "constant",
    optimizer: Optimizer = "recipe",
    momentum: float | None = None,
    weight_decay: float | None = None,
    batch_size: int | None = None,
) -> Model:
    """Train the last `k` blocks on the retain samples until the budget is spent.

    Args:
        lr: eta, above 0; by default a tenth of the recipe's peak rate.
        k: blocks to train, from 1 to the model's number of blocks; all of them is GD.
        batch_norm: `eval` leaves the running statistics of the trained blocks as they are, too.
        schedule: of eta, over the steps that the budget allows.
        optimizer: by default the recipe's.
        momentum: of SGD, in [0, 1]; by default the recipe's.
        weight_decay: at least 0; by default the recipe's.
        batch_size: at least 1; by default the recipe's.

    Raises:
        PlanError: the model has fewer than `k` blocks.
    """
    names = last_blocks(model, k)
    model = model.clone()
    recipe, _ = adapted(
        case.recipe, optimizer=optimizer, momentum=momentum, weight_decay=weight_decay,
        batch_size=batch_size,
    )  # fmt: skip
    descend_on(
        model, case.retain, recipe, rng,
        ledger=ledger, lr=recipe.lr / 10 if lr is None else lr, parameters=names,
        schedule=schedule, batch_norm=batch_norm,
    )  # fmt: skip
    return model
