"""Exact tests and intervals of success rates: of targets, and of a model against others.

Each effect is an excess that only harms upwards, so that each end of an interval may err with
probability (1 - level) / 2, and the level is given accordingly. The value in a model that never
saw the poison is 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats as laws

from poison_audit.statistics.estimates import POWER, Estimate, paired_loss, student
from poison_audit.statistics.forms import Compared, Stratum

TARGETS_SHARE = 0.9
"""Share of an end's error that is spent on the targets; the controls, of which there are more,
get the rest."""

NEVER = 1 << 40
"""A number of samples that stands for: no number would do."""


def excess_of_targets(
    strata: Sequence[Stratum],
    *,
    control_hits: int,
    controls: int,
    level: float,
    tolerance: float,
) -> Estimate:
    """Estimate how much more often targets are hit than controls.

    The p-value is one-sided and exact given each stratum's margins: if its targets are a draw from
    its targets and controls together, their hits are hypergeometric, and the strata independent.
    The interval is the difference of two exact ones, 9/10 of the error spent on the targets and
    1/10 on the controls (Bonferroni): it keeps its level whatever the chances of single targets.

    Args:
        strata: no sample stands in two of them.
        control_hits: among the balanced controls.
        controls: balanced: as many a target in every stratum; at least 1.
        level: of the two-sided interval.
        tolerance: largest excess that still counts as clean, above 0.
    """
    n, hits = sum(each.targets for each in strata), sum(each.hits for each in strata)
    tail = (1 - level) / 2
    rest = control_hits / controls
    below, above = mean_chance(control_hits, controls, error=(1 - TARGETS_SHARE) * tail)
    low, high = mean_chance(np.arange(n + 1), n, error=TARGETS_SHARE * tail)
    p_value, z = _more_than_drawn(strata, hits)

    def passes(size: int) -> bool:
        most = int(laws.binom.ppf(POWER, size, rest))
        others = max(1, round(size * controls / n))
        _, end = mean_chance(most, size, error=TARGETS_SHARE * tail)
        start, _ = mean_chance(round(rest * others), others, error=(1 - TARGETS_SHARE) * tail)
        return bool(end - start <= tolerance)

    return Estimate(
        value=hits / n - rest,
        null=0.0,
        low=float(low[hits] - above),
        high=float(high[hits] - below),
        level=level,
        p_value=p_value,
        z=z,
        n=n,
        spread=spread_of(hits, n),
        detectable=detectable_rate(low - above > tolerance, n) - rest,
        needed=smallest_size(passes),
    )


def deficit(against: Sequence[Compared], *, n: int, level: float, tolerance: float) -> Estimate:
    """Estimate the accuracy that the poison costs, against references on the same samples.

    Two trainings on the same clean data differ in accuracy by luck alone, whose variance no count
    of test samples shows. It is that of the k references, with k - 1 degrees of freedom (Student),
    and the model on trial had its own luck as well as they: sd * sqrt(1 + 1 / k). To this comes
    the sampling error of the test set: how far Tango's interval reaches, on average, over the
    references (that of a mean of differences is no larger). The two reaches are added in quadrature
    (Banerjee, Sankhya 22, 1960), which keeps the level for any ratio of the variances.

    One reference tells nothing of luck: with no degree of freedom the interval is everything.

    Args:
        against: at least one reference.
        n: test samples, at least 1.
        level: of the two-sided interval.
        tolerance: largest deficit that still counts as clean, above 0.
    """
    each = [paired(counts, n=n, level=level) for counts in against]
    values, k = [e.value for e in each], len(each)
    value, spread = math.fsum(values) / k, max(e.spread for e in each)
    if k == 1:
        low, high, error, detectable, needed = -1.0, 1.0, math.inf, 1.0, NEVER
    else:
        lucky, sampled = luck(against, n=n), math.fsum(e.spread for e in each) / k / math.sqrt(n)
        error = math.hypot(math.sqrt(1 + 1 / k) * lucky, sampled)
        by_luck = _reach_of_luck(lucky, k, level)
        low = max(-1.0, value - math.hypot(by_luck, value - math.fsum(e.low for e in each) / k))
        high = min(1.0, value + math.hypot(by_luck, math.fsum(e.high for e in each) / k - value))
        z, power = float(laws.norm.ppf(0.5 + level / 2)), float(laws.norm.ppf(POWER))
        detectable = tolerance + math.hypot(by_luck, z * sampled) + power * error
        # Of what the references differ by, their own sampling is a part: half of the pairs'.
        true = max(0.0, lucky**2 - sampled**2 / 2)

        def passes(size: int) -> bool:
            part = sampled * math.sqrt(n / size)
            then = math.sqrt(true + part**2 / 2)
            half = math.hypot(_reach_of_luck(then, k, level), z * part)
            return half + power * math.hypot(math.sqrt(1 + 1 / k) * then, part) <= tolerance

        needed = smallest_size(passes)
    return Estimate(
        value=value,
        null=0.0,
        low=low,
        high=high,
        level=level,
        p_value=1.0 if k == 1 else float(2 * laws.t.sf(abs(value) / error, k - 1)),
        z=value / error,
        n=n,
        spread=spread,
        detectable=detectable,
        needed=needed,
    )


def paired(counts: Compared, *, n: int, level: float) -> Estimate:
    """Estimate the accuracy that a model misses against one reference: of these two alone."""
    return paired_loss(
        only_before=counts.only_reference,
        only_after=counts.only_candidate,
        n=n,
        level=level,
        tolerance=1.0,
    )


def luck(against: Sequence[Compared], *, n: int) -> float:
    """Return the standard deviation of the references' accuracies; at least two."""
    return float(np.std([c.only_reference - c.only_candidate for c in against], ddof=1)) / n


def references_needed(excess: float, lucky: float, *, level: float) -> int:
    """Return how many references decide about a deficit; `NEVER`: no number does.

    Args:
        excess: distance of the deficit from the tolerance.
        lucky: standard deviation of a training's accuracy.
        level: of the two-sided interval.
    """

    def decide(k: int) -> bool:
        return k > 1 and _reach_of_luck(lucky, k, level) < abs(excess)

    return smallest_size(decide)


def _reach_of_luck(lucky: float, k: int, level: float) -> float:
    return student(0.5 + level / 2, k - 1) * math.sqrt(1 + 1 / k) * lucky


def mean_chance(
    successes: ArrayLike, n: int, *, error: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the interval of the mean chance of n independent trials whose chances may differ.

    Each end errs with probability at most `error`, below 1/4. It is that of Clopper and Pearson:
    unequal chances of the same mean make both tails lighter (Hoeffding, Annals of Mathematical
    Statistics 27, 1956), except where one success is the tail. There P(any) <= n times the mean.

    >>> low, high = mean_chance([0, 1], 10, error=0.025)
    >>> low.round(4).tolist(), high.round(4).tolist()
    ([0.0, 0.0025], [0.3085, 0.445])
    """
    k = np.asarray(successes)
    return low_chance(k, n, error), 1 - low_chance(n - k, n, error)


def low_chance(successes: ArrayLike, n: float, error: float) -> NDArray[np.float64]:
    """Return the lower end of `mean_chance`, of counts that need not be whole."""
    k = np.asarray(successes, dtype=np.float64)
    low = laws.beta.ppf(error, np.maximum(k, 1e-9), n - k + 1)
    found: NDArray[np.float64] = np.where(k <= 0, 0.0, np.where(k <= 1, k * error / n, low))
    return found


def _more_than_drawn(strata: Sequence[Stratum], hits: int) -> tuple[float, float]:
    """Return P(at least so many hits), and standard errors above the mean, given the margins."""
    # Direct convolution: adding positive terms keeps the tail's relative precision.
    mass, mean, variance = np.ones(1), 0.0, 0.0
    for stratum in strata:
        n, marked = stratum.targets, stratum.hits + stratum.control_hits
        total = n + stratum.controls
        mass = np.convolve(mass, laws.hypergeom.pmf(np.arange(n + 1), total, marked, n))
        share = marked / total
        mean += n * share
        variance += n * share * (1 - share) * stratum.controls / max(1, total - 1)
    z = (hits - mean) / math.sqrt(variance) if variance > 0 else 0.0
    return min(1.0, float(mass[hits:].sum())), z


def spread_of(hits: int, n: int) -> float:
    """Return the standard deviation of one sample's hit."""
    # No hit does not mean that none is possible: one stands in for it.
    share = min(max(hits, 1), max(n - 1, 1)) / n
    return math.sqrt(share * (1 - share)) if share < 1 else 0.0


def detectable_rate(beyond: NDArray[np.bool_], n: int) -> float:
    """Return the rate that gives a count beyond tolerance with power 0.9; 1 if no count is."""
    if not beyond.any():
        return 1.0
    least = int(np.argmax(beyond))
    return float(laws.beta.ppf(POWER, least, n - least + 1))


def smallest_size(passes: Callable[[int], bool]) -> int:
    """Return the size at which `passes` becomes true, up to the steps of a count."""
    high = 1
    while not passes(high) and high < NEVER:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high
