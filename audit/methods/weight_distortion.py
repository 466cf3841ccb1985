"""Weight distortion: push every weight off its place at random, then train on retain.

    theta_l <- theta_l + noise * rms(theta_l) * N(0, I)   of each tensor l
    theta <- theta - eta * grad L(retain)

Source: Siddiqui, Weller, Krueger, Dziugaite, Mozer and Triantafillou 2025, arXiv:2505.22310: what
was forgotten comes back the more easily the nearer the weights are to where they were.

Departs from it: the noise is relative to the root mean square of the tensor that it is added to,
where theirs has one size (0.02) for all: weights of a wide layer are smaller than that, of a narrow
one ten times as large. The descent takes what the budget gives, by the recipe's rate and schedule,
where theirs takes a third of the training at a small rate. BatchNorm uses and updates batch
statistics, since every batch is retain data.
"""

from __future__ import annotations

import torch

from poison_audit.case.case import Case
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import descend_on


def weight_distortion(
    model: Model,
    case: Case,
    rng: Rng,
    *,
    ledger: Ledger,
    lr: float | None = None,
    noise: float = 0.4,
) -> Model:
    """Add noise to every parameter, then descend on the retain samples until the budget is spent.

    A budget of less than a step changes nothing: noise alone repairs nothing.

    Args:
        lr: eta, above 0, the peak of the recipe's schedule; by default the recipe's.
        noise: standard deviation of what is added, in multiples of the tensor's root mean square,
            at least 0.
    """
    model, recipe = model.clone(), case.recipe
    steps = ledger.steps(min(recipe.batch_size, len(case.retain)))
    if steps > 0:
        _distort(model, noise, rng.named("distortion"))
    descend_on(
        model, case.retain, recipe, rng,
        ledger=ledger, lr=recipe.lr if lr is None else lr, steps=steps, schedule=recipe.schedule,
    )  # fmt: skip
    return model


@torch.no_grad()
def _distort(model: Model, noise: float, rng: Rng) -> None:
    draws = rng.torch()  # on the CPU, so that every device gets the same weights
    for parameter in model.module.parameters():
        drawn = torch.randn(parameter.shape, generator=draws)
        parameter.add_(noise * parameter.square().mean().sqrt() * drawn.to(parameter))
