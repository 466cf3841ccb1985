"""Negative preference optimisation (NPO): an ascent on forget that slows down as it goes.

    theta <- theta - eta * grad [ gamma * CE(retain) + NPO(forget) ]
    NPO = mean over samples of -2 / beta * log sigmoid(-beta * log(p / p0))

p is the probability of a sample's label, p0 what it was in the model that was given. Where p = p0
its gradient is that of -CE; as p falls below p0 it fades, the sooner the larger beta is.

Source: Zhang, Lin, Bai and Mei 2024, arXiv:2404.05868, with their term on retain (`npo_grad_diff`).

Departs from it: the source works on language models, and a label is one class here. The
forget samples are shuffled anew in each of their epochs. BatchNorm sees retain and forget samples
as one batch. The forward pass for p0 is charged.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from poison_audit.case.case import Case
from poison_audit.models.memory import in_parts
from poison_audit.models.model import Batch, Model
from poison_audit.models.seeds import Rng
from poison_audit.training.adapted import Optimizer, adapted
from poison_audit.training.batches import shuffled
from poison_audit.training.ledger import FORWARD, Ledger
from poison_audit.training.loop import descend
from poison_audit.training.losses import cross_entropy
from poison_audit.training.modes import BatchNorm, check_batches


def npo(
    model: Model,
    case: Case,
    rng: Rng,
    *,
    ledger: Ledger,
    lr: float | None = None,
    beta: float = 0.1,
    gamma: float = 1.0,
    batch_norm: BatchNorm = "joint",
    optimizer: Optimizer = "recipe",
    momentum: float | None = None,
    weight_decay: float | None = None,
    batch_size: int | None = None,
) -> Model:
    """Take joint steps, a batch of each, until the budget is spent.

    Args:
        lr: eta, above 0; by default a two-hundredth of the recipe's peak rate.
        beta: how soon the ascent fades, above 0.
        gamma: weight of the retain loss, at least 0.
        batch_norm: what BatchNorm normalises by, as `descend` says.
        optimizer: by default the recipe's.
        momentum: of SGD, in [0, 1]; by default the recipe's.
        weight_decay: at least 0; by default the recipe's.
        batch_size: of each of both, at least 1; by default the recipe's.

    Raises:
        PlanError: BatchNorm is to normalise by a batch of one sample.
    """
    first, model = model.clone(), model.clone()
    first.module.eval()

    def preference(logits: Tensor, batch: Batch) -> Tensor:  # (n,)
        with torch.no_grad():
            told = in_parts(lambda part: first.logits(first.module, part), batch)
            before = cross_entropy(told, batch)
        ledger.charge(FORWARD * len(batch))
        # log(p / p0) is the old cross-entropy less the new one.
        return 2 / beta * F.softplus(beta * (before - cross_entropy(logits, batch)))

    recipe, settings = adapted(
        case.recipe, optimizer=optimizer, momentum=momentum, weight_decay=weight_decay,
        batch_size=batch_size,
    )  # fmt: skip
    retain = shuffled(case.retain, recipe.batch_size, rng.named("batches"), augment=recipe.augment)
    forget = shuffled(case.forget, recipe.batch_size, rng.named("forget"))
    kept, left = (min(recipe.batch_size, len(part)) for part in (case.retain, case.forget))
    check_batches(model.module, batch_norm, kept, left)
    descend(
        model,
        zip(retain, forget, strict=False),
        lambda retain, forget: gamma * retain + forget,
        losses=(cross_entropy, preference),
        steps=ledger.steps(kept + left * (1 + FORWARD)),
        lr=recipe.lr / 200 if lr is None else lr,
        ledger=ledger,
        rng=rng,
        batch_norm=batch_norm,
        **settings,
    )
    return model
