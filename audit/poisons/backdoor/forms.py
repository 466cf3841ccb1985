"""The form of a trigger that some pictures carry: stamp(x) = clip(keep * x + add).

Where 90% of the carriers agree: replaced. Else, if every value's range shrank alike: blended, its
alpha from the range (its ends, not its variance: they need no base). Else: added. The pattern is
the shift of the carriers' mean, denoised in DCT or in pixels, or that of the ends of their range:
whichever of one half of the carriers best foretells the other half. numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from poison_audit.poisons.backdoor.agreement import Array, agreement, is_whole, near
from poison_audit.poisons.backdoor.directions import (
    FEWEST,
    Background,
    along,
    bar,
    coefficients,
    picture,
)

ENDS = 0.02
"""Share of the rows that lies beyond either end of the range of a value."""
FAINTEST = 0.07
"""Smallest alpha of a blend: clipping what was added shrinks ranges as much, and fainter blends are
not found."""
DRAWS = 8
"""Sets of retain rows whose ends are averaged."""
CHECKED = 1500
"""Retain rows that a pattern is tried on."""
UNCLIPPED = 1000
"""Of these, by which clipping is undone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A trigger, as what it does to a picture."""

    kind: Literal["replace", "blend", "add"]
    keep: Array
    """What is left of the picture, in [0, 1]: (c, h, w)."""
    add: Array
    """What is added to that: (c, h, w)."""

    def stamp(self, x: Array) -> Array:
        """Return pictures in [0, 1], (n, c, h, w), with the trigger on them."""
        return np.asarray(np.clip(x * self.keep + self.add, 0, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Usual:
    """What carriers are held against."""

    base: Array
    """Retain rows of the classes that the carriers' bases are most like."""
    low: Array
    """Mean lower end of as many retain rows: (c, h, w)."""
    high: Array
    keep: float
    noise: Array
    """Variance of the shift of the ends, by coefficient."""
    rows: int
    """How many carriers that is of."""


def form_of(x: Array, background: Background, label: int, generator: np.random.Generator) -> Form:
    """Return what turns retain rows into the carriers `x`, which have one label."""
    shape = x.shape[1:]
    excess, colour = agreement(x, background.x)
    fixed = (near(x, colour).mean(0) >= 0.9) & (excess >= 0.5)
    replaced = np.where(fixed, 0.0, 1.0) * np.ones(shape)
    usual = _usual(x, background, label, generator)
    if fixed.any() and is_whole(x, background.x):
        return Form(kind="replace", keep=replaced, add=np.where(fixed, np.median(x, 0), 0))
    few = bool(fixed.any() and fixed.mean() < 0.5)
    order = generator.permutation(len(x))
    half = x[order[: len(x) // 2]], x[order[len(x) // 2 :]]
    keeps = [np.full(shape, usual.keep)] * 3 + [replaced] * few
    loss = np.zeros(len(keeps))
    for one, other in (half, half[::-1]):
        for number, pattern in enumerate(_patterns(one, background, usual, fixed, few=few)):
            made = np.clip(keeps[number] * usual.base[:CHECKED] + pattern, 0, 1).mean(0)
            miss = coefficients((made - other.mean(0))[None])[0] / background.space.sd
            loss[number] += np.square(miss).sum()
    best = int(loss.argmin())
    add = _patterns(x, background, usual, fixed, few=few)[best]
    if best == 3:
        return Form(kind="replace", keep=replaced, add=add)
    for _ in range(6 if best < 2 else 0):  # what clipping took from the mean
        miss = x.mean(0) - np.clip(usual.keep * usual.base[:UNCLIPPED] + add, 0, 1).mean(0)
        add = add + np.where(np.abs(add) > 0.15, miss, 0)
    kind: Literal["blend", "add"] = "blend" if usual.keep < 1 else "add"
    return Form(kind=kind, keep=keeps[best], add=add)


def _ends(x: Array) -> tuple[Array, Array]:
    cut = int(np.ceil(ENDS * len(x)))
    ordered = np.sort(x, 0)
    return ordered[cut], ordered[-1 - cut]


def _usual(x: Array, background: Background, label: int, generator: np.random.Generator) -> _Usual:
    """Return what as many retain rows show, and how much of them the carriers kept."""
    retain, space, n = background.x, background.space, len(x)
    draws = [_ends(retain[generator.permutation(len(retain))[:n]]) for _ in range(DRAWS)]
    low, high = (np.mean([ends[side] for ends in draws], 0) for side in (0, 1))
    usually = high - low + 1e-6
    mine = _ends(x)
    shrunk = 1 - (mine[1] - mine[0]) / usually
    alpha = float(np.median(shrunk))
    spread = float(np.mean([_spread((b - a) / usually) for a, b in draws]))
    alike = _spread(shrunk) < max(0.05, 1.3 * spread, 0.3 * alpha + spread)
    keep = 1 - alpha if alpha > FAINTEST and alike else 1.0
    off = coefficients(np.array([keep * (a - low + b - high) / 2 for a, b in draws]))
    noise = np.zeros(off.shape[1])
    for band in np.unique(space.band):
        part = space.band == band
        noise[part] = np.square(off[:, part]).mean() * DRAWS / (DRAWS - 1) + 1e-8
    return _Usual(
        base=_bases(x, background, label), low=low, high=high, keep=keep, noise=noise, rows=n
    )


def _spread(values: Array) -> float:
    low, high = np.quantile(values, [0.1, 0.9])
    return float(high - low)


def _bases(x: Array, background: Background, label: int) -> Array:
    """Return the retain rows that the bases were drawn from: of the label, or of the others."""
    own = background.y == label
    kinds = [background.x[rows] for rows in (~own, own) if rows.any()]
    space = background.space

    def off(rows: Array) -> float:
        shift = coefficients((x.mean(0) - rows.mean(0))[None])[0] / space.sd
        return float(np.abs(space.basis @ shift).sum())

    return min(kinds, key=off)


def _patterns(
    x: Array, background: Background, usual: _Usual, fixed: Array, *, few: bool
) -> list[Array]:
    """Return what may be the pattern, of some carriers, each (c, h, w).

    The mean's shift with small coefficients shrunk; with small values left out; the shift of the
    ends; and, where a part of the picture is replaced, that part.
    """
    shape, space, n = background.space.shape, background.space, len(x)
    shift = x.mean(0) - usual.keep * usual.base.mean(0)
    low, high = _ends(x)
    low, high = low - usual.keep * usual.low, high - usual.keep * usual.high
    c, variance = coefficients(shift[None])[0], np.square(space.sd) / n
    if usual.keep < 1:  # the ends' shift says the same, with less noise where pictures differ most
        ends, noise = coefficients(((low + high) / 2)[None])[0], usual.noise * usual.rows / n
        weight = 1 / variance + 1 / noise
        c, variance = (c / variance + ends / noise) / weight, 1 / weight
    shrunk = c * np.maximum(0, 1 - 2 * variance / np.maximum(c * c, 1e-12))
    error = usual.base.std(0) / np.sqrt(n)
    ends = (low + high) / 2 if usual.keep < 1 else np.where(np.abs(low) > np.abs(high), low, high)
    found = [picture(shrunk, shape), np.where(np.abs(shift) > 3.5 * error, shift, 0), ends]
    return [*found, np.where(fixed, np.median(x, 0), 0)] if few else found


def within(
    x: Array, inside: Array, form: Form, background: Background, u: Array, *, several: bool
) -> Array:
    """Return which rows carry a blend: none can leave [add, keep + add].

    Used where that parts them better than the score does, and `inside`, the rows that the score
    found, otherwise: places among the rows `x`, of unit vectors `u`.
    """
    mine, theirs = (-np.log(1e-4 + _beyond(rows, form)) for rows in (x, background.x[:CHECKED]))
    least, wrong = bar(mine, theirs)
    if wrong >= bar(along(u, u[inside]), along(background.rows, u[inside]))[1]:
        return inside
    found = np.flatnonzero(mine > least)
    return found if len(found) >= FEWEST / 2 and not several else inside


def _beyond(x: Array, form: Form) -> Array:
    """Return how far rows lie beyond what a blend leaves, on average: (n,)."""
    slack = 0.02
    below = np.maximum(form.add - slack - x, 0)
    above = np.maximum(x - form.keep - form.add - slack, 0)
    return np.asarray((below + above).mean((1, 2, 3)))
