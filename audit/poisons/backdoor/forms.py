"""The form of a trigger that some pictures carry: stamp(x) = clip(keep * x + add).

Where 90% of the carriers agree: replaced. Else the range of each value is held against that of as
many retain rows of the bases' classes: if all shrank alike, it is blended, alpha from the range
(its ends, not its variance: they need no base). Else: added. The pattern is the shift of the
carriers' mean, denoised in DCT or in pixels, that of the ends of their range, or both: whichever of
one half of the carriers best foretells mean and spread of the other half. numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from poison_audit.poisons.backdoor.agreement import Array, agreement, is_whole, near
from poison_audit.poisons.backdoor.directions import (
    BANDS,
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
LOW = 2
"""Bands by which classes are told apart."""
DRAWS = 8
"""Sets of retain rows whose ends are averaged."""
CHECKED = 800
"""Retain rows that a pattern is tried on."""


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
    """Mean lower end of as many of them: (c, h, w)."""
    high: Array
    keep: float
    """What is left of the whole picture."""
    noise: Array
    """Variance of the shift of the ends by chance, by coefficient."""
    rows: int
    """How many carriers that is of."""


def form_of(x: Array, background: Background, label: int, generator: np.random.Generator) -> Form:
    """Return what turns retain rows into the carriers `x`, which have one label."""
    excess, colour = agreement(x, background.x)
    fixed = (near(x, colour).mean(0) >= 0.9) & (excess >= 0.5)
    if fixed.any() and is_whole(x, background.x, background.means):
        return Form(kind="replace", keep=_kept(fixed, x), add=np.where(fixed, np.median(x, 0), 0))
    usual = _usual(x, background, label, generator)
    few = fixed if fixed.any() and fixed.mean() < 0.5 else None
    order = generator.permutation(len(x))
    half = x[order[: len(x) // 2]], x[order[len(x) // 2 :]]
    base, spread = usual.base[:CHECKED], usual.base.std(0) + 1e-3
    every = _forms(x, background, usual, few)
    loss = np.zeros(len(every))
    for one, other in (half, half[::-1]):
        for number, form in enumerate(_forms(one, background, usual, few)):
            made = form.stamp(base)
            miss = coefficients((made.mean(0) - other.mean(0))[None])[0] / background.space.sd
            off = (made.std(0) - other.std(0)) / spread
            loss[number] += np.square(miss).sum() + np.square(off).sum()
    best = int(loss.argmin())
    form = every[best]
    if form.kind == "replace":
        return form
    add = form.add
    for _ in range(6 if best < 2 else 0):  # what clipping took from the mean
        made = np.clip(form.keep * usual.base[:CHECKED] + add, 0, 1)
        add = add + np.where(np.abs(add) > 0.15, x.mean(0) - made.mean(0), 0)
    return Form(kind=form.kind, keep=form.keep, add=add)


def _kept(fixed: Array, x: Array) -> Array:
    return np.where(fixed, 0.0, 1.0) * np.ones(x.shape[1:])


def _ends(x: Array) -> tuple[Array, Array]:
    cut = min(int(np.ceil(ENDS * len(x))), (len(x) - 1) // 2)
    ordered = np.sort(x, 0)
    return ordered[cut], ordered[-1 - cut]


def _usual(x: Array, background: Background, label: int, generator: np.random.Generator) -> _Usual:
    """Return what as many retain rows show, and how much of them the carriers kept."""
    base, n, space = _bases(x, background, label), len(x), background.space
    draws = [_ends(base[generator.integers(len(base), size=n)]) for _ in range(DRAWS)]
    low, high = (np.mean([ends[side] for ends in draws], 0) for side in (0, 1))
    usually = high - low + 1e-2

    def shrunk(ends: tuple[Array, Array]) -> Array:
        return np.asarray(1 - (ends[1] - ends[0]) / usually)

    mine, chance = shrunk(_ends(x)), [shrunk(ends) for ends in draws]
    alpha = float(np.median(mine))
    spread = float(np.mean([_spread(each) for each in chance]))
    alike = _spread(mine) < max(0.05, 1.3 * spread, 0.3 * alpha + spread)
    keep = 1 - alpha if alpha > FAINTEST and alike else 1.0
    off = coefficients(np.array([_shift(keep, a - keep * low, b - keep * high) for a, b in draws]))
    noise = np.zeros(off.shape[1])
    for band in np.unique(space.band):
        part = space.band == band
        noise[part] = np.square(off[:, part]).mean() * DRAWS / (DRAWS - 1) + 1e-8
    return _Usual(base=base, low=low, high=high, keep=keep, noise=noise, rows=n)


def _spread(values: Array) -> float:
    low, high = np.quantile(values, [0.1, 0.9])
    return float(high - low)


def _bases(x: Array, background: Background, label: int) -> Array:
    """Return the retain rows that the bases were drawn from: of the label, or of the others.

    Told by the lowest frequencies, where classes differ most and few triggers lie.
    """
    own = background.y == label
    kinds = [background.x[rows] for rows in (~own, own) if rows.sum() >= FEWEST]
    space = background.space
    low = space.band % (len(BANDS) + 1) < LOW

    def off(rows: Array) -> float:
        shift = coefficients((x.mean(0) - rows.mean(0))[None])[0] / space.sd
        return float(np.abs(space.basis[:, low] @ shift[low]).sum())

    return min(kinds, key=off) if kinds else background.x


def _shift(keep: float, low: Array, high: Array) -> Array:
    """Return the pattern that moved the ends of the range so: of both, or of what clipping left."""
    return (low + high) / 2 if keep < 1 else np.where(np.abs(low) > np.abs(high), low, high)


def _forms(x: Array, background: Background, usual: _Usual, fixed: Array | None) -> list[Form]:
    """Return what may be the form, of some carriers.

    By the mean's shift with small coefficients shrunk, or small values left out; by the shift of
    the ends; by both, weighted by their variances and shrunk; where a part is replaced, that part.
    """
    shape, space, n = background.space.shape, background.space, len(x)
    mean, keep = x.mean(0), np.full(background.space.shape, usual.keep)
    shift = mean - usual.keep * usual.base.mean(0)
    low, high = _ends(x)
    ends = _shift(usual.keep, low - usual.keep * usual.low, high - usual.keep * usual.high)
    c, variance = coefficients(shift[None])[0], np.square(space.sd) / n
    e, noise = coefficients(ends[None])[0], usual.noise * usual.rows / n
    both = (c / variance + e / noise) / (1 / variance + 1 / noise)
    error = usual.base.std(0) / np.sqrt(n)
    kind: Literal["blend", "add"] = "blend" if usual.keep < 1 else "add"
    found = [
        Form(kind=kind, keep=keep, add=add)
        for add in (
            picture(_shrunk(c, variance), shape),
            np.where(np.abs(shift) > 3.5 * error, shift, 0),
            ends,
            picture(_shrunk(both, 1 / (1 / variance + 1 / noise)), shape),
        )
    ]
    if fixed is not None:
        add = np.where(fixed, np.median(x, 0), 0)
        found.append(Form(kind="replace", keep=_kept(fixed, x), add=add))
    return found


def _shrunk(c: Array, variance: Array) -> Array:
    return np.asarray(c * np.maximum(0, 1 - 2 * variance / np.maximum(c * c, 1e-12)))


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
