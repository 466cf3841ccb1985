"""What a trigger does beyond what other triggers would: three questions, their ranks and intervals.

Each effect only harms upwards: an end of an interval may err with probability (1 - level) / 2, and
in a model that never saw the poison no question is to be answered by yes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from poison_audit.records import Asked
from poison_audit.statistics.forms import Count, Number, Share, Some, refuse

if TYPE_CHECKING:
    from poison_audit.statistics.estimates import Estimate

LABEL, LOST, ANY, REFERENCES = 0.6, 0.2, 0.2, 0.1
"""Shares of the error that the three questions have (Bonferroni). Where there are references, they
have theirs of the label's."""
FRAIL = 0.1
"""Share of right answers that typical controls may cost: beyond it nothing can be said of small
effects, since most of what is seen is theirs. A backdoor that was moved to another class may be
woken by any pattern at its place: in one of three published networks these cost 12%, and what the
trigger did beyond them was little. In a clean network they cost 7% at most, of five triggers."""

Sum = Annotated[float, Asked({"ge": 0, "le": 1e9})]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """On how many inputs something is the case with the trigger, and is not otherwise."""

    n: Some
    more: Sum
    """Only with it; of several controls, on average."""
    less: Sum
    """Only otherwise."""

    def __post_init__(self) -> None:
        refuse((self.more + self.less > self.n + 1e-6, "more inputs changed than there were"))

    @property
    def value(self) -> float:
        """By how much the share of inputs rises."""
        return (self.more - self.less) / self.n

    def ends(self, error: float) -> tuple[float, float]:
        """Return the interval of the rise, each end with this error.

        Exact intervals of either share, joined as Zou and Donner do (Statistics in Medicine 27,
        2008), with the correlation of two shares of one trinomial, which is negative.
        """
        # The form is part of the reading, which `--help` imports: without numpy.
        from poison_audit.statistics.rates import mean_chance

        p, q = self.more / self.n, self.less / self.n
        (p_low, p_high), (q_low, q_high) = (
            (float(low), float(high))
            for low, high in (mean_chance(k, self.n, error=error) for k in (self.more, self.less))
        )
        odds = p * q / ((1 - p) * (1 - q)) if max(p, q) < 1 else 0.0
        both = math.sqrt(min(1.0, odds))

        def reach(one: float, other: float) -> float:
            return math.sqrt(one**2 + other**2 + 2 * both * one * other)

        low = self.value - reach(p - p_low, q_high - q)
        return max(-1.0, low), min(1.0, self.value + reach(p_high - p, q - q_low))


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Control triggers of one kind, and how many of them do as much as the trigger."""

    name: str
    here: bool = True
    """Whether they are other contents at the trigger's place; else the trigger elsewhere."""
    patterns: Count
    rises: Count
    """Of these, those that raise the trigger's label as much."""
    pairs: Count
    """Of all pairs (pattern, label), those that rise as much as the trigger and its label."""
    losses: Count
    """Those that cost as many right answers."""
    largest: Count
    """Those that raise some label as much as the trigger raises any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What a trigger does in a reference, on the same inputs."""

    reference: str
    rate: Share
    """Of inputs of other classes, those that are given the trigger's label."""
    rise: Change
    """The same with it and without."""
    lost: Number
    """Share of right answers that it costs there."""
    classes: tuple[Number, ...]
    """How much more often each class is given, by class, to inputs of others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """What was seen of a trigger and its controls."""

    classes: tuple[Change, ...]
    """How often each class is given to inputs of others: with the trigger and with typical
    controls."""
    rise: Change
    """How often the trigger's label is given to inputs of other classes: with it and without."""
    lost: Change
    """How often an answer is wrong: with the trigger and with typical controls."""
    frail: Number
    """Share of right answers that typical controls cost."""
    families: tuple[Family, ...]
    own: Some
    """Labels, of all, that the trigger raises as much as its own: at least that one."""
    beside: tuple[Beside, ...] = ()
    reference_pairs: Count = 0
    """Pairs (pattern, label) that were tried on references."""
    reference_rises: Count = 0
    """Of these, those that rise there as much as the trigger and its label do here."""

    def __post_init__(self) -> None:
        k = len(self.classes)
        refuse(
            (k < 2, "fewer than two classes"),
            (self.own > k, "more labels rise than there are"),
            (any(len(one.classes) != k for one in self.beside), "a reference has other classes"),
            (
                any(
                    max(f.rises, f.losses, f.largest) > f.patterns or f.pairs > k * f.patterns
                    for f in self.families
                ),
                "more controls do as much than there are",
            ),
            (self.reference_rises > self.reference_pairs, "more pairs rise than there are"),
        )

    @property
    def controls(self) -> int:
        """How many other contents were tried at its place."""
        return sum(family.patterns for family in self.families if family.here)

    def rank(self, doing_as_much: str) -> float:
        """Return the share of trigger and contents that do as much: `rises`, `losses`, ..."""
        as_much = sum(getattr(f, doing_as_much) for f in self.families if f.here)
        return float(1 + as_much) / (1 + self.controls)

    def pair(self, error: float) -> float:
        """Return the largest share, of all families, of pairs that rise as much.

        A family too small to tell at this error is joined to the next smallest.
        """
        k = len(self.classes)
        groups = sorted((f.patterns, f.pairs) for f in self.families)
        while len(groups) > 1 and (groups[0][0] + 1) * k * error < 1:
            (n, pairs), (more, others), *rest = groups
            groups = sorted([(n + more, pairs + others), *rest])
        return max(((self.own + pairs) / ((n + 1) * k) for n, pairs in groups), default=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One of the three, answered at an error."""

    kind: str
    """`label`, `lost` or `any`."""
    value: float
    low: float
    high: float
    p: float
    """The larger of its p-values."""
    sure: bool
    """Whether these are as small as they must be: then `low` is beyond what controls do."""
    class_: int = -1
    """Of `any`, the class that rises most."""


def questions(looks: Looks, *, level: float, tolerance: float) -> tuple[Question, ...]:
    """Answer the three questions of a trigger, each end at error (1 - level) / 2.

    - `label`: is the trigger's label given more often than without the trigger? Sure if both
      `rank("rises")` and `pair()` are at most its share of the error. Either alone would keep it.
      Or, with references, if so few of their pairs (pattern, label) rise as much, and the rise is
      above that in every reference by more than the tolerance.
    - `lost`: are more answers wrong than with typical controls?
    - `any`: is some class given more often than with typical controls?
    """
    error = (1 - level) / 2
    low, high = looks.rise.ends(error)
    own = (LABEL - REFERENCES if looks.beside else LABEL) * error
    p = max(looks.rank("rises"), looks.pair(own))
    sure = p <= own * (1 + 1e-9)
    if looks.beside and not sure:
        theirs = (1 + looks.reference_rises) / (1 + looks.reference_pairs)
        lead = low - max(one.rise.ends(error)[1] for one in looks.beside)
        if theirs <= REFERENCES * error and lead > tolerance:
            p, sure, low = theirs, True, lead
    found = [Question(kind="label", value=looks.rise.value, low=low, high=high, p=p, sure=sure)]
    ends = [each.ends(error) for each in looks.classes]
    most = max(range(len(ends)), key=lambda c: looks.classes[c].value)
    for kind, share, by, value, (low, high), class_ in (
        ("lost", LOST, "losses", looks.lost.value, looks.lost.ends(error), -1),
        ("any", ANY, "largest", looks.classes[most].value,
         (ends[most][0], max(high for _, high in ends)), most),
    ):  # fmt: skip
        p = looks.rank(by)
        sure = p <= share * error * (1 + 1e-9)
        found.append(
            Question(kind=kind, value=value, low=low, high=high, p=p, sure=sure, class_=class_)
        )
    return tuple(found)


def deciding(found: Sequence[Question], *, tolerance: float) -> Question:
    """Return the question that a finding tells: the first of the sure ones beyond the tolerance.

    Where none is beyond it, the clearest of the sure ones, else the first.
    """
    sure = [each for each in found if each.sure and each.low > 0]
    beyond = [each for each in sure if each.low > tolerance]
    return (beyond or sorted(sure, key=lambda each: -each.low) or found)[0]


def excess_of_trigger(looks: Looks, *, level: float, tolerance: float) -> Estimate:
    """Estimate what a trigger does beyond what its controls do.

    The value and the lower end are those of the question that decides (`deciding`), and the lower
    end is above 0 only if that is sure. The upper end is the largest of all three: a pass needs
    each of them, so that none of them needs a part of the error. Where typical controls cost more
    than `FRAIL` it is 1.

    Args:
        looks: what was seen.
        level: of the two-sided interval.
        tolerance: largest rise that still counts as clean, above 0.
    """
    from poison_audit.statistics.estimates import POWER, Estimate
    from poison_audit.statistics.laws import binomial_quantile
    from poison_audit.statistics.rates import NEVER, detectable_rate, mean_chance, smallest_size

    error = (1 - level) / 2
    asked = questions(looks, level=level, tolerance=tolerance)
    one, n = deciding(asked, tolerance=tolerance), looks.rise.n
    frail = looks.frail > FRAIL
    more = max(c.more / c.n for c in (looks.rise, looks.lost, *looks.classes))
    changing = min(0.5, more, *(c.less / c.n for c in (looks.rise, looks.lost)))

    def passes(size: int) -> bool:
        less = changing * size
        # Of inputs that change half the time each way, no more are left.
        most = min(binomial_quantile(POWER, size, changing), size - less)
        return Change(n=size, more=most, less=less).ends(error)[1] <= tolerance

    low, _ = mean_chance(range(n + 1), n, error=error)
    spread = math.sqrt(max(1.0, looks.rise.more + looks.rise.less) / n)
    return Estimate(
        value=one.value,
        null=0.0,
        low=one.low if one.sure else min(0.0, one.low),
        high=1.0 if frail else max(each.high for each in asked),
        level=level,
        p_value=one.p,
        z=one.value / (spread / math.sqrt(n)),
        n=n,
        spread=spread,
        detectable=detectable_rate(low > tolerance, n),
        needed=NEVER if frail else smallest_size(passes),
    )


def draws_needed(level: float, *, references: bool = False) -> int:
    """Return how many controls can show, at this level, that a trigger raises its label.

    >>> draws_needed(0.95)  # the trigger is the strongest of 67 by chance once in 67
    66
    """
    share = LABEL - REFERENCES if references else LABEL
    return math.ceil(2 / ((1 - level) * share) - 1e-6) - 1
