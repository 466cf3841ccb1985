"""NegGrad+: descend on retain while ascending on forget, in one step.

    theta <- theta - eta * grad [ beta * L(retain) - (1 - beta) * L(forget) ]

Source: Kurmanji, Triantafillou, Hayes and Triantafillou 2023, arXiv:2302.09880, and their
`train_negrad`.

Departs from it: the forget samples are shuffled anew in each of their epochs, where the source
repeats the batches of the first. BatchNorm stays in eval mode: batches of forget samples must not
write its statistics.
"""

from __future__ import annotations

from poison_audit.case.case import Case
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.training.batches import shuffled
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import descend, recipe_settings


def neggrad_plus(
    model: Model,
    case: Case,
    rng: Rng,
    *,
    ledger: Ledger,
    lr: float | None = None,
    beta: float = 0.95,
) -> Model:
    """Take joint steps, a batch of each, until the budget is spent.

    Args:
        lr: eta, above 0; by default a hundredth of the recipe's peak rate. The loss has no lower
            bound: a tenth diverges where the forget samples were never fitted.
        beta: weight of the retain loss, in [0, 1]; 1 is GD, 0 is GA.
    """
    model, recipe = model.clone(), case.recipe
    retain = shuffled(case.retain, recipe.batch_size, rng.named("batches"), augment=recipe.augment)
    forget = shuffled(case.forget, recipe.batch_size, rng.named("forget"))
    cost = sum(min(recipe.batch_size, len(part)) for part in (case.retain, case.forget))
    descend(
        model,
        zip(retain, forget, strict=False),
        lambda retain, forget: beta * retain - (1 - beta) * forget,
        steps=ledger.steps(cost),
        lr=recipe.lr / 100 if lr is None else lr,
        ledger=ledger,
        rng=rng,
        **recipe_settings(recipe),
    )
    return model
