"""Mislabelled: samples that chance chooses are given a wrong label, and stay as they are otherwise.

The labels are those of one class for samples of another (`--flip A:B`), or any wrong one at random
for samples of any class: what careless annotation does (Biggio et al., 2011).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from poison_audit.case.orders import Made, Order
from poison_audit.case.poisoned import replaced, substitute
from poison_audit.case.texts import TextTable, spelling
from poison_audit.errors import PlanError, Problem
from poison_audit.models.samples import Samples, as_pixels
from poison_audit.models.seeds import Rng

PREFIX = "mislabelled"


def draw_flips(
    labels: Sequence[int],
    rng: Rng,
    *,
    count: int,
    classes: int,
    flip: tuple[int, int] | None = None,
) -> tuple[list[int], list[int]]:
    """Draw samples and a wrong label for each.

    Args:
        labels: of all samples.
        rng: decides both.
        count: how many samples, at least 1.
        classes: how many classes there are.
        flip: the class whose samples are drawn, and the label they are given; None: any.

    Returns:
        (places in ascending order, labels).

    Raises:
        PlanError: there are not so many samples, or no other label.
    """
    pool = [at for at, label in enumerate(labels) if flip is None or label == flip[0]]
    if flip is not None and flip[0] == flip[1]:
        what = f"both classes are {flip[0]}"
        raise PlanError(Problem(what, "--flip", "Name two classes that the table has"))
    if classes < 2:
        raise PlanError(Problem("the table has one class only: no label is wrong"))
    if not 1 <= count <= len(pool):
        whose = "" if flip is None else f" of class {flip[0]}"
        what = f"{count} samples to mislabel, but the table has {len(pool)}{whose}"
        raise PlanError(Problem(what, "--budget", "Use fewer"))
    drawn = rng.named("samples").numpy().permutation(len(pool))[:count].tolist()
    places = sorted(pool[at] for at in drawn)
    if flip is not None:
        return places, [flip[1]] * count
    shifts = rng.named("labels").numpy().integers(1, classes, count).tolist()
    return places, [
        (labels[at] + shift) % classes for at, shift in zip(places, shifts, strict=True)
    ]


def _told(order: Order[Samples] | Order[TextTable], flip: tuple[int, int] | None) -> str:
    if flip is None:
        return "Chance chose the samples and their wrong labels."
    true, wrong = (spelling(label, order.known().names) for label in flip)
    return f"Chance chose samples of class {true}, which are labelled {wrong}."


def in_pictures(order: Order[Samples]) -> Made[Samples]:
    """Give pictures wrong labels; see case.orders."""
    flip = order.read(order.flip, order.options.flip)
    work = order.checked()
    train, classes = work.train, order.classes
    labels: list[int] = train.y.tolist()
    places, wrong = draw_flips(labels, work.rng, count=work.count, classes=classes, flip=flip)
    x, y = as_pixels(train.x[places]).float(), torch.tensor(wrong, dtype=torch.int64)
    return Made(
        poisoned=substitute(train, places, x, y, prefix=PREFIX, storage=work.storage),
        change="their labels were changed, their pixels were not",
        told=(_told(order, flip),),
        clean=tuple(labels[at] for at in places),
        chance=True,
    )


def in_texts(order: Order[TextTable]) -> Made[TextTable]:
    """Give texts wrong labels; see case.orders."""
    flip = order.read(order.flip, order.options.flip)
    work = order.checked()
    table, classes = work.train, order.classes
    places, wrong = draw_flips(table.y, work.rng, count=work.count, classes=classes, flip=flip)
    texts = [table.texts[at] for at in places]
    return Made(
        poisoned=replaced(table, places, texts, wrong, prefix=PREFIX),
        change="their labels were changed",
        told=(_told(order, flip),),
        clean=tuple(table.y[at] for at in places),
        chance=True,
    )
