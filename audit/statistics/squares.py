"""The mean square of scores that are N(0, 1) under the null: effects of either sign, added up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from scipy import special

from poison_audit.statistics.estimates import POWER
from poison_audit.statistics.rates import smallest_size

ROOT = math.sqrt(2)
"""Standard deviation of the square of one N(0, 1) score; that of the score itself is 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scatter:
    """By how much scores scatter more than N(0, 1) does, with an interval."""

    value: float
    low: float
    high: float
    p_value: float
    """One-sided, exact: chi-squared."""


def scatter(scores: Sequence[float], *, level: float) -> Scatter:
    """Estimate (mean square - 1) / sqrt(2): the effect in standard deviations of one square.

    A mean effect is in standard deviations of one score, so that one tolerance serves both: at any
    n an effect of that size is as many standard errors from the null. Scores of N(mu_i, 1) have a
    sum of squares that is noncentral chi-squared with n degrees of freedom, whatever the single
    mu_i: its noncentrality is the sum of their squares, and the interval inverts that exactly.

    Only more scatter is an effect: squares of means are not negative.

    Args:
        scores: one a canary; at least one.
        level: of the two-sided interval; each end errs with probability (1 - level) / 2 at most.

    >>> half = scatter([1.5, -1.5] * 50, level=0.9)
    >>> round(half.value, 3), half.low > 0.25, half.p_value < 1e-9
    (0.884, True, True)
    """
    n, total, error = len(scores), math.fsum(s * s for s in scores), (1 - level) / 2
    value = (total / n - 1) / ROOT
    low, high = _root(1 - error, total, n), _root(error, total, n)
    return Scatter(
        value=value,
        low=min(value, low),
        high=max(value, high),
        p_value=float(special.chdtrc(n, total)),
    )


def _root(chance: float, total: float, n: int) -> float:
    """Return the effect at which a sum of squares is at most `total` with that chance, or 0."""
    if total > 100 * n:  # far out the root of the sum is normal, of variance 1
        found = (math.sqrt(total) - float(special.ndtri(chance))) ** 2 - n
    else:
        found = float(special.chndtrinc(total, n, chance))
    return found / n / ROOT if found > 1e-9 else 0.0


@lru_cache(maxsize=256)
def needed_with_scatter(level: float, tolerance: float) -> int:
    """Return with how many scores a model without the effect passes with power 0.9 by both.

    Args:
        level: of the intervals of mean and scatter.
        tolerance: of both.
    """
    quantile = float(special.ndtri(0.5 + level / 2))

    def passes(n: int) -> bool:
        room = math.sqrt(n) * tolerance - quantile
        if room <= 0:
            return False
        most = float(special.chndtrix((1 - level) / 2, n, n * ROOT * tolerance))
        # Under the null the mean and the scatter are uncorrelated, and all but independent.
        mean = float(special.ndtr(room) - special.ndtr(-room))
        return mean * float(special.chdtr(n, most)) >= POWER

    return smallest_size(passes)
