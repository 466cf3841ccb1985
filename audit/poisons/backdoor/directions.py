"""What pictures share faintly: a direction in which they lie, beyond what their classes explain.

It sees what is added or blended. Each picture becomes a unit vector: the DCT of its opponent
colours, each coefficient over its sd among retain rows, without the span of the class means, band
by band by the row's own scale. Two unrelated rows then have a mean cosine of 0, whatever the
classes of their bases, and so has noise that differs from row to row. numpy only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from poison_audit.poisons.backdoor.agreement import LONGEST, Array

BANDS = (0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)
"""Where bands of spatial frequency end, as shares of the highest one."""
OPPONENT = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
OPPONENT = OPPONENT.astype(np.float32)
"""Brightness and two differences of red, green and blue."""
FEWEST = 12
"""Rows of a label that anything is looked for in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Where directions are measured: made of one half of the retain rows alone.

    Rows lie otherwise in the space that they made than others do, so that the other half tells what
    is usual.
    """

    shape: tuple[int, ...]
    """Of a picture: (c, h, w)."""
    mean: Array
    """Of the class means, in coefficients: (c h w,)."""
    sd: Array
    """Of each coefficient within the classes."""
    basis: Array
    """Orthonormal, of what the class means span: (classes - 1, c h w)."""
    band: Array
    """Which band, of which channel, each coefficient is of."""

    def rows(self, x: Array) -> Array:
        """Return pictures as unit vectors: float32, (n, c h w)."""
        w = (coefficients(x) - self.mean) / self.sd
        w = w - (w @ self.basis.T) @ self.basis
        for band in np.unique(self.band):
            part = self.band == band
            w[:, part] /= np.sqrt(np.square(w[:, part]).mean(1, keepdims=True)) + 1e-3
        w = w.clip(-4, 4)
        unit = w / (np.linalg.norm(w, axis=1, keepdims=True) + 1e-12)
        return np.asarray(unit, dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Background:
    """The retain rows that forget rows are held against."""

    x: Array
    """(n, c, h, w), float32 in [0, 1]."""
    y: Array
    """(n,)."""
    means: Array
    """Of each class, (classes, c, h, w)."""
    space: Space
    held_out: int
    """The place of the first row that the space was not made of."""
    rows: Array
    """`space.rows` of those from there on."""


def background_of(x: Array, y: Array) -> Background:
    """Return retain rows, in random order, with the space that the first half of them makes."""
    half = len(x) // 2
    labels, own = np.unique(y[:half], return_inverse=True)
    z = coefficients(x[:half])
    means = np.stack([z[own == number].mean(0) for number in range(len(labels))])
    mean = means.mean(0)
    sd = (z - means[own]).std(0) + 1e-4
    basis = np.linalg.svd((means - mean) / sd, full_matrices=False)[2][:-1]
    channels, height, width = x.shape[1:]
    radius = np.hypot(np.arange(height)[:, None] / height, np.arange(width) / width)
    band = np.digitize(radius, np.array(BANDS)).ravel()
    space = Space(
        shape=x.shape[1:],
        mean=mean,
        sd=sd,
        basis=basis,
        band=np.concatenate([band + c * (len(BANDS) + 1) for c in range(channels)]),
    )
    return Background(
        x=x,
        y=y,
        means=np.stack([x[y == label].mean(0) for label in np.unique(y)]),
        space=space,
        held_out=half,
        rows=space.rows(x[half:]),
    )


def coefficients(x: Array) -> Array:
    """Return the DCT-II of pictures' opponent colours: (n, c h w), orthonormal and linear."""
    n, channels, height, width = x.shape
    mixed = _mix(channels) @ x.reshape(n, channels, height * width)
    found = _dct(height) @ mixed.reshape(x.shape) @ _dct(width).T
    return np.asarray(found.reshape(len(x), -1))


def picture(z: Array, shape: tuple[int, ...]) -> Array:
    """Return the picture (c, h, w) of coefficients (c h w,)."""
    mixed = _dct(shape[1]).T @ z.reshape(shape) @ _dct(shape[2])
    return np.asarray(np.einsum("ij,ihw->jhw", _mix(shape[0]), mixed))


def _mix(channels: int) -> Array:
    return OPPONENT if channels == 3 else np.eye(channels, dtype=np.float32)


def _dct(n: int) -> Array:
    k = np.arange(n)
    d = np.cos(np.pi * (k[None] + 0.5) * k[:, None] / n) * np.sqrt(2 / n)
    d[0] /= np.sqrt(2)
    return np.asarray(d, dtype=np.float32)


def cosine(u: Array) -> float:
    """Return the mean cosine between two different rows of unit vectors."""
    n = len(u)
    return float((np.square(u.sum(0, dtype=np.float64)).sum() - n) / (n * (n - 1)))


def bar(values: Array, usual: Array) -> tuple[float, float]:
    """Return where to part rows that carry something from those that do not.

    The carriers' values are taken to be a bell (median and spread of what lies above 97% of the
    retain rows' values), the others' to be those of retain rows.

    Returns:
        (the bar with the fewest errors, their share).
    """
    low, top = np.quantile(usual, [0.5, 0.97])
    upper = values[values > top]
    upper = upper if len(upper) >= LONGEST else np.sort(values)[-LONGEST:]
    share = float(np.clip((len(upper) / len(values) - 0.03) / 0.97, 0.1, 0.95))
    middle = float(np.median(upper))
    sd = 1.5 * float(np.median(np.abs(upper - middle))) + 1e-6
    ticks = np.linspace(low, middle, 60)
    missed = np.array([_below((tick - middle) / sd) for tick in ticks])
    wrong = (1 - share) * np.array([(usual > tick).mean() for tick in ticks]) + share * missed
    return float(ticks[wrong.argmin()]), float(wrong.min())


def _below(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2))


def score(u: Array, carriers: Array) -> Array:
    """Return each row's part in the direction of the carriers, its own share left out: (n,).

    Args:
        u: unit vectors (n, d).
        carriers: which of them carry it: bool, (n,).
    """
    mean = u[carriers].sum(0) - np.where(carriers[:, None], u, 0)
    found: Array = (u * mean).sum(1) / (np.linalg.norm(mean, axis=1) + 1e-12)
    return found


def along(usual: Array, carriers: Array) -> Array:
    """Return other rows' parts in the direction of carriers (unit vectors both): (m,)."""
    total = carriers.sum(0)
    found: Array = usual @ (total / (np.linalg.norm(total) + 1e-12))
    return found


def going_along(u: Array, usual: Array) -> Array:
    """Return which rows go with the others: bool, (n,).

    Their score is held against what retain rows score, until nothing changes.
    """
    carry = np.ones(len(u), bool)
    for _ in range(8):
        values = score(u, carry)
        new = values > bar(values, along(usual, u[carry]))[0]
        if bool((new == carry).all()) or new.sum() < LONGEST:
            break
        carry = new
    return carry


def parts_of(u: Array, usual: Array, generator: np.random.Generator) -> list[Array]:
    """Split carriers of two directions in two, if their second direction stands out.

    It does if the largest singular value of their centred vectors is 1.3 times that of as many
    retain rows.

    Returns:
        one or two bool arrays (n,).
    """
    n = len(u)
    whole = [np.ones(n, bool)]
    if n < 2 * FEWEST:
        return whole
    draws = [usual[generator.permutation(len(usual))[:n]] for _ in range(5)]
    largest = max(np.linalg.svd(v - v.mean(0), compute_uv=False)[0] for v in draws)
    left, values, _ = np.linalg.svd(u - u.mean(0), full_matrices=False)
    if values[0] < 1.3 * largest:
        return whole
    side = left[:, 0] > 0
    for _ in range(5):
        side = along(u, u[side]) > along(u, u[~side])
        if min(side.sum(), (~side).sum()) < FEWEST / 2:
            return whole
    return [side, ~side]
