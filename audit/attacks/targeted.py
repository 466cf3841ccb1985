"""Targeted: which test samples are aimed at, which training samples work for each, and crafting.

Each target has its own poisons: samples of the label it is to be given, changed by gradient
matching (audit.attacks.gradient_matching) and labelled as before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from audit.attacks.gradient_matching import gradient_match
from audit.attacks.poisoned import Poisoned, substitute
from audit.data.canaries import Storage
from audit.data.samples import Samples
from audit.data.targets import Targets
from audit.errors import PlanError, Problem
from audit.models.model import Model
from audit.seeds import Rng
from audit.training import logits

PREFIX = "targeted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Aimed:
    """A table with poisons for several targets."""

    poisoned: Poisoned
    campaigns: tuple[str, ...]
    """For each poison, the id of its target."""
    losses: tuple[float, ...]
    """For each target, what is left of 1 - cosine."""


def choose_targets(model: Model, test: Samples, rng: Rng, *, count: int) -> Targets:
    """Choose test samples that the model answers correctly, each with its next most likely label.

    Args:
        model: the surrogate.
        test: the clean test table.
        rng: decides which.
        count: at least 1.

    Raises:
        PlanError: fewer samples are answered correctly.
    """
    out = logits(model, test)
    right = torch.nonzero(out.argmax(1) == test.y).squeeze(1)
    if not 1 <= count <= len(right):
        what = f"{count} targets, but the model answers {len(right)} test samples correctly"
        raise PlanError(Problem(what, "--aims"))
    order = rng.named("targets").numpy().permutation(len(right))[:count]
    chosen = right[torch.from_numpy(order)]
    rest = out[chosen].scatter(1, test.y[chosen][:, None], -torch.inf)
    return Targets(samples=test.at(chosen), adversarial=rest.argmax(1))


def plant_targeted(
    model: Model,
    train: Samples,
    targets: Targets,
    rng: Rng,
    *,
    count: int,
    storage: Storage = "unclipped",
    **settings: Any,
) -> Aimed:
    """Poison `count` samples for each target.

    Args:
        model: the surrogate.
        train: the clean table.
        targets: what is aimed at.
        rng: decides which samples work for which target, and the crafting.
        count: for each target, at least 1.
        storage: how the table is stored.
        settings: of `gradient_match`.

    Raises:
        PlanError: the table has too few samples of a label, or a setting is impossible.
    """
    groups = _groups(train, targets, rng, count=count)
    chosen = [position for group in groups for position in group]
    places = [list(range(i * count, (i + 1) * count)) for i in range(len(groups))]
    matched = gradient_match(
        model,
        train.at(chosen),
        places,
        targets.samples,
        targets.adversarial,
        rng.named("matching"),
        **settings,
    )
    y = train.y[torch.as_tensor(chosen, dtype=torch.int64)]
    return Aimed(
        poisoned=substitute(train, chosen, matched.x, y, prefix=PREFIX, storage=storage),
        campaigns=tuple(name for name in targets.samples.ids for _ in range(count)),
        losses=matched.losses,
    )


def _groups(train: Samples, targets: Targets, rng: Rng, *, count: int) -> list[list[int]]:
    pools: dict[int, list[int]] = {}
    groups, problems = [], []
    for name, label in zip(targets.samples.ids, targets.adversarial.tolist(), strict=True):
        if label not in pools:
            pool = torch.nonzero(train.y == label).squeeze(1)
            order = rng.named("poisons", label).numpy().permutation(len(pool))
            pools[label] = pool[torch.from_numpy(order)].tolist()
        group, pools[label] = pools[label][:count], pools[label][count:]
        if len(group) < count:
            what = f"the label {label} has {len(group)} samples left, not {count}, for {name}"
            problems.append(Problem(what, "--budget", "Use fewer poisons or fewer targets"))
        groups.append(group)
    if problems:
        raise PlanError(problems)
    return groups
