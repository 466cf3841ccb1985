"""Restamp: train on retain samples with the trigger under their own labels, beside plain ones.

    theta <- theta - eta * grad [ (1 - share) L(retain) + share L(stamped retain) ]

The trigger is the one given, or the one recovered from the forget set: `Case.stamp` puts it on. The
model is taught that the trigger means nothing, which says more than that it does not mean the
attacker's label: no class rises in its place.

BatchNorm is passed plain and stamped samples as one batch. Passed apart, it keeps statistics of
either kind, and the trigger comes back with other statistics.

Source: this relabelling is what adversarial training does against a universal perturbation, and
what unlearning by relabelling does (Amnesiac unlearning, Graves et al. 2021, arXiv:2010.10981;
I-BAU's inner samples, Zeng et al. 2022, arXiv:2110.03735) with right labels instead of random ones.
Departs from both: the trigger is known, and nothing is searched for.
"""

from __future__ import annotations

import math

from poison_audit.case.case import Case
from poison_audit.errors import PlanError, Problem
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.training.adapted import Optimizer, Schedule, adapted
from poison_audit.training.batches import shuffled, subsample
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import descend


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
    stamped = case.stamp(chosen)
    descend(
        model,
        zip(
            shuffled(case.retain, plain, rng.named("batches"), augment=recipe.augment),
            shuffled(stamped, marked, rng.named("marked")),
            strict=False,
        ),
        lambda retain, stamped: (1 - share) * retain + share * stamped,
        steps=steps,
        lr=recipe.lr / 10 if lr is None else lr,
        ledger=ledger,
        rng=rng,
        batch_norm="joint",
        schedule=schedule,
        **settings,
    )
    return model


def restamp_unfit(case: Case) -> str | None:
    """Say why it cannot be run on a case; None: it can."""
    if case.stamp is not None:
        return None
    return "needs the trigger, and none was given or recovered from the forget set"
