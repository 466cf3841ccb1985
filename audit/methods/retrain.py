"""Retraining: the recipe from scratch, on the retain samples only.

    theta <- initial draw;   theta <- recipe(theta, retain)

Source: the reference of exact unlearning; Cao and Yang 2015, Bourtoule et al. 2021,
arXiv:1912.03817; the bar that Pawelczyk et al. 2025, arXiv:2406.17216, hold every method to.

Departs from it: nothing, as far as the recipe is known. BatchNorm uses and updates batch
statistics, since every batch is retain data.
"""

from __future__ import annotations

from poison_audit.case.case import Case
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import as_trained, descend_on


def retrain(model: Model, case: Case, rng: Rng, *, ledger: Ledger) -> Model:
    """Train new weights by the whole recipe; only the architecture of `model` is looked at.

    The ledger counts, and bounds nothing. ValueError if the recipe's epochs are not known.
    """
    recipe = case.recipe
    if recipe.epochs is None:
        raise ValueError("retraining needs the recipe's epochs")
    model = model.fresh(rng.named("init"))
    size = min(recipe.batch_size, len(case.retain))
    steps = max(1, round(recipe.epochs * len(case.retain) / size))
    descend_on(
        model, case.retain, recipe, rng,
        ledger=ledger, steps=steps, **as_trained(recipe),
    )  # fmt: skip
    return model
