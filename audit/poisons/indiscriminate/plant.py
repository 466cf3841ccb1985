"""Indiscriminate: corrupted parameters, and poisons that hold the gradient still there.

With `steps` = 0 nothing is crafted: the poisons are exact copies of one class's samples, labelled
as another (label flipping; Biggio et al. 2011). On a network trained from scratch that can cost
more accuracy than gradient canceling does, since a changed picture can be told from the clean one
and learnt beside it, an exact copy cannot.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from poison_audit.case.orders import Made, Order
from poison_audit.case.poisoned import added, append
from poison_audit.case.texts import TextTable, spelling
from poison_audit.errors import PlanError, Problem
from poison_audit.models.memory import has_room
from poison_audit.models.samples import Samples, as_pixels
from poison_audit.models.seeds import Rng
from poison_audit.poisons.indiscriminate.gradient_canceling import corrupt, gradient_cancel
from poison_audit.poisons.indiscriminate.reading import Options
from poison_audit.training.scoring import correct

PREFIX = "indiscriminate"
ADDED = "they were added to the clean samples"
STEPS = 60
"""Of crafting, where nobody says it."""
DISTANCE, CAP = 0.01, 1.0
"""Of the corrupted parameters; see `corrupt`."""


def _copied(
    labels: Sequence[int], rng: Rng, count: int, flip: tuple[int, int], noun: str
) -> tuple[list[int], str]:
    """Return the places of `count` samples to copy, and how many that are, in words.

    Each sample of the class is copied once before one is copied twice.

    Raises:
        PlanError: the table has no sample of the class, or the classes are the same.
    """
    true, wrong = flip
    pool = [place for place, label in enumerate(labels) if label == true]
    if true == wrong or not pool:
        what = f"the table has {len(pool)} {noun} of class {true} to label {wrong}"
        raise PlanError(Problem(what, "--flip", "Name two classes that the table has"))
    drawn = rng.named("copies").numpy().permutation(len(pool)).tolist()
    chosen = [pool[drawn[number % len(pool)]] for number in range(count)]
    return chosen, f"{min(count, len(pool))} of the {len(pool)} {noun}"


def in_pictures(order: Order[Samples]) -> Made[Samples]:
    """Add poisons that pull training towards parameters of low accuracy, or copies, to pictures.

    With a flip the corrupted parameters take the one class for the other and nothing else wrong;
    without, the loss of every class is raised.
    """
    options: Options = order.options
    surrogate = order.read(order.surrogate, options.model)
    flip = order.read(order.flip, options.flip)
    work, steps = order.checked(), STEPS if options.steps is None else options.steps
    train, rng = work.train, work.rng
    if steps == 0:
        true, wrong = order.sure(flip)
        chosen, many = _copied(train.y.tolist(), rng, work.count, (true, wrong), "samples")
        x, y = as_pixels(train.x[chosen]).float(), torch.full((work.count,), wrong)
        told = f"Exact copies of {many} of class {true}, labelled {wrong}."
    else:
        model, flips = order.sure(surrogate), None if flip is None else dict([flip])
        there = train.to(model.device, streamed=not has_room(train.x, model.device))
        named = rng.named("corrupt")
        target = corrupt(model, there, named, distance=DISTANCE, flips=flips, cap=CAP)
        named = rng.named("cancel")
        made = gradient_cancel(
            target, there, named, count=work.count, steps=steps, labels="predicted"
        )
        x, y = made.x.cpu(), made.y.cpu()
        before, after = (float(correct(m, there).float().mean()) for m in (model, target))
        told = (
            f"The surrogate answers {before:.1%} of the training samples correctly, with corrupted "
            f"parameters {after:.1%}; there the poisons leave {made.residual:.1%} of the clean "
            "samples' gradient."
        )
    poisoned = append(train, x, y, prefix=PREFIX, storage=work.storage)
    return Made(change=ADDED, poisoned=poisoned, told=(told,))


def in_texts(order: Order[TextTable]) -> Made[TextTable]:
    """Add exact copies of one class's texts, labelled as another."""
    if order.options.steps not in (None, 0):
        what = "poison is crafted in pictures only; texts are copied with another label"
        order.problems.append(Problem(what, "--steps", "Use 0"))
    flip = order.read(order.flip, order.options.flip)
    work, flip = order.checked(), order.sure(flip)
    table = work.train
    chosen, many = _copied(table.y, work.rng, work.count, flip, "texts")
    of, as_what = (spelling(label, table.names) for label in flip)
    labels = [flip[1]] * work.count
    return Made(
        poisoned=added(table, table.at(chosen).texts, labels, prefix=PREFIX),
        change="they were added to the clean texts",
        told=(f"Exact copies of {many} of class {of}, labelled {as_what}.",),
    )
