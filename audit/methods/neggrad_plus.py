"""NegGrad+: descend on retain while ascending on forget, in one step.

    theta <- theta - eta * grad [ beta * L(retain) - (1 - beta) * L(forget) ]

Source: Kurmanji, Triantafillou, Hayes and Triantafillou 2023, arXiv:2302.09880, and their
`train_negrad`.

Departs from it: the forget samples are shuffled anew in each of their epochs, where the source
repeats the batches of the first. The ascent ends at a cap. BatchNorm sees retain and forget samples
as one batch, where the source normalises each by itself. The preset `kurmanji` has it their way,
with the rate and the weight of their `negative_grad`; how many epochs (five there), the budget
decides.
"""

from __future__ import annotations

from torch import Tensor

from poison_audit.case.case import Case
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.training.adapted import Form, Optimizer, adapted
from poison_audit.training.batches import shuffled
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import descend
from poison_audit.training.losses import cross_entropy, unlikelihood
from poison_audit.training.modes import BatchNorm, check_batches


def neggrad_plus(
    model: Model,
    case: Case,
    rng: Rng,
    *,
    ledger: Ledger,
    lr: float | None = None,
    beta: float = 0.77,
    form: Form = "ascent",
    cap: float | None = 6.0,
    batch_norm: BatchNorm = "joint",
    optimizer: Optimizer = "recipe",
    momentum: float | None = None,
    weight_decay: float | None = None,
    batch_size: int | None = None,
) -> Model:
    """Take joint steps, a batch of each, until the budget is spent.

    Args:
        lr: eta, above 0; by default a hundredth of the recipe's peak rate. Without a cap the loss
            has no lower bound: a tenth diverges where the forget samples were never fitted.
        beta: weight of the retain loss, in [0, 1]; 1 is GD, 0 is GA.
        form: `bounded` descends on -log(1 - p) of the forget samples instead.
        cap: the mean loss of a forget batch above which it is not ascended, above 0; None: none.
            Of 6, p is some 0.0025.
        batch_norm: what BatchNorm normalises by, as `descend` says.
        optimizer: by default the recipe's.
        momentum: of SGD, in [0, 1]; by default the recipe's.
        weight_decay: at least 0; by default the recipe's.
        batch_size: of each of both, at least 1; by default the recipe's.

    Raises:
        PlanError: BatchNorm is to normalise by a batch of one sample.
    """
    model = model.clone()
    recipe, settings = adapted(
        case.recipe, optimizer=optimizer, momentum=momentum, weight_decay=weight_decay,
        batch_size=batch_size,
    )  # fmt: skip
    retain = shuffled(case.retain, recipe.batch_size, rng.named("batches"), augment=recipe.augment)
    forget = shuffled(case.forget, recipe.batch_size, rng.named("forget"))
    sizes = [min(recipe.batch_size, len(part)) for part in (case.retain, case.forget)]
    check_batches(model.module, batch_norm, *sizes)

    def objective(retain: Tensor, forget: Tensor) -> Tensor:
        if form == "bounded":
            return beta * retain + (1 - beta) * forget
        return beta * retain - (1 - beta) * (forget if cap is None else forget.clamp(max=cap))

    descend(
        model,
        zip(retain, forget, strict=False),
        objective,
        losses=(cross_entropy, unlikelihood) if form == "bounded" else None,
        steps=ledger.steps(sum(sizes)),
        lr=recipe.lr / 100 if lr is None else lr,
        ledger=ledger,
        rng=rng,
        batch_norm=batch_norm,
        **settings,
    )
    return model
