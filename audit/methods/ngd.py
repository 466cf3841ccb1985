"""Noisy gradient descent (NGD): gradient descent on retain, with Gaussian noise in every step.

    theta <- theta - eta * (grad L(retain) + N(0, sigma^2 I))

Source: Chien, Wang, Chen and Li 2024, Langevin Unlearning, arXiv:2401.10371; in this form
Pawelczyk et al. 2025, arXiv:2406.17216.

Departs from it: no projection onto a ball, so nothing is certified; mini-batches, with the recipe's
momentum and weight decay. BatchNorm uses and updates batch statistics, since every batch is retain
data.
"""

from __future__ import annotations

from typing import Literal

from poison_audit.case.case import Case
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import descend_on


def ngd(
    model: Model,
    case: Case,
    rng: Rng,
    *,
    ledger: Ledger,
    lr: float | None = None,
    sigma: float = 1e-7**0.5,
    batch_norm: Literal["eval", "train"] = "train",
) -> Model:
    """Descend on the retain samples, with noise, until the budget is spent.

    Args:
        lr: eta, above 0; by default a tenth of the recipe's peak rate.
        sigma: standard deviation of the noise in each coordinate of the gradient, at least 0; 0 is
            GD. The default is the variance of 1e-7 that the paper shows.
        batch_norm: `eval` leaves the running statistics as they are.
    """
    model, recipe = model.clone(), case.recipe
    rate = recipe.lr / 10 if lr is None else lr
    descend_on(
        model, case.retain, recipe, rng,
        ledger=ledger, lr=rate, noise=sigma, batch_norm=batch_norm,
    )  # fmt: skip
    return model
