"""Exact tests and intervals of success rates: of targets, and of a model against others.

Each effect is an excess that only harms upwards, so that each end of an interval may err with
probability (1 - level) / 2, and the level is given accordingly. The value in a model that never
saw the poison is 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from poison_audit.statistics.estimates import (
    POWER,
    Estimate,
    exact_rate,
    more_often,
    paired_loss,
    student,
)
from poison_audit.statistics.forms import Compared, Stratum
from poison_audit.statistics.laws import binomial_quantile, hypergeometric

TARGETS_SHARE = 0.9
"""Share of an end's error that is spent on the targets, where they decide it: of the upper end,
since a clean model hits few, and of the lower one where there are far more controls."""

NEVER = 1 << 40
"""A number of samples that stands for: no number would do."""


def excess_of_targets(
    strata: Sequence[Stratum],
    *,
    control_hits: int,
    controls: int,
    drawn: bool,
    against: Sequence[Compared] = (),
    level: float,
    tolerance: float,
) -> Estimate:
    """Estimate how much more often targets are hit than they are in a model without the poison.

    How often that would be is known in one of three ways, the first that there is:

    - A toss drew the targets from their candidates, the others are the controls. The p-value is
      one-sided and exact given each stratum's margins, whatever made them candidates: the targets'
      hits are hypergeometric, the strata independent. The interval is the difference of two exact
      ones: it keeps its level whatever the chances of single candidates (Bonferroni; sampling
      without replacement spreads less than binomially, Hoeffding, Journal of the American
      Statistical Association 58, 1963). Of the lower end's error controls and targets have parts by
      their numbers, the targets 9/10 at most; of the upper end's the targets have 9/10.
    - References on the same targets: `paired_excess`.
    - Neither. Targets are chosen, and other samples of their classes were not: nothing says how
      many of the hits are owed to the choice. The lower end is at most 0 and the p-value 1, so that
      nothing is found. The upper end is that of the hits alone, which exceeds any excess over what
      a model without the poison hits.

    Args:
        strata: no sample stands in two of them.
        control_hits: among the balanced controls.
        controls: balanced: as many a target in every stratum; at least 1.
        drawn: whether a toss parted targets and controls.
        against: which of two models hits the same targets, a reference each.
        level: of the two-sided interval.
        tolerance: largest excess that still counts as clean, above 0.
    """
    n, hits = sum(each.targets for each in strata), sum(each.hits for each in strata)
    if against and not drawn:
        return paired_excess(against, n=n, hits=hits, level=level, tolerance=tolerance)
    tail = (1 - level) / 2
    rest = control_hits / controls
    share = min(TARGETS_SHARE, controls / (controls + n))
    _, above = mean_chance(control_hits, controls, error=(1 - share) * tail)
    below, _ = mean_chance(control_hits, controls, error=(1 - TARGETS_SHARE) * tail)
    low, _ = mean_chance(np.arange(n + 1), n, error=share * tail)
    _, high = mean_chance(np.arange(n + 1), n, error=TARGETS_SHARE * tail)
    p_value, z = _more_than_drawn(strata, hits)
    if not drawn:
        low, below, p_value, z = np.minimum(low, above), np.zeros(1), 1.0, 0.0

    def passes(size: int) -> bool:
        most = int(binomial_quantile(POWER, size, rest))
        _, end = mean_chance(most, size, error=TARGETS_SHARE * tail)
        others = max(1, round(size * controls / n))
        start, _ = mean_chance(round(rest * others), others, error=(1 - TARGETS_SHARE) * tail)
        return bool(end - (start if drawn else 0) <= tolerance)

    return Estimate(
        value=hits / n - rest,
        null=0.0,
        low=float(low[hits] - above),
        high=float(high[hits] - below.item()),
        level=level,
        p_value=p_value,
        z=z,
        n=n,
        spread=spread_of(hits, n),
        detectable=detectable_rate(low - above > tolerance, n) - (rest if drawn else 0),
        # Of what is hit more often than is tolerated no number passes by its hits alone.
        needed=NEVER if not drawn and rest >= tolerance else smallest_size(passes),
    )


def paired_excess(
    against: Sequence[Compared], *, n: int, hits: int, level: float, tolerance: float
) -> Estimate:
    """Estimate how much more often a model hits targets than references hit the same ones.

    Why it tells: a reference differs from a model that owes nothing to the poison by the luck of
    its training alone, however the targets were chosen, unless that reference itself chose them.
    Against one, the excess is the chance that only the model hits a target less the chance that
    only the reference does, each with its exact interval (`mean_chance`): halves of the lower end's
    error, 9/10 and 1/10 of the upper one's. Against several, the value is the mean, and the
    interval spans those of all. The p-value is McNemar's exact one-sided one, the largest.

    Args:
        against: at least one; each of the n targets.
        n: targets, at least 1.
        hits: of the model.
        level: of the two-sided interval.
        tolerance: largest excess that still counts as clean, above 0.
    """
    tail = (1 - level) / 2
    most_behind = [mean_chance(c.only_reference, n, error=tail / 2)[1] for c in against]
    low, _ = mean_chance(np.arange(n + 1), n, error=tail / 2)

    def upper(ahead: int, behind: int, size: int) -> float:
        _, end = mean_chance(ahead, size, error=TARGETS_SHARE * tail)
        start, _ = mean_chance(behind, size, error=(1 - TARGETS_SHARE) * tail)
        return float(end - start)

    def passes(size: int) -> bool:
        # Without the poison either model is ahead as often as the other.
        rate = max(c.only_candidate + c.only_reference for c in against) / (2 * n)
        most = int(binomial_quantile(POWER, size, rate))
        return upper(most, round(rate * size), size) <= tolerance

    leads = [c.only_candidate - c.only_reference for c in against]
    ends = [float(low[c.only_candidate] - b) for c, b in zip(against, most_behind, strict=True)]
    p_values = [more_often(c.only_candidate, c.only_reference) for c in against]
    apart = [max(1, c.only_candidate + c.only_reference) for c in against]
    return Estimate(
        value=math.fsum(leads) / len(leads) / n,
        null=0.0,
        low=min(ends),
        high=max(upper(c.only_candidate, c.only_reference, n) for c in against),
        level=level,
        p_value=max(p_values),
        z=min(lead / math.sqrt(size) for lead, size in zip(leads, apart, strict=True)),
        n=n,
        spread=spread_of(hits, n),
        detectable=detectable_rate(low - max(most_behind) > tolerance, n),
        needed=smallest_size(passes),
    )


def counted(
    hits: Sequence[int],
    *,
    control_hits: int,
    controls: int,
    strata: Sequence[Stratum],
    references: Sequence[Compared],
) -> dict[str, Any]:
    """Return what a finding tells of hits: their rate, that of controls, and each reference's."""
    n = len(hits)
    return {
        **exact_rate("rate", sum(hits), n),
        **exact_rate("control_rate", control_hits, controls),
        "hits": sum(hits),
        "targets": n,
        "control_hits": control_hits,
        "controls": controls,
        "strata": [{k: v for k, v in asdict(s).items() if v is not None} for s in strata],
        "references": [
            {"reference": one.reference, "excess": (one.only_candidate - one.only_reference) / n}
            for one in references
        ],
    }


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
        z, power = float(special.ndtri(0.5 + level / 2)), float(special.ndtri(POWER))
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
        p_value=1.0 if k == 1 else float(2 * special.stdtr(k - 1, -abs(value) / error)),
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
    low = special.betaincinv(np.maximum(k, 1e-9), n - k + 1, error)
    found: NDArray[np.float64] = np.where(k <= 0, 0.0, np.where(k <= 1, k * error / n, low))
    return found


def _more_than_drawn(strata: Sequence[Stratum], hits: int) -> tuple[float, float]:
    """Return P(at least so many hits), and standard errors above the mean, given the margins."""
    # Direct convolution: adding positive terms keeps the tail's relative precision.
    mass, mean, variance = np.ones(1), 0.0, 0.0
    for stratum in strata:
        n, marked = stratum.targets, stratum.hits + stratum.control_hits
        total = n + stratum.controls
        mass = np.convolve(mass, hypergeometric(np.arange(n + 1), total, marked, n))
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
    return float(special.betaincinv(least, n - least + 1, POWER))


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
