"""Mislabelled poison: what the numbers of its probe mean. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from poison_audit import statistics
from poison_audit.case.planting import Option, Planting
from poison_audit.case.poison import Poison
from poison_audit.records import Asked, Outcome
from poison_audit.statistics.forms import Bit, Compared, Count, Some, Stratum, refuse
from poison_audit.statistics.reading import Reading, Remark, Words

if TYPE_CHECKING:
    from poison_audit.statistics.estimates import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongAnswers:
    """What the probe saw: which samples are given the wrong label that they were trained with."""

    hits: Annotated[tuple[Bit, ...], Asked({"min_length": 1})]
    """One a sample."""
    right: Count
    """How many are given their true label."""
    strata: Annotated[tuple[Stratum, ...], Asked({"min_length": 1})]
    """By true class."""
    controls: Some
    """As many a sample in every class."""
    control_hits: Count
    chance: bool = False
    """Whether chance decided which samples were given a wrong label."""
    references: tuple[Compared, ...] = ()
    """Which of the two models gives the wrong label to the same samples."""

    def __post_init__(self) -> None:
        n, hits, strata = len(self.hits), sum(self.hits), self.strata
        refuse(
            (self.right + hits > n, "there are more answers than samples"),
            (sum(s.targets for s in strata) != n, "the classes hold other samples than the list"),
            (sum(s.hits for s in strata) != hits, "the classes hold other hits than the list"),
            (
                any(s.hits > s.targets or s.control_hits > s.controls for s in strata),
                "a class holds more hits than samples",
            ),
            (self.control_hits > self.controls, "there are more control hits than controls"),
            (
                any(one.total != n or one.both + one.only_candidate != hits
                    for one in self.references),
                "a reference's counts are not those of these samples",
            ),
        )  # fmt: skip


def _excess(seen: WrongAnswers, level: float, tolerance: float) -> Estimate:
    def against_controls(drawn: bool) -> Estimate:
        return statistics.rates.excess_of_targets(
            seen.strata,
            control_hits=seen.control_hits,
            controls=seen.controls,
            drawn=drawn,
            against=() if drawn else seen.references,
            level=level,
            tolerance=tolerance,
        )

    alone = against_controls(drawn=False)
    if seen.references or not seen.chance:
        return alone
    # Wrong labels that were learned as a rule are given to the controls as well: they may find,
    # and not clear.
    return replace(against_controls(drawn=True), high=alone.high, needed=alone.needed)


def _details(seen: WrongAnswers, estimate: Estimate) -> dict[str, Any]:
    told = statistics.rates.counted(
        seen.hits,
        control_hits=seen.control_hits,
        controls=seen.controls,
        strata=seen.strata,
        references=seen.references,
    )
    return {**told, "right": seen.right, "chance": seen.chance}


def _remark(seen: WrongAnswers, estimate: Estimate, tolerance: float, outcome: Outcome) -> Remark:
    hits, n = sum(seen.hits), estimate.n
    told = f" Of the {n:,} samples {hits:,} get the wrong label, {seen.right:,} their true one."
    if seen.references:
        theirs = [f"{one.both + one.only_reference:,} ({one.reference})" for one in seen.references]
        told += f" Models that never saw the wrong labels give them to {', '.join(theirs)}."
        return Remark(told=told, means="Wrong labels given, above the references")
    if outcome is Outcome.INCONCLUSIVE and hits:
        told += (
            " Without a reference a model passes only if it hardly gives the wrong labels at all."
            if seen.chance
            else " Samples are often mislabelled because they are unclear, and a model that never "
            "saw the wrong labels may give them, too."
        )
        told += " Give a model that was trained without the forget set (--reference PATH)"
        told += "." if seen.chance else ", or say that chance chose them (column chosen: chance)."
    return Remark(told=told)


MISLABELLED = Reading(
    name="mislabelled",
    title="Wrong labels",
    question="Does the model still give samples the wrong label that it was trained with?",
    needs="the true labels of forget samples",
    words=Words(
        title="Mislabelled",
        unit="points above controls",
        samples="mislabelled samples",
        needs="The true labels of forget samples (column clean_label of forget.csv).",
        looks="wrong labels that are still given",
        means="Wrong labels given, above test samples of the same true class",
        axis="wrong labels given, points above controls",
        column="labels",
        alert="MislabelledPoison",
        step="Or correct the labels of these samples, and retrain.",
        found="The model still gives samples the wrong labels that it was trained with.",
        how="Samples whose true label is known get their wrong label more often than references "
        "give it to them, or than test samples of the same true class get it.",
    ),
    evidence=WrongAnswers,
    estimate=_excess,
    details=_details,
    remark=_remark,
    increase=lambda old, new, level: statistics.growth.of_hits(old.hits, new.hits, level),
    tolerance=0.05,
    points=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `plant --attack mislabelled` takes of its own."""

    flip: Annotated[
        str | None,
        Option("samples of class A are labelled B.", metavar="A:B", shown="any class as any other"),
    ] = None


POISON = Poison(
    name="mislabelled",
    readings=(MISLABELLED,),
    planting=Planting(options=Options, share=0.05),
)
