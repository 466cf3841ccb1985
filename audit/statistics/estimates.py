"""Exact tests, intervals and power: every figure that a verdict rests on, from plain arrays.

Each estimator returns an `Estimate`: the value, its interval at the level asked for, the marginal
p-value of the null, and what the sample size could and could not have shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from poison_audit.statistics.laws import normal_above, ranks

POWER = 0.9
"""The power at which `detectable` and `needed` are stated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """An effect measured against the value it has in a model that never saw the poison."""

    value: float
    null: float
    low: float
    high: float
    level: float
    p_value: float
    """Marginal, of the null, two-sided."""
    z: float
    """Standard errors (under the null) from the null."""
    n: int
    spread: float
    """Standard deviation of one sample's score."""
    detectable: float
    """Smallest distance from the null that this n calls beyond tolerance with power 0.9."""
    needed: int
    """Samples with which a model without the effect passes with power 0.9."""


def mean_score(scores: ArrayLike, *, level: float, tolerance: float) -> Estimate:
    """Estimate the mean of scores that are N(0, 1) under the null.

    The p-value is exact: the mean of n independent N(0, 1) is N(0, 1/n). So is the interval while
    the scores' spread is at most 1. A larger spread shows scores that share no one mean, and
    widens the interval in proportion: under the null this can only make it more cautious.

    Args:
        scores: one a canary, finite; at least one.
        level: of the interval, in (0, 1).
        tolerance: largest distance from 0 that still counts as clean, above 0.
    """
    x = np.asarray(scores, dtype=np.float64)
    n, value = len(x), float(np.mean(x))
    spread = float(np.std(x, ddof=1)) if n > 1 else 1.0
    error = 1 / math.sqrt(n)
    return _estimate(
        value=value,
        null=0.0,
        half=_quantile(level) * max(1.0, spread) * error,
        level=level,
        p_value=float(2 * normal_above(abs(value) / error)),
        error=error,
        n=n,
        spread=spread,
        tolerance=tolerance,
    )


def mean_rank(wins: Sequence[int], draws: int, *, level: float, tolerance: float) -> Estimate:
    """Estimate the chance that a canary's true noise beats a fresh draw.

    Under the null each canary's number of wins is uniform on 0..draws, and the p-value is that of
    the exact distribution of their sum. The interval takes the larger of the observed and the
    null variance; it is normal, and no interval short enough to pass (n > 60) is affected.

    Args:
        wins: for each canary, how many of its fresh draws scored below its true noise.
        draws: fresh draws a canary, at least 1.
        level: of the interval.
        tolerance: largest chance that still counts as clean, above 0.5.
    """
    u = np.asarray(wins, dtype=np.float64) / draws
    n, value = len(u), float(np.mean(u))
    null_spread = math.sqrt((draws + 2) / (12 * draws))
    spread = float(np.std(u, ddof=1)) if n > 1 else null_spread
    return _estimate(
        value=value,
        null=0.5,
        half=_quantile(level) * max(spread, null_spread) / math.sqrt(n),
        level=level,
        p_value=rank_sum_p_value(int(np.sum(wins)), n, draws),
        error=null_spread / math.sqrt(n),
        n=n,
        spread=spread,
        tolerance=tolerance - 0.5,
    )


def paired_loss(
    *, only_before: int, only_after: int, n: int, level: float, tolerance: float
) -> Estimate:
    """Estimate the accuracy lost between two models on the same samples.

    The interval is Tango's score interval for a difference of paired proportions (Statistics in
    Medicine 17, 1998, eq. 8), which keeps its level at small and zero counts; the p-value is
    McNemar's exact one. The effect is one-sided (a gain is no harm): give the level accordingly.

    Args:
        only_before: samples that only the first model classifies correctly.
        only_after: samples that only the second does.
        n: all samples, at least 1.
        level: of the two-sided interval.
        tolerance: largest loss that still counts as harmless, above 0.
    """
    discordant = only_before + only_after
    value = (only_before - only_after) / n
    low, high = _tango(only_before, only_after, n, _quantile(level))
    # A discordance of zero does not mean that none is possible: one sample stands in for it.
    spread = math.sqrt(max(discordant, 1) / n)
    error = spread / math.sqrt(n)
    # A binomial of chance 1/2 is symmetric: `stats.binomtest` says the same, far more slowly.
    tail = float(special.bdtr(min(only_before, only_after), discordant, 0.5)) if discordant else 1.0
    p_value = min(1.0, 2 * tail)
    z = (only_before - only_after) / math.sqrt(max(discordant, 1))
    quantile = _quantile(level)
    return Estimate(
        value=value,
        null=0.0,
        low=low,
        high=high,
        level=level,
        p_value=p_value,
        z=z,
        n=n,
        spread=spread,
        detectable=_detectable(quantile, error, tolerance),
        needed=_needed(quantile, spread, tolerance, sides=1),
    )


def _estimate(
    *,
    value: float,
    null: float,
    half: float,
    level: float,
    p_value: float,
    error: float,
    n: int,
    spread: float,
    tolerance: float,
) -> Estimate:
    quantile = _quantile(level)
    return Estimate(
        value=value,
        null=null,
        low=value - half,
        high=value + half,
        level=level,
        p_value=p_value,
        z=(value - null) / error,
        n=n,
        spread=spread,
        detectable=_detectable(quantile, error, tolerance),
        needed=_needed(quantile, error * math.sqrt(n), tolerance, sides=2),
    )


def _quantile(level: float) -> float:
    return _normal(0.5 + level / 2)


def _normal(probability: float) -> float:
    return float(special.ndtri(probability))


@lru_cache(maxsize=1024)
def student(probability: float, freedom: int) -> float:
    """Return a quantile of Student's t; kept, since the same ones are asked for again and again."""
    return float(special.stdtrit(freedom, probability))


def _detectable(quantile: float, error: float, tolerance: float) -> float:
    # Beyond tolerance means: the whole interval lies past it.
    return tolerance + (quantile + _normal(POWER)) * error


def _needed(quantile: float, spread: float, tolerance: float, *, sides: int) -> int:
    # Passing means that the estimate stays within tolerance - quantile * error of the null.
    slack = _normal(1 - (1 - POWER) / sides)
    return math.ceil(((quantile + slack) * spread / tolerance) ** 2)


def rank_sum_p_value(total: int, n: int, draws: int) -> float:
    """Two-sided exact p-value of the sum of n independent uniforms on 0..draws.

    >>> round(rank_sum_p_value(0, 2, 1), 4)  # two coins, both 0: 2 * 1/4
    0.5
    """
    if n * draws > 100_000:  # the normal law is then right to every digit that is printed
        error = math.sqrt(n * draws * (draws + 2) / 12)
        return float(2 * normal_above(abs(total - n * draws / 2) / error))
    mass = _rank_sum(n, draws)
    tail = min(float(mass[: total + 1].sum()), float(mass[total:].sum()))
    return min(1.0, 2 * tail)


@lru_cache(maxsize=64)
def _rank_sum(n: int, draws: int) -> NDArray[np.float64]:
    # Direct convolution by doubling: adding positive terms keeps the tails' relative precision,
    # which a Fourier transform would lose below 1e-16.
    if n == 1:
        return np.full(draws + 1, 1 / (draws + 1))
    half = _rank_sum(n // 2, draws)
    mass = np.convolve(half, half)
    return np.convolve(mass, _rank_sum(1, draws)) if n % 2 else mass


def _tango(b: int, c: int, n: int, quantile: float) -> tuple[float, float]:
    from scipy.optimize import brentq

    def score(delta: float) -> float:
        B = -b - c + (2 * n - b + c) * delta
        C = -c * delta * (1 - delta)
        q = max(0.0, (math.sqrt(max(0.0, B * B - 8 * n * C)) - B) / (4 * n))
        variance = n * (2 * q + delta * (1 - delta))
        difference = b - c - n * delta
        if variance <= 0:
            return math.copysign(math.inf, difference) if difference else 0.0
        return difference / math.sqrt(variance)

    value, edge = (b - c) / n, 1 - 1e-12

    def root(target: float, start: float, end: float) -> float:
        def gap(delta: float) -> float:
            return max(-1e9, min(1e9, score(delta))) - target

        if gap(start) * gap(end) > 0:
            return end
        return float(brentq(gap, start, end, xtol=1e-12))

    low = root(quantile, value, -edge) if value > -edge else -1.0
    high = root(-quantile, value, edge) if value < edge else 1.0
    return low, high


def clopper_pearson(
    successes: int, n: int, *, level: float = 0.95, sides: int = 2
) -> tuple[float, float]:
    """Exact binomial interval of a proportion; `sides=1` puts the whole error on each side.

    >>> tuple(round(end, 4) for end in clopper_pearson(0, 10))
    (0.0, 0.3085)
    """
    tail = (1 - level) / sides
    low = float(special.betaincinv(successes, n - successes + 1, tail)) if successes else 0.0
    high = float(special.betainccinv(successes + 1, n - successes, tail)) if successes < n else 1.0
    return low, high


def more_often(one: int, other: int) -> float:
    """Return the exact one-sided p-value that one of two ways is no better than the other.

    The McNemar test: of the samples that only one of the two answers rightly, each way has as many
    as a fair coin gives it, or fewer.

    Args:
        one: samples that only the way in question answers rightly.
        other: samples that only the other does.

    >>> more_often(3, 0), more_often(0, 0)
    (0.125, 1.0)
    """
    return float(special.bdtrc(one - 1, one + other, 0.5)) if one + other else 1.0


def exact_rate(name: str, hits: int, n: int) -> dict[str, float]:
    """Return a rate and the ends of its exact interval, named `name`, `name_low`, `name_high`."""
    low, high = clopper_pearson(hits, n)
    return {name: hits / n, f"{name}_low": low, f"{name}_high": high}


@dataclass(frozen=True, slots=True, kw_only=True)
class Auc:
    """An area under the ROC curve and its standard error."""

    value: float
    error: float


def auc(positive: ArrayLike, negative: ArrayLike) -> Auc:
    """Chance that a positive scores above a negative (ties half), with DeLong's standard error.

    DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988). At least two scores a side.

    >>> auc([3.0, 2.0], [1.0, 2.0]).value
    0.875
    """
    x, y = np.asarray(positive, dtype=np.float64), np.asarray(negative, dtype=np.float64)
    joint = ranks(np.concatenate([x, y]))
    beaten = (joint[: len(x)] - ranks(x)) / len(y)  # share of negatives below each x
    lost = 1 - (joint[len(x) :] - ranks(y)) / len(x)  # share of positives above each y
    variance = np.var(beaten, ddof=1) / len(x) + np.var(lost, ddof=1) / len(y)
    return Auc(value=float(np.mean(beaten)), error=float(np.sqrt(variance)))
