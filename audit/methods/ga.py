"""Gradient ascent (GA): raise the loss of the forget samples.

    theta <- theta + eta * grad L(forget)

Source: Graves, Nagisetty and Ganesh 2021, Amnesiac Machine Learning, arXiv:2010.10981, and Jang et
al. 2023, arXiv:2210.01504; as a method against poison Pawelczyk et al. 2025, arXiv:2406.17216. The
preset `abl`: Li et al. 2021, Anti-Backdoor Learning, arXiv:2110.11571, and their
`quick_unlearning_demo.py`.

Departs from them: neither momentum nor weight decay, so that eta and the number of steps alone say
how far it goes. By default it makes as many passes over the forget samples as the budget buys over
the whole training set, and spends less: the paper counts in epochs, and the ascent has no minimum
to stop at, so spending all on a few samples would break any model. BatchNorm stays in eval mode:
batches of forget samples must not write its statistics. `abl` has all of it as its authors do,
except that batches are shuffled, and straddle two passes where theirs end with a smaller one.
"""

from __future__ import annotations

import math
from typing import Literal

from poison_audit.case.case import Case
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.training.adapted import Form, Optimizer, adapted
from poison_audit.training.batches import shuffled
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import descend
from poison_audit.training.losses import unlikelihood
from poison_audit.training.modes import check_batches


def ga(
    model: Model,
    case: Case,
    rng: Rng,
    *,
    ledger: Ledger,
    lr: float | None = None,
    passes: float | None = None,
    form: Form = "ascent",
    batch_norm: Literal["eval", "train"] = "eval",
    optimizer: Optimizer = "recipe",
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    batch_size: int | None = None,
) -> Model:
    """Ascend on the forget samples.

    Args:
        lr: eta, above 0; by default a hundredth of the recipe's peak rate.
        passes: passes over the forget samples, at least 0, as far as the budget allows; by default
            the budget divided by the size of the training set.
        form: `bounded` descends on -log(1 - p) of the labels instead.
        batch_norm: `train` normalises by the forget samples, and updates the running statistics.
        optimizer: by default the recipe's.
        momentum: of SGD, in [0, 1].
        weight_decay: at least 0.
        batch_size: at least 1; by default the recipe's.

    Raises:
        PlanError: BatchNorm is to normalise by a batch of one sample.
    """
    model = model.clone()
    recipe, settings = adapted(
        case.recipe, optimizer=optimizer, momentum=momentum, weight_decay=weight_decay,
        batch_size=batch_size,
    )  # fmt: skip
    size = min(recipe.batch_size, len(case.forget))
    check_batches(model.module, batch_norm, size)
    affordable = ledger.steps(size)
    if passes is None:
        passes = affordable * size / (len(case.retain) + len(case.forget))
    bounded = form == "bounded"
    descend(
        model,
        ((forget,) for forget in shuffled(case.forget, size, rng.named("batches"))),
        (lambda forget: forget) if bounded else (lambda forget: -forget),
        losses=(unlikelihood,) if bounded else None,
        steps=min(affordable, math.ceil(passes * len(case.forget) / size)),
        lr=recipe.lr / 100 if lr is None else lr,
        ledger=ledger,
        rng=rng,
        batch_norm=batch_norm,
        **settings,
    )
    return model
