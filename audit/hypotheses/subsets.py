"""Sets of samples to leave out: parts of the forget set, and random sets of the same class mix.

The two kinds of random set answer two questions.

From the whole training set: is the forget set special at all? If it is not, it is itself a random
set of its class mix, so it and R draws are exchangeable, and a rank among them is an exact p-value
(Phipson and Smyth 2010, arXiv 1603.05766). Draws from the retain set alone would not be: they never
overlap with the forget set but do with each other, and at a forget set of a third of the training
set a nominal 5% became 13% false alarms in 200 simulated cases.

From the retain set: how far does leaving out as many clean samples move the model? These are what
the ratio and the curves compare with.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
"""Of intervals; one minus it is the largest p-value that says "surely"."""
Members = NDArray[np.bool_]
"""Who is in a set of samples, (n,)."""


def part_of(forgotten: Members, order: NDArray[np.int64], fraction: float) -> Members:
    """Return the first `fraction` of the forget set, at least one sample.

    Args:
        order: a permutation of the forget set's size, the same for a growing fraction.
        fraction: in (0, 1].
    """
    part = np.zeros_like(forgotten)
    count = max(1, round(fraction * len(order)))
    part[np.flatnonzero(forgotten)[order[:count]]] = True
    return part


def lacking(pool: Members, like: Members, labels: NDArray[np.int64]) -> list[int]:
    """Return the classes of which `like` holds more samples than `pool` does."""
    size = int(labels.max()) + 1
    have = np.bincount(labels[pool], minlength=size)
    need = np.bincount(labels[like], minlength=size)
    return [int(label) for label in np.flatnonzero(need > have)]


def drawn(
    pool: Members, like: Members, labels: NDArray[np.int64], *, draws: int, rng: np.random.Generator
) -> list[Members]:
    """Draw random subsets of `pool` with the class mix of `like`; ValueError: it lacks some."""
    if short := lacking(pool, like, labels):
        raise ValueError(f"too few samples of classes {short}")
    wanted = [
        (np.flatnonzero(pool & (labels == label)), int(count))
        for label, count in enumerate(np.bincount(labels[like]))
        if count
    ]
    found = []
    for _ in range(draws):
        chosen = np.zeros_like(pool)
        for places, count in wanted:
            chosen[rng.choice(places, size=count, replace=False, shuffle=False)] = True
        found.append(chosen)
    return found


def central(values: Sequence[float]) -> tuple[float, float]:
    """Return the bounds of the central `LEVEL` of some values."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def rank_p_value(observed: float, null: Sequence[float]) -> float:
    """Return (1 + #{null >= observed}) / (1 + R): exact if all R + 1 are exchangeable.

    A value within rounding of the observed one counts as equal.

    >>> rank_p_value(2.0, [1.0, 3.0, 1.5])
    0.5
    """
    slack = 1e-9 * abs(observed)
    return (1 + sum(value >= observed - slack for value in null)) / (1 + len(null))
