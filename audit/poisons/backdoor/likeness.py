"""Which pictures carry a trigger, as far as pictures alone can tell.

What is replaced is compared value by value. What is blended or added leaves the picture underneath,
so that its strength is estimated: by a filter matched to the trigger against what retain pictures
show, both by their spectrum (Turin, IRE Transactions on Information Theory 6, 1960). It is 0 on
average in retain pictures, and 1 where the trigger was put on. How well single pictures can be told
by it, the retain pictures say themselves. Far above 1 the pictures carry a stronger trigger: the
one that is given would hardly be obeyed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from poison_audit.models.samples import Samples
from poison_audit.poisons.backdoor.evidence import Trigger

BATCH = 256
STORED = 0.1
"""Largest root mean square difference of a stored patch from the trigger, of 1: JPEG is lossy."""
WRONG = 0.02
"""Share of pictures, with it or without, that may be taken for the other kind."""
GROUP = 0.8
"""Mean strength, less three standard errors, by which rows are told to carry it together; above
1 / GROUP they carry a stronger one."""
SOME = 0.05
"""Of the pictures that show a trigger, as many that show a stronger one are no accident."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """What pictures show of a trigger."""

    carries: Tensor
    """Whether each picture carries it, as strongly as it is given: bool, (n,), on the CPU."""
    strength: Tensor | None = None
    """What each shows of it, (n,), 1 for all of it; None: compared value by value, or not told."""
    most: float = math.inf
    """The strength from which a single picture carries a stronger one."""
    untold: str = ""
    """Why single pictures cannot be told, as a sentence; empty: they can."""

    def together(self, rows: Tensor) -> bool:
        """Say whether these rows, bool, (n,), carry it for the most part, told by their mean."""
        return bool(self.untold) and GROUP <= self._surely(rows) <= 1 / GROUP

    def stronger(self, rows: Tensor) -> tuple[int, float] | None:
        """Return how many of these rows carry a stronger one, and how many times as strong.

        None: they do not, or nothing is known of it. `rows`: bool, (n,).
        """
        if self.strength is None:
            return None
        if self.untold:
            many = rows if self._surely(rows) > 1 / GROUP else torch.zeros_like(rows)
        else:
            many = rows & (self.strength >= self.most)
            if int(many.sum()) <= SOME * int((rows & (many | self.carries)).sum()):
                return None
        return (int(many.sum()), float(self.strength[many].mean())) if bool(many.any()) else None

    def _surely(self, rows: Tensor) -> float:
        """Return what the mean strength of these rows surely exceeds."""
        if self.strength is None or int(rows.sum()) < 2:
            return -math.inf
        own = self.strength[rows]
        return float(own.mean() - 3 * own.std() / len(own) ** 0.5)


def likeness(trigger: Trigger, samples: Samples, retain: Samples) -> Likeness:
    """Say which of `samples` carry a trigger; `retain`: pictures that do not, to calibrate by."""
    hidden = trigger.keep == 0
    if bool((hidden.any(0) == trigger.changes).all()) and bool((trigger.add[~hidden] == 0).all()):
        batches = samples.in_order(BATCH)
        return Likeness(carries=torch.cat([_off(trigger, b.x) <= STORED for b in batches]).cpu())
    nowhere = torch.zeros(len(samples), dtype=torch.bool)
    if trigger.anywhere:
        told = "Which rows carry it cannot be told: it leaves the picture underneath, at any place."
        return Likeness(carries=nowhere, untold=told)
    if len(retain) < 1 / WRONG:
        told = f"Which rows carry it cannot be told by {len(retain)} retain pictures."
        return Likeness(carries=nowhere, untold=told)
    keep, add = trigger.keep.cpu(), trigger.add.cpu()
    others = torch.cat([batch.x.float().cpu() for batch in retain.in_order(BATCH)])
    mean = others.mean(0)
    power = torch.fft.fft2(others - mean).abs().square().mean(0)
    stamped = (keep * others + add).clamp(0, 1)
    change = stamped.mean(0) - mean
    spectrum = torch.fft.fft2(change) / (power + 1e-3 * power.mean() + 1e-12)
    weights = torch.fft.ifft2(spectrum).real
    weights = weights / (weights * change).sum()

    def strength(x: Tensor) -> Tensor:
        found: Tensor = ((x.float().cpu() - mean) * weights).flatten(1).sum(1)
        return found

    found = torch.cat([strength(batch.x) for batch in samples.in_order(BATCH)])
    without, with_it = (strength(part).sort().values for part in (others, stamped))
    # Where as many are wrong on either side.
    apart = with_it > without.flip(0)
    at = int(apart.float().argmax())
    wrong = at / len(others) if bool(apart.any()) else 1.0
    if wrong <= WRONG:
        # As few exceed 1 by as much as fall short of it.
        least = float(with_it[at] + without[-1 - at]) / 2
        within = (found > least) & (found < 2 - least)
        return Likeness(carries=within, strength=found, most=2 - least)
    told = f"It is faint: {100 * wrong:.0f}% of retain pictures seem to carry it as well."
    return Likeness(carries=nowhere, strength=found, untold=told)


def _off(trigger: Trigger, x: Tensor) -> Tensor:
    """Return how far pictures (n, c, h, w) are from one that carries it: the rms difference, (n,).

    Of a trigger that may stand anywhere, the smallest of all places.
    """
    top, left, height, width = trigger.box
    box = (slice(None), slice(top, top + height), slice(left, left + width))
    on, add = (1 - trigger.keep[box]).to(x), trigger.add[box].to(x)
    if not trigger.anywhere:
        here = x[..., box[1], box[2]]
        return ((here - add).square() * on).flatten(1).sum(1).div(on.sum()).sqrt()
    squares = (
        F.conv2d(x.square(), on[None]) - 2 * F.conv2d(x, add[None]) + add.square().sum()
    )  # (n, 1, places, places)
    return squares.flatten(1).amin(1).clamp(min=0).div(on.sum()).sqrt()
