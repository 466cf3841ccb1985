"""Indiscriminate poison: what the numbers of its probe mean. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from poison_audit import statistics
from poison_audit.case.planting import PICTURES, TEXTS, Need, Option, Planting
from poison_audit.case.poison import Poison
from poison_audit.records import Asked, Outcome
from poison_audit.statistics.forms import Compared, Some, refuse
from poison_audit.statistics.reading import Reading, Remark, Words

if TYPE_CHECKING:
    from poison_audit.statistics.estimates import Estimate

ELSEWHERE = 0.0086
"""Standard deviation of a training's accuracy where it was measured: 200 small networks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """What the probe saw: who answers the test samples correctly, the model or a reference."""

    n: Some
    against: Annotated[tuple[Compared, ...], Asked({"min_length": 1})]

    def __post_init__(self) -> None:
        refuse(
            (
                any(one.total != self.n for one in self.against),
                "a reference's counts are not those of these samples",
            )
        )


def _details(seen: Missed, estimate: Estimate) -> dict[str, Any]:
    n, references = seen.n, []
    for counts in seen.against:
        one = statistics.rates.paired(counts, n=n, level=estimate.level)
        references.append(
            {
                "reference": counts.reference,
                "accuracy": (counts.both + counts.only_reference) / n,
                "deficit": one.value,
                "low": one.low,
                "high": one.high,
            }
        )
    first = seen.against[0]
    several = len(references) > 1
    return {
        "luck": statistics.rates.luck(seen.against, n=n) if several else None,
        **statistics.estimates.exact_rate("accuracy", first.both + first.only_candidate, n),
        "references": references,
    }


def _remark(seen: Missed, estimate: Estimate, tolerance: float, outcome: Outcome) -> Remark:
    """Say what the luck of a training is, and how many references would decide."""
    k, away = len(seen.against), estimate.value - tolerance
    if k == 1:
        one = statistics.rates.paired(seen.against[0], n=seen.n, level=estimate.level)
        least = "at most " if one.low <= -1 else f"{_points(one.low)} to "
        told = (
            f" These two checkpoints differ by {_points(one.value)} points on such samples "
            f"({least}{_points(one.high)}). How much of that is the luck of a training, one "
            f"reference does not tell. If its sd is {_points(ELSEWHERE)} points, as elsewhere,"
        )
        return Remark(told=told + _decisive(away, ELSEWHERE, estimate.level), means=_ALONE)
    lucky = statistics.rates.luck(seen.against, n=seen.n)
    told = f" By luck alone the {k} references differ, with an sd of {_points(lucky)} points."
    if outcome is Outcome.INCONCLUSIVE:
        told += f" At that luck{_decisive(away, lucky, estimate.level)}"
    return Remark(told=told)


_ALONE = "Accuracy missing against models that never saw the poison"


def _decisive(away: float, lucky: float, level: float) -> str:
    needed = statistics.rates.references_needed(away, lucky, level=level)
    count = str(needed) if needed < statistics.rates.NEVER else "no number of"
    return f" {count} references would decide about a deficit of this size."


def _points(share: float) -> str:
    return f"{100 * share:z.2f}"


# Its figures are never paired: what a repair costs is utility's matter.
INDISCRIMINATE = Reading(
    name="indiscriminate",
    title="Indiscriminate damage",
    question="How much accuracy is missing against a model that never saw the poison?",
    needs="a reference",
    words=Words(
        title="Indiscriminate",
        unit="points below the reference",
        samples="test samples",
        needs="A reference: a model trained without the forget set.",
        looks="accuracy lost to the poison",
        means="Accuracy missing against the references",
        axis="accuracy, points below the reference",
        column="deficit",
        alert="IndiscriminatePoison",
        step="Repairs seldom win the accuracy back: retraining does.",
        found="The model is less accurate than one that never saw the poison.",
        how="On the same clean test samples the model answers fewer correctly than the "
        "references, which were trained without the forget set.",
    ),
    evidence=Missed,
    estimate=lambda seen, level, tolerance: statistics.rates.deficit(
        seen.against, n=seen.n, level=level, tolerance=tolerance
    ),
    details=_details,
    remark=_remark,
    tolerance=0.01,
    points=True,
    if_named=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `plant --attack indiscriminate` takes of its own."""

    flip: Annotated[str | None, Option("class A is to be taken for B.", metavar="A:B")] = None
    steps: Annotated[
        int | None,
        Option("steps of crafting; 0: exact copies, labels flipped.", shown="60; of texts 0"),
    ] = None
    model: Annotated[Path | None, Option("a clean model to craft with.", on=PICTURES)] = None


_FLIP = "a class and what it is to be taken for"
POISON = Poison(
    name="indiscriminate",
    readings=(INDISCRIMINATE,),
    planting=Planting(
        options=Options,
        share=0.1,
        needs=(
            Need(
                "model",
                "a clean model to craft with",
                "`poison-audit train` makes one",
                on=PICTURES,
                unless=lambda options: options.steps == 0,
            ),
            Need(
                "flip",
                _FLIP,
                "For example --flip 8:3",
                on=PICTURES,
                unless=lambda options: options.steps != 0,
            ),
            Need("flip", _FLIP, "For example --flip 0:1", on=TEXTS),
        ),
    ),
)
