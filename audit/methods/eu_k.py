"""Exact unlearning of the last k blocks (EU-k): draw those anew, train them on retain.

    theta_last <- initial draw;   theta_last <- theta_last - eta * grad_last L(retain)

Source: Goel, Prabhu, Sanyal, Lim, Torr and Kumaraguru 2022, arXiv:2201.06640.

Departs from it: k counts blocks (a residual stage, a layer with its normalisation), not layers;
normalisation layers are drawn anew with their block, statistics included; a parameter that an
earlier block shares stays frozen with it. BatchNorm uses and updates batch statistics in the
trained blocks; their published code moves those of the frozen blocks too. The new blocks start from
nothing, so they get the recipe's rate and schedule, over the steps that the budget allows. Of a
fine-tuned language model whose start is given, "anew" means the pretrained weights and a new head.
A step is charged in full although the frozen blocks need no backward pass. The preset `goel` has
their code's optimiser, rate and batch; their cosine falls to 0.005 in cycles of 1, 2, 4, .. epochs,
ours once to 0, and they clip gradients of a norm above 10.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import torch
from torch import nn

from poison_audit.case.case import Case
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.training.adapted import Optimizer, Schedule, adapted
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import descend_on
from poison_audit.training.modes import last_blocks, stateful_parts


def eu_k(
    model: Model,
    case: Case,
    rng: Rng,
    *,
    ledger: Ledger,
    lr: float | None = None,
    k: int = 2,
    schedule: Literal["recipe"] | Schedule = "recipe",
    optimizer: Optimizer = "recipe",
    momentum: float | None = None,
    weight_decay: float | None = None,
    batch_size: int | None = None,
) -> Model:
    """Initialise the last `k` blocks and train them on the retain samples.

    Args:
        lr: eta, above 0, the peak of the recipe's schedule; by default the recipe's.
        k: blocks to draw anew, from 1 to the model's number of blocks; all of them is retraining,
            as far as the budget goes.
        schedule: of eta, over the steps that the budget allows; by default the recipe's.
        optimizer: by default the recipe's.
        momentum: of SGD, in [0, 1]; by default the recipe's.
        weight_decay: at least 0; by default the recipe's.
        batch_size: at least 1; by default the recipe's.

    Raises:
        PlanError: the model has fewer than `k` blocks.
    """
    names = last_blocks(model, k)
    fresh = model.fresh(rng.named("init"))
    model = model.clone()
    recipe, _ = adapted(
        case.recipe, optimizer=optimizer, momentum=momentum, weight_decay=weight_decay,
        batch_size=batch_size,
    )  # fmt: skip
    _copy(fresh.module, model.module, names)
    rate = recipe.lr if lr is None else lr
    descend_on(
        model, case.retain, recipe, rng,
        ledger=ledger, lr=rate, parameters=names,
        schedule=recipe.schedule if schedule == "recipe" else schedule,
    )  # fmt: skip
    return model


@torch.no_grad()
def _copy(source: nn.Module, target: nn.Module, names: Collection[str]) -> None:
    """Copy the named parameters, and the buffers of the parts that hold them."""
    for name in names:
        target.get_parameter(name).copy_(source.get_parameter(name))
    for part in stateful_parts(target, names):
        new = dict(source.get_submodule(part).named_buffers(recurse=False))
        for name, buffer in target.get_submodule(part).named_buffers(recurse=False):
            buffer.copy_(new[name])
