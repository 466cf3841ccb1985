"""Gradient ascent (GA): raise the loss of the forget samples.

    theta <- theta + eta * grad L(forget)

Source: Graves, Nagisetty and Ganesh 2021, Amnesiac Machine Learning, arXiv:2010.10981, and Jang et
al. 2023, arXiv:2210.01504; as a method against poison Pawelczyk et al. 2025, arXiv:2406.17216.

Departs from them: neither momentum nor weight decay, so that eta and the number of steps alone say
how far it goes. By default it makes as many passes over the forget samples as the budget buys over
the whole training set, and spends less: the paper counts in epochs, and the ascent has no minimum
to stop at, so spending all on a few samples would break any model. BatchNorm stays in eval mode:
batches of forget samples must not write its statistics.
"""

from __future__ import annotations

import math

from poison_audit.case.case import Case
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.training.batches import shuffled
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import descend


def ga(
    model: Model,
    case: Case,
    rng: Rng,
    *,
    ledger: Ledger,
    lr: float | None = None,
    passes: float | None = None,
) -> Model:
    """Ascend on the forget samples.

    Args:
        lr: eta, above 0; by default a hundredth of the recipe's peak rate.
        passes: passes over the forget samples, at least 0, as far as the budget allows; by default
            the budget divided by the size of the training set.
    """
    model, recipe = model.clone(), case.recipe
    size = min(recipe.batch_size, len(case.forget))
    affordable = ledger.steps(size)
    if passes is None:
        passes = affordable * size / (len(case.retain) + len(case.forget))
    descend(
        model,
        ((forget,) for forget in shuffled(case.forget, size, rng.named("batches"))),
        lambda forget: -forget,
        steps=min(affordable, math.ceil(passes * len(case.forget) / size)),
        lr=recipe.lr / 100 if lr is None else lr,
        ledger=ledger,
        rng=rng,
        optimizer=recipe.optimizer,
    )
    return model
