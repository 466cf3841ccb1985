"""Patches on pictures: the trigger's controls, and how both are put on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from poison_audit.models.model import Batch
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.evidence import Trigger
from poison_audit.poisons.backdoor.stamps import Stamps

FEW = 100
"""A trigger whose pixels make fewer patches than this has its controls at random places, too."""


def patch_stamps(trigger: Trigger, inputs: Samples, draws: int, rng: Rng) -> Stamps:
    """Return the trigger, which fits on pictures, and at most `draws` controls, to be put on them.

    `rng` decides which.
    """
    triggers = [trigger, *draw_controls(trigger, inputs.x.shape[-2:], draws, rng)]

    def batch(which: Tensor, places: Tensor) -> Batch:
        found = inputs.batch(places)
        x = found.x
        for number in sorted(set(which.tolist())):
            rows = (which == number).to(x.device)
            x[rows] = triggers[number].stamp(x[rows])
        return found

    return Stamps(
        triggers=len(triggers),
        inputs=torch.arange(len(inputs)),
        batch=batch,
        controls="order" if arrangements(trigger) >= FEW else "order and place",
    )


def arrangements(trigger: Trigger) -> float:
    """Return how many different patches the trigger's pixels can make.

    >>> from poison_audit.poisons.backdoor.evidence import patch
    >>> arrangements(patch(torch.tensor([[[1.0, 0.0, 0.0]]]), (1, 4, 4), top=0, left=0, label=0))
    3.0
    """
    columns = _boxed(trigger).flatten(1).T.tolist()
    counts = Counter(map(tuple, columns)).values()
    logarithm = math.lgamma(len(columns) + 1) - sum(math.lgamma(n + 1) for n in counts)
    return float(round(math.exp(min(logarithm, 30.0))))


def draw_controls(trigger: Trigger, size: Sequence[int], draws: int, rng: Rng) -> list[Trigger]:
    """Draw control triggers, all different and none the trigger itself, at most `draws`.

    Left out is only what equals the trigger, which is as likely any of the rest: together they
    remain exchangeable.

    Args:
        trigger: a pixel of it keeps its channels together.
        size: (height, width) of the pictures.
        draws: controls wanted; all there are, if they are fewer.
    """
    generator = rng.named("controls").numpy()
    row, column, height, width = trigger.box
    pixels = _boxed(trigger).flatten(1).cpu()
    rows, columns = (whole - part + 1 for whole, part in zip(size, (height, width), strict=True))
    total = arrangements(trigger)
    places = total < FEW
    if places:
        total *= rows * columns
    found: dict[tuple[bytes, int, int], Trigger] = {}
    itself = (pixels.numpy().tobytes(), row, column)
    while len(found) < min(draws, total - 1):
        shuffled = pixels[:, torch.from_numpy(generator.permutation(pixels.shape[1]))]
        top, left = row, column
        if places:
            top, left = int(generator.integers(rows)), int(generator.integers(columns))
        key = (shuffled.contiguous().numpy().tobytes(), top, left)
        if key != itself:
            keep, add = torch.ones_like(trigger.keep), torch.zeros_like(trigger.add)
            here = (slice(None), slice(top, top + height), slice(left, left + width))
            both = shuffled.reshape(-1, height, width).to(keep.device)
            keep[here], add[here] = both.chunk(2)
            found[key] = replace(trigger, keep=keep, add=add)
    return list(found.values())


def _boxed(trigger: Trigger) -> Tensor:
    """Return what a trigger keeps and adds in its box: (2 c, height, width)."""
    top, left, height, width = trigger.box
    here = (slice(None), slice(top, top + height), slice(left, left + width))
    return torch.cat([trigger.keep[here], trigger.add[here]])
