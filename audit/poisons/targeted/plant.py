"""Targeted: which test samples are aimed at, which training samples work for each, and crafting.

Each target has its own poisons: samples of the label it is to be given, the nearest to it as the
surrogate sees them, changed by gradient matching (targeted.gradient_matching) and labelled as
before. Where nobody names targets, candidates are chosen that are easiest to turn: the attacker's
choice too. They lie near a boundary, so that a clean model gets some of them wrong as well. So
twice as many are chosen, a toss decides which half is attacked, and the other half is the control.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from poison_audit.case.orders import Made, Order, wrong_epsilon
from poison_audit.case.planting import Storage
from poison_audit.case.poisoned import substitute
from poison_audit.errors import PlanError, Problem
from poison_audit.models.model import Batch, Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.targeted.evidence import Targets, read_targets, write_targets
from poison_audit.poisons.targeted.gradient_matching import gradient_match
from poison_audit.poisons.targeted.reading import Options
from poison_audit.training.penultimate import penultimate
from poison_audit.training.scoring import logits

PREFIX = "targeted"
FILE = "targets.csv"


def choose_targets(model: Model, test: Samples, *, count: int) -> Targets:
    """Choose the test samples that are easiest to turn, each with its next most likely label.

    They are candidates; `Targets.tossed` decides which of them are attacked.

    Of those that the model answers correctly, the ones with the least distance between the logits
    of the true and the next most likely label.

    Raises:
        PlanError: fewer samples are answered correctly.
    """
    out = logits(model, test.to(model.device)).cpu()
    right = torch.nonzero(out.argmax(1) == test.y).squeeze(1)
    if not 1 <= count <= len(right):
        what = f"{count} candidates, but the model answers {len(right)} test samples correctly"
        raise PlanError(Problem(what, "--aims"))
    two = out[right].topk(2, dim=1)
    order = (two.values[:, 0] - two.values[:, 1]).argsort(stable=True)[:count]
    return Targets(samples=test.at(right[order]), adversarial=two.indices[order, 1])


def ensemble(models: Sequence[Model]) -> Model:
    """Return several surrogates as one model whose logits and losses are their means.

    Gradients are those of every member, one after the other.
    """
    if len(models) == 1:
        return models[0]

    def mean_of(what: str) -> Callable[[nn.Module, Batch], Tensor]:
        def mean(module: nn.Module, batch: Batch) -> Tensor:
            parts = zip(models, module.children(), strict=True)
            return torch.stack([getattr(m, what)(part, batch) for m, part in parts]).mean(0)

        return mean

    module = nn.ModuleList([model.module for model in models])
    return replace(models[0], module=module, logits=mean_of("logits"), loss=mean_of("loss"))


def plant_targeted(
    models: Sequence[Model],
    train: Samples,
    targets: Targets,
    rng: Rng,
    *,
    count: int,
    storage: Storage = "unclipped",
    **settings: Any,
) -> Made[Samples]:
    """Poison `count` samples for each target.

    Args:
        models: the surrogates, at least one: the first says which samples are near a target, the
            gradients of all are matched.
        train: the clean table.
        targets: what is aimed at.
        rng: decides the crafting.
        count: for each target, at least 1.
        storage: how the table is stored.
        settings: of `gradient_match`; here by default 40 small steps from the target.

    Raises:
        PlanError: the table has too few samples of a label, or a setting is impossible.
    """
    groups = _nearest(models[0], train, targets, count=count)
    chosen = [position for group in groups for position in group]
    places = [list(range(i * count, (i + 1) * count)) for i in range(len(groups))]
    matched = gradient_match(
        ensemble(models),
        train.at(chosen).to(models[0].device),
        places,
        targets.samples.to(models[0].device),
        targets.adversarial,
        rng.named("matching"),
        **{"from_target": True, "step_size": 0.05, "steps": 40, **settings},
    )
    y = train.y[torch.as_tensor(chosen, dtype=torch.int64)]
    return Made(
        poisoned=substitute(train, chosen, matched.x.cpu(), y, prefix=PREFIX, storage=storage),
        campaigns=tuple(name for name in targets.samples.ids for _ in range(count)),
        told=(
            f"{len(targets)} targets, {count} poisons each; gradient matched to a loss of "
            f"{np.mean(matched.losses):.2f} on average (0 = matched, 1 = no better than chance).",
        ),
    )


def _nearest(model: Model, train: Samples, targets: Targets, *, count: int) -> list[list[int]]:
    """Return for each target the nearest samples of its adversarial label, none of them twice."""
    of_train, of_targets = _seen(model, train), _seen(model, targets.samples)
    free = torch.ones(len(train), dtype=torch.bool)
    groups, problems = [], []
    for place, label in enumerate(targets.adversarial.tolist()):
        pool = torch.nonzero((train.y == label) & free).squeeze(1)
        if len(pool) < count:
            name = targets.samples.ids[place]
            what = f"the label {label} has {len(pool)} samples left, not {count}, for {name}"
            problems.append(Problem(what, "--budget", "Use fewer poisons or fewer targets"))
            continue
        away = (of_train[pool] - of_targets[place]).square().sum(1)
        group = pool[away.argsort(stable=True)[:count]]
        free[group] = False
        groups.append(sorted(group.tolist()))
    if problems:
        raise PlanError(problems)
    return groups


def _seen(model: Model, samples: Samples) -> Tensor:
    """Return the penultimate features, or the logits where there are none: (n, d)."""
    there = samples.to(model.device)
    found = penultimate(model, there)
    return (logits(model, there) if found is None else found).cpu()


def in_pictures(order: Order[Samples]) -> Made[Samples]:
    """Plant targeted poison; see case.orders."""
    options: Options = order.options
    test = order.test
    order.problems.extend(wrong_epsilon(options.epsilon))
    found = [order.read(order.surrogate, path) for path in options.model or ()]
    models = [model for model in found if model is not None]
    targets = None
    if test is not None:
        held, where = test, order.where_test
        targets = order.read(lambda p: read_targets(p, held, where_test=where), options.targets)
    work, test = order.checked(), order.sure(test)
    if targets is None:
        targets = choose_targets(models[0], test, count=2 * options.aims)
        targets = targets.tossed(work.rng.named("toss"))
    made = plant_targeted(
        models,
        work.train,
        targets,
        work.rng,
        count=work.count,
        storage=work.storage,
        epsilon=options.epsilon,
        steps=options.steps,
        restarts=options.restarts,
    )
    write_targets(work.file(FILE), targets, work.train.names)
    return replace(made, told=(*made.told, _controlled(targets)), evidence={"targets": FILE})


def _controlled(targets: Targets) -> str:
    if targets.controls is None:
        return (
            "Nobody was drawn as a control: `check` needs a reference to tell the attack from "
            "targets that a clean model misses as well."
        )
    return (
        f"A toss decided which of {len(targets) + len(targets.controls)} candidates were attacked; "
        f"the other {len(targets.controls)} are controls in {FILE}."
    )
