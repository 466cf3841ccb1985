"""What the numbers of the probes that hold whatever the poison mean. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from poison_audit import statistics
from poison_audit.records import Interval
from poison_audit.statistics.forms import Count, Share, Some, refuse
from poison_audit.statistics.reading import Reading, Words

if TYPE_CHECKING:
    from poison_audit.statistics.estimates import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Separation:
    """What the membership probe saw: how well the loss tells forget from test samples."""

    auc: Share
    auc_se: Share
    """Its standard error."""
    hits: Count
    """Forget samples found at the false positive rate `fpr`."""
    forget: Some
    fpr: Share

    def __post_init__(self) -> None:
        refuse((self.hits > self.forget, "there are more hits than forget samples"))


def _shown(seen: Separation) -> dict[str, Any]:
    level = 0.95
    half = statistics.laws.normal_quantile(0.5 + level / 2) * seen.auc_se
    value, hits, n = seen.auc, seen.hits, seen.forget
    low, high = statistics.estimates.clopper_pearson(hits, n)
    z = (value - 0.5) / seen.auc_se if seen.auc_se > 0 else None
    return {
        "reason": "Shown because it is expected; it misses poison, so it decides nothing.",
        "statistic": value,
        "null": 0.5,
        "interval": Interval(low=max(0.0, value - half), high=min(1.0, value + half), level=level),
        "p_value": None if z is None else 2 * statistics.laws.normal_above(abs(z)),
        "z": z,
        "sample_size": n,
        "details": {"tpr": hits / n, "tpr_low": low, "tpr_high": high, "fpr": seen.fpr},
    }


MEMBERSHIP = Reading(
    name="membership",
    title="Membership",
    question="Does the model still fit the forget samples better than test samples? "
    "Decides nothing.",
    needs="forget and test samples",
    words=Words(
        title="Membership",
        unit="AUC, decides nothing",
        samples="forget samples",
        needs="Forget samples and test samples.",
        minor=True,
    ),
    always=True,
    evidence=Separation,
    shown=_shown,
    residue=False,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What the utility probe saw: who answers the test samples correctly."""

    n: Some
    both: Count
    only_deployed: Count
    only_candidate: Count
    neither: Count

    def __post_init__(self) -> None:
        total = self.both + self.only_deployed + self.only_candidate + self.neither
        refuse((total != self.n, "the counts are not those of these samples"))


def _figure(seen: Answers) -> float:
    return (seen.only_deployed - seen.only_candidate) / seen.n


def _lost(seen: Answers, level: float, tolerance: float) -> Estimate:
    return statistics.estimates.paired_loss(
        only_before=seen.only_deployed,
        only_after=seen.only_candidate,
        n=seen.n,
        level=level,
        tolerance=tolerance,
    )


def _accuracies(seen: Answers, _: Estimate) -> dict[str, Any]:
    return {
        **statistics.estimates.exact_rate("accuracy", seen.both + seen.only_candidate, seen.n),
        "deployed_accuracy": (seen.both + seen.only_deployed) / seen.n,
    }


UTILITY = Reading(
    name="utility",
    title="Utility",
    question="How much accuracy was lost against the deployed model?",
    needs="test samples",
    words=Words(
        title="Accuracy",
        unit="% of test samples; points lost",
        samples="test samples",
        needs="Labelled clean test samples.",
        looks="accuracy lost",
        means="Accuracy lost against the deployed model",
        column="acc.",
        alert="BrokenByTheRepair",
        found="The repair cost more accuracy than is tolerated.",
        how="On the same clean test samples the repaired model answers fewer correctly than the "
        "deployed one.",
    ),
    always=True,
    evidence=Answers,
    estimate=_lost,
    figure=_figure,
    details=_accuracies,
    tolerance=0.02,
    points=True,
    residue=False,
)
READINGS: dict[str, Reading[Any]] = {each.name: each for each in (MEMBERSHIP, UTILITY)}
"""By probe."""
