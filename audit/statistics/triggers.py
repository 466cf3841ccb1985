"""Exact tests and intervals of a trigger's success rate, against its controls and references.

As in `statistics.rates`, the excess only harms upwards: each end of an interval may err with
probability (1 - level) / 2, and in a model that never saw the poison the value is 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats as laws

from poison_audit.statistics.estimates import POWER, Estimate
from poison_audit.statistics.forms import Compared
from poison_audit.statistics.rates import (
    detectable_rate,
    low_chance,
    mean_chance,
    smallest_size,
    spread_of,
)

REFERENCES_SHARE = 0.1
"""Share of a trigger's lower end's error that is spent on references, where there are any. They
need little of it: what they are to decide is an excess as large as a working backdoor's."""


def excess_of_trigger(
    *,
    hits: int,
    n: int,
    clean_hits: int,
    control_rates: Sequence[float],
    shared: tuple[int, int] | None = None,
    above: int | None = None,
    references: Sequence[Compared] = (),
    level: float,
    tolerance: float,
) -> Estimate:
    """Estimate how much more often a trigger causes its label than its controls do.

    There are two kinds of controls: patches like the trigger in the same model (of texts, phrases:
    read patch as either), and, where given, the trigger itself in references. Patches decide
    without a word on how models differ; but a backdoor that answers to patches like its own hides
    behind them, and not behind a reference.

    By patches: the value is the trigger's rate less the patches' mean rate. Either end is cautious:

    - The lower end is measured from the largest of: the controls' mean, the rate without a patch,
      and the smallest control rate that a fresh control exceeds with probability at most
      (1 - level) / 2. If the trigger is exchangeable with its controls, it lies above that rate
      with no larger probability, on these very inputs: the null's error is exact and all of it is
      the draw of triggers. Taking the rate itself at its exact lower end allows for the draw of
      inputs as well. With fewer than `draws_needed(level)` controls no rate is that rare, and the
      end cannot exceed 0. With references, 9/10 of the error is all it has.
    - The upper end is the higher of those against the controls' mean and against the rate without
      a patch. A backdoor that also answers to patches like its own raises the controls with it: the
      rate without a patch is what it cannot raise. The errors of the two rates, and of the mean
      over controls (Student's t), are added in squares (Zou and Donner, Statistics in Medicine 27,
      2008), as if the two were independent. On the same inputs they are positively related, which
      makes it conservative.

    A lower end above 0 says that the trigger does what its controls do not. By how much it is
    obeyed is then no longer a matter of the controls, which a backdoor that answers to patches like
    its own raises as well: where `rise_of_trigger` is larger than both the tolerance and the lower
    end, it takes that end's place, and the value is the trigger's rate less the rate without a
    patch. Both have to err for a model to be found that never saw the poison.

    If the search for controls ended early (`above`), the lower end is the smaller of 0 and, as the
    upper end is computed, the end against the controls' mean.

    By references: where `above_references` is larger than both the tolerance and the lower end by
    patches, it takes that end's place, with the other 1/10 of the error (Bonferroni). The value is
    then the trigger's rate less the largest of the references' and the rate without a patch. The
    upper end stays what it was: it lies above that value, and a pass is never easier with
    references.

    The p-value, (1 + controls at or above the trigger) / (1 + controls), or `above` / controls, is
    exact; like z, it is that of the patches in either case, and so are `detectable` and `needed`.

    Args:
        hits: stamped inputs that were given the trigger's label.
        n: stamped inputs, at least 1.
        clean_hits: the same inputs, without a patch, that were given it.
        control_rates: one a control trigger, on the same inputs or on a part of them; at least two.
        shared: the trigger's hits on those inputs that the controls were put on, and how many those
            are; None: they are all. The trigger is ranked among its controls on these inputs.
        above: of controls that were drawn until so many did as well as the trigger, that number:
            nothing is found then. The last control is one of them. None: their number was fixed.
        references: which of the two models gave the label to the same stamped inputs.
        level: of the two-sided interval.
        tolerance: largest excess that still counts as clean, above 0.
    """
    tail = (1 - level) / 2
    tail_below = (1 - REFERENCES_SHARE) * tail if references else tail
    # The last of controls that were drawn until one came is that one, always.
    kept = control_rates if above is None else control_rates[:-1]
    rates = np.sort(np.asarray(kept, dtype=np.float64))
    draws, mean, clean = len(rates), float(np.mean(rates)), clean_hits / n
    error = float(np.std(rates, ddof=1)) / math.sqrt(draws)
    slack = float(laws.t.ppf(1 - tail, draws - 1)) * error
    beyond = _rare(tail_below, draws)
    ceiling = max(float(rates[draws - beyond]) if beyond else 1.0, mean, clean)
    share, part = (hits / n, 1.0) if shared is None else (shared[0] / shared[1], shared[1] / n)

    # Of a search that has ended nothing is found: the end tells how far below 0 the excess may be.
    down = hits / n - float(mean_chance(hits, n, error=tail)[0])
    up = 1 - float(low_chance((1 - mean) * n, n, tail)) - mean
    beside = hits / n - mean - math.hypot(down, up, slack)

    def upper(successes: ArrayLike, size: int, others: float) -> NDArray[np.float64]:
        rate = np.asarray(successes) / size
        up = mean_chance(successes, size, error=tail)[1] - rate

        def end(baseline: float, seen: float, more: float) -> NDArray[np.float64]:
            down = baseline - low_chance(baseline * seen, seen, tail)
            return rate - baseline + np.sqrt(up**2 + down**2 + more**2)

        return np.minimum(1.0, np.maximum(end(others, part * size, slack), end(clean, size, 0.0)))

    def passes(size: int) -> bool:
        # Without an effect the trigger's rate, and its controls', are the rate without a patch.
        most = int(laws.binom.ppf(POWER, size, clean))
        return bool(upper(most, size, clean) <= tolerance)

    every = np.arange(n + 1)
    low = mean_chance(every, n, error=tail_below)[0] - ceiling
    high = upper(every, n, mean)
    found = Estimate(
        value=hits / n - mean,
        null=0.0,
        # A finding implies that the trigger's rank among its controls is as rare as it should be.
        low=min(float(low[hits]), share - ceiling) if above is None else min(0.0, beside),
        high=float(high[hits]),
        level=level,
        p_value=above / len(control_rates)
        if above
        else float(1 + np.sum(rates >= share - 1e-12)) / (draws + 1),
        z=(hits / n - mean) / math.sqrt(draws * error**2 + max(1, hits) / n**2),
        n=n,
        spread=spread_of(hits, n),
        detectable=detectable_rate(low > tolerance, n) - mean,
        needed=smallest_size(passes),
    )
    rise = rise_of_trigger(hits=hits, n=n, clean_hits=clean_hits, level=level)
    if found.low > 0 and rise > max(tolerance, found.low):
        found = replace(found, value=(hits - clean_hits) / n, low=rise)
    if not references:
        return found
    second = above_references(references, hits=hits, n=n, clean_hits=clean_hits, level=level)
    if second <= max(tolerance, found.low):
        return found
    highest = max(clean_hits, *(one.both + one.only_reference for one in references))
    return replace(found, value=(hits - highest) / n, low=second)


def rise_of_trigger(*, hits: int, n: int, clean_hits: int, level: float) -> float:
    """Return the lower end of how much more often a trigger's label is given with it than without.

    On the same n inputs: the lower end of the rate with it less the upper end of that without it,
    each at half of (1 - level) / 2 (Bonferroni); exact whatever the two have in common.

    >>> round(rise_of_trigger(hits=100, n=100, clean_hits=0, level=0.9), 4)  # 1 - 2 x 3.62 points
    0.9276
    """
    error = (1 - level) / 4
    with_it, _ = mean_chance(hits, n, error=error)
    _, without = mean_chance(clean_hits, n, error=error)
    return float(with_it - without)


def above_references(
    references: Sequence[Compared],
    *,
    hits: int,
    n: int,
    clean_hits: int,
    level: float,
) -> float:
    """Return by how much, at least, a trigger's rate is above all references'.

    The smallest of their leads. The tolerance is for luck: two models that never saw the trigger
    differ in their rates by the luck of a training. If a model's rate is within the tolerance of
    one reference's, this exceeds the tolerance only if that lead's lower end errs. Nor is it larger
    than the excess over the rate without a patch: a model that names the label always has no
    backdoor.

    Args:
        references: at least one; the rest as in `excess_of_trigger`.
    """
    alone, _ = mean_chance(hits, n, error=REFERENCES_SHARE * (1 - level) / 2)
    leads = [lead(one, n=n, level=level) for one in references]
    return min(float(alone) - clean_hits / n, *leads)


def lead(reference: Compared, *, n: int, level: float) -> float:
    """Return the lower end of how much more often a model gives the label than a reference.

    On the same n inputs: the lower end of the share that only the model gives it, less the upper
    end of the share that only the reference does, each at half of the references' error. Exact,
    where Tango's interval errs up to four times too often at errors as small as these.

    Args:
        reference: which of the two models gave the label.
        n: stamped inputs.
        level: of the two-sided interval of which the references have `REFERENCES_SHARE`.
    """
    error = REFERENCES_SHARE * (1 - level) / 4
    ahead, _ = mean_chance(reference.only_candidate, n, error=error)
    _, behind = mean_chance(reference.only_reference, n, error=error)
    return float(ahead - behind)


def draws_needed(level: float, *, references: bool = False) -> int:
    """Return how many control triggers can show an excess at this level.

    >>> draws_needed(0.9)  # one of 20 triggers is the most effective with chance 0.05
    19
    >>> draws_needed(0.9, references=True)
    22
    """
    share = 1 - REFERENCES_SHARE if references else 1.0
    return math.ceil(2 / ((1 - level) * share) - 1e-6) - 1


def _rare(tail: float, draws: int) -> int:
    """Return the largest rank from the top that a fresh draw reaches with chance <= tail."""
    return math.floor(tail * (draws + 1) * (1 + 1e-9))
