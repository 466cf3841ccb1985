"""Laws and ranks by scipy's special functions: scipy.stats has the same, and takes long to import.

Each agrees with its counterpart there to 1e-9 (tests/statistics/test_laws.py).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special


def normal_above(x: float) -> float:
    """Return the chance that a standard normal exceeds x."""
    return float(special.ndtr(-x))


def normal_quantile(probability: float) -> float:
    """Return the value that a standard normal stays below with this probability."""
    return float(special.ndtri(probability))


def binomial_quantile(probability: float, n: int, chance: float) -> int:
    """Return the smallest count that n trials stay at or below with at least this probability."""
    if not 0 < chance < 1:
        return n if chance >= 1 else 0
    count = max(0, math.ceil(float(special.bdtrik(probability, n, chance))))
    return count - 1 if count and special.bdtr(count - 1, n, chance) >= probability else count


def hypergeometric(counts: ArrayLike, total: int, marked: int, drawn: int) -> NDArray[np.float64]:
    """Return the chances that so many of `drawn` out of `total`, without replacement, are marked.

    >>> hypergeometric([0, 1, 2], 4, 2, 2).round(4).tolist()
    [0.1667, 0.6667, 0.1667]
    """
    k = np.asarray(counts, dtype=np.float64)
    possible = (k <= marked) & (k <= drawn) & (drawn - k <= total - marked)
    k = np.where(possible, k, max(0, drawn - total + marked))

    def ways(n: float, chosen: ArrayLike) -> NDArray[np.float64]:
        # The logarithm of a binomial coefficient.
        chosen = np.asarray(chosen, dtype=np.float64)
        found: NDArray[np.float64] = -special.betaln(n - chosen + 1, chosen + 1) - math.log(n + 1)
        return found

    logs = ways(marked, k) + ways(total - marked, drawn - k) - ways(total, drawn)
    return np.where(possible, np.exp(logs), 0.0)


def fewer(hits: int, n: int, other_hits: int, other_n: int) -> float:
    """Return Fisher's exact one-sided p-value that the first rate is no smaller than the second.

    >>> round(fewer(0, 3, 3, 3), 4)
    0.05
    """
    mass = hypergeometric(np.arange(hits + 1), n + other_n, hits + other_hits, n)
    return min(1.0, float(mass.sum()))


def ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Return each value's rank from 1, ties at the middle of theirs: shape (n,).

    >>> ranks([7.0, 5.0, 7.0]).tolist()
    [2.5, 1.0, 2.5]
    """
    _, which, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    middle: NDArray[np.float64] = (last - (counts - 1) / 2)[which]
    return middle


def normality(values: ArrayLike) -> float:
    """Return the two-sided p-value of Kolmogorov and Smirnov's test that values are N(0, 1).

    Exact, by Marsaglia, Tsang and Wang (Journal of Statistical Software 8, 2003), of up to 10,000
    values. Where it is below 1e-3, as twice the one-sided one: the chance of both sides at once is
    then below 1e-13.

    Args:
        values: finite, at least one.
    """
    x = np.sort(np.asarray(values, dtype=np.float64))
    n, below = len(x), special.ndtr(x)
    steps = np.arange(n + 1) / n
    d = float(max((steps[1:] - below).max(), (below - steps[:-1]).max()))
    if n * d * d > 4:
        return min(1.0, 2 * float(special.smirnov(n, d)))
    if n > 10_000:
        return float(special.kolmogorov(math.sqrt(n) * d))
    return min(1.0, max(0.0, 1 - _within(n, d)))


def _within(n: int, d: float) -> float:
    """Return the chance that n values' distribution stays within d of the true one."""
    k = math.ceil(n * d)
    h, size = k - n * d, 2 * k - 1
    # (size, size): 1 / (i - j + 1)! where that is no factorial of a negative number.
    order = np.subtract.outer(np.arange(size), np.arange(size)) + 1
    matrix = np.where(order >= 0, 1.0, 0.0)
    powers = h ** np.arange(1, size + 1)
    matrix[:, 0] -= powers
    matrix[-1, :] -= powers[::-1]
    matrix[-1, 0] += max(0.0, 2 * h - 1) ** size
    matrix = matrix * np.exp(-special.gammaln(np.maximum(order, 0) + 1))
    # Its n-th power times n! / n^n, each factor scaled so that nothing overflows.
    power, scale = _power(matrix, n)
    if (found := float(power[k - 1, k - 1])) <= 0:
        return 0.0
    return math.exp(math.log(found) + scale + float(special.gammaln(n + 1)) - n * math.log(n))


def _power(matrix: NDArray[np.float64], n: int) -> tuple[NDArray[np.float64], float]:
    """Return a power of a matrix, scaled, and the logarithm of the scale."""
    found, scale, square, own = np.eye(len(matrix)), 0.0, matrix, 0.0
    while n:
        if n % 2:
            found, scale = found @ square, scale + own
            top = float(found.max())
            found, scale = found / top, scale + math.log(top)
        n //= 2
        if n:
            square, own = square @ square, 2 * own
            top = float(square.max())
            square, own = square / top, own + math.log(top)
    return found, scale
