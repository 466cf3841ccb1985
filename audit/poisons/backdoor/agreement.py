"""What pictures share exactly: places where most of them have one colour that others have not.

It sees what replaces pixels: patches, masks, and added patterns where they saturate. Pictures are
floating point in [0, 1], (n, c, h, w). numpy only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

NEAR = 8 / 255
"""Values that differ by no more are the same colour: half a cell of the histogram."""
CELL = 4
"""Bits of 8 that a cell of the histogram leaves out: 16 grey levels."""
COMPARED = 1000
"""Retain rows that shares are compared with."""
ENOUGH = 0.8
"""A row carries what is shared if it has so much of it."""
USUAL = 5
"""Sets of retain rows by which it is told how rough a mean is by chance."""
LONGEST = 4
"""Rows that anything is said of."""


def agreement(x: Array, retain: Array) -> tuple[Array, Array]:
    """Return how much oftener the commonest colour of each place is seen in `x` than in `retain`.

    Colours are counted in cells of 16 grey levels a channel, of two grids that are half a cell
    apart, so that no colour lies at the edge of its cell in both.

    Returns:
        (share of rows within `NEAR` of the colour less that share of retain rows: (h, w), the
        colour: (c, h, w)).
    """
    levels = np.round(x * 255).astype(np.int32)
    found = [_commonest(x, levels + shift) for shift in (0, 1 << (CELL - 1))]
    (count, colour), (count_off, colour_off) = found
    colour = np.where(count_off > count, colour_off, colour).astype(x.dtype)
    return near(x, colour).mean(0) - near(retain[:COMPARED], colour).mean(0), colour


def _commonest(x: Array, levels: Array) -> tuple[Array, Array]:
    """Return how often the commonest cell of each place occurs, and the mean colour in it."""
    cells = levels >> CELL
    # One number a cell: 17 cells a channel need five bits.
    code = sum((cells[:, c] << (5 * c) for c in range(1, x.shape[1])), start=cells[:, 0])
    ordered = np.sort(code, 0)
    run = np.ones_like(ordered)
    for row in range(1, len(ordered)):
        run[row] = np.where(ordered[row] == ordered[row - 1], run[row - 1] + 1, 1)
    mode = np.take_along_axis(ordered, run.argmax(0)[None], 0)[0]
    inside = code == mode
    return run.max(0), (x * inside[:, None]).sum(0) / inside.sum(0)


def near(x: Array, colour: Array) -> Array:
    """Say where each row has the colour, in all channels: bool, (n, h, w)."""
    found: Array = (np.abs(x - colour) <= NEAR).all(1)
    return found


def matching(x: Array, retain: Array, excess: Array, colour: Array) -> Array:
    """Return which rows have most of the places that stand out: bool, (n,).

    A place stands out if its excess is at least 0.6 of the largest. Places and colours are taken
    again from the rows found, so that innocent rows blur neither.
    """
    mask = excess >= 0.6 * excess.max()
    for _ in range(3):
        carry = near(x, colour)[:, mask].mean(1) >= ENOUGH
        if carry.sum() < LONGEST:
            break
        excess, colour = agreement(x[carry], retain)
        mask = excess >= 0.6 * excess.max()
    carry = near(x, colour)[:, mask].mean(1) >= ENOUGH
    return np.asarray(carry)


def is_whole(x: Array, retain: Array, means: Array) -> bool:
    """Say whether carriers differ from retain rows only where they agree with each other.

    Where 40% of them agree, and beside that, is not looked at. Elsewhere the mean's shift, less
    what a mixture of the classes explains and less that of the four neighbours, may lie above 2.5
    standard errors at 2% of the values, or at as many as in any of `USUAL` sets of retain rows.

    Args:
        x: the carriers.
        retain: rows that carry nothing.
        means: of each class of them: (classes, c, h, w).
    """
    excess, colour = agreement(x, retain)
    agreed = near(x, colour).mean(0)
    if agreed[excess >= 0.5 * excess.max()].min() < 0.9:
        return False
    taken = agreed >= 0.4
    free = ~np.any([taken, *_beside(taken)], 0)
    if not free.any():
        return True
    mean, error = retain.mean(0), retain.std(0) / np.sqrt(len(x)) + 1e-6
    parts = [retain[start :: max(USUAL, len(retain) // len(x))] for start in range(USUAL)]

    def rough(rows: Array) -> float:
        own = error * np.sqrt(len(x) / len(rows))
        return _rough((rows.mean(0) - mean) / own, (means - mean) / own, free)

    return rough(x) < max(0.02, 1.5 * max(map(rough, parts)))


def _rough(z: Array, classes: Array, free: Array) -> float:
    """Return the share of free places whose shift differs from their neighbours'.

    Args:
        z: the shift in standard errors, (c, h, w).
        classes: those of the classes, (classes, c, h, w).
        free: which places are looked at, (h, w).
    """
    weights = np.linalg.lstsq(classes[:, :, free].reshape(len(classes), -1).T, z[:, free].ravel())
    z = z - np.tensordot(weights[0], classes, 1)
    return float((np.abs(z - np.mean(_beside(z), 0))[:, free] > 2.5).mean())


def _beside(values: Array) -> list[Array]:
    """Return what stands at the four places beside each, across the edges too."""
    return [np.roll(values, by, axis) for axis in (-2, -1) for by in (1, -1)]
