"""Indiscriminate poison: what the numbers of its probe mean. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from poison_audit import statistics
from poison_audit.case.planting import PICTURES, TEXTS, Need, Option, Planting
from poison_audit.case.poison import Poison
from poison_audit.records import Asked
from poison_audit.statistics.forms import Compared, Some, refuse
from poison_audit.statistics.reading import Reading, Words

if TYPE_CHECKING:
    from poison_audit.statistics.estimates import Estimate


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
        one = statistics.rates.deficit([counts], n=n, level=estimate.level, tolerance=1.0)
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
    return {
        **statistics.estimates.exact_rate("accuracy", first.both + first.only_candidate, n),
        "references": references,
    }


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
        looks="accuracy missing against a model that never saw the poison",
        means="The accuracy missing against the references",
        axis="accuracy, points below the reference",
        column="deficit",
        alert="IndiscriminatePoison",
        found="The model is less accurate than one that never saw the poison.",
        how="On the same clean test samples the model answers fewer correctly than the "
        "references, which were trained without the forget set.",
    ),
    evidence=Missed,
    estimate=lambda seen, level, tolerance: statistics.rates.deficit(
        seen.against, n=seen.n, level=level, tolerance=tolerance
    ),
    details=_details,
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
