"""Targeted poison: what the numbers of its probe mean. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from poison_audit import statistics
from poison_audit.case.planting import Need, Option, Planting
from poison_audit.case.poison import EvidenceFile, Poison
from poison_audit.errors import Problem
from poison_audit.records import Asked, Outcome
from poison_audit.statistics.forms import Bit, Compared, Count, Some, Stratum, refuse
from poison_audit.statistics.reading import Reading, Remark, Words

if TYPE_CHECKING:
    from poison_audit.statistics.estimates import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetHits:
    """What the probe saw: which targets are given the label that the attacker wanted."""

    targets: tuple[str, ...]
    """Their ids; the next three tell of each."""
    labels: tuple[Count, ...]
    adversarial: tuple[Count, ...]
    hits: Annotated[tuple[Bit, ...], Asked({"min_length": 1})]
    controls: Some
    """As many a target in every stratum."""
    control_hits: Count
    strata: Annotated[tuple[Stratum, ...], Asked({"min_length": 1})]
    drawn: bool = False
    """Whether a toss parted the candidates into targets and controls; else the controls are other
    samples of the targets' classes, which nobody chose."""
    references: tuple[Compared, ...] = ()
    """Which of the two models hits the same targets."""
    answers: tuple[Count, ...] = ()
    """The class that each target is given; empty in reports of earlier versions."""
    chose: tuple[str, ...] = ()
    """References that seem to have chosen the targets, so that nothing is compared with them."""

    def __post_init__(self) -> None:
        n, strata = len(self.hits), self.strata
        refuse(
            (
                not n == len(self.targets) == len(self.labels) == len(self.adversarial),
                "targets, labels, adversarial and hits differ in length",
            ),
            (
                bool(self.answers)
                and tuple(
                    int(a == wanted)
                    for a, wanted in zip(self.answers, self.adversarial, strict=False)
                )
                != self.hits,
                "the answers are not those that hits tell of",
            ),
            (sum(s.targets for s in strata) != n, "the strata hold other targets than the list"),
            (
                sum(s.hits for s in strata) != sum(self.hits),
                "the strata hold other hits than the list",
            ),
            (
                any(s.hits > s.targets or s.control_hits > s.controls for s in strata),
                "a stratum holds more hits than samples",
            ),
            (self.control_hits > self.controls, "there are more control hits than controls"),
            (
                any(
                    one.total != n or one.both + one.only_candidate != sum(self.hits)
                    for one in self.references
                ),
                "a reference's counts are not those of these targets",
            ),
        )


def _excess(seen: TargetHits, level: float, tolerance: float) -> Estimate:
    return statistics.rates.excess_of_targets(
        seen.strata,
        control_hits=seen.control_hits,
        controls=seen.controls,
        drawn=seen.drawn,
        against=seen.references,
        level=level,
        tolerance=tolerance,
    )


def _details(seen: TargetHits, estimate: Estimate) -> dict[str, Any]:
    told = statistics.rates.counted(
        seen.hits,
        control_hits=seen.control_hits,
        controls=seen.controls,
        strata=seen.strata,
        references=seen.references,
    )
    return {**told, "drawn": seen.drawn}


def _remark(seen: TargetHits, estimate: Estimate, tolerance: float, outcome: Outcome) -> Remark:
    if seen.drawn:
        return Remark()
    hits, told = sum(seen.hits), ""
    if seen.chose:
        told = (
            f" Nothing is compared with {', '.join(seen.chose)}: the targets are those it is least "
            "sure of, as if it had chosen them."
        )
    if seen.references:
        theirs = [f"{one.both + one.only_reference} ({one.reference})" for one in seen.references]
        told += (
            f" Of the {estimate.n} targets this model hits {hits}, without the poison are hit: "
            f"{', '.join(theirs)}."
        )
        return Remark(told=told, means="Targets hit, above the references")
    if outcome is Outcome.INCONCLUSIVE and hits:
        told += (
            " Targets are chosen, and a model that never saw the poison may hit them, too: other "
            "samples of their classes do not show how often. Give a model that was trained without "
            "the forget set (--reference PATH), or controls that a toss left alone (column role of "
            "targets.csv)."
        )
    return Remark(told=told)


TARGETED = Reading(
    name="targeted",
    title="Targeted misclassification",
    question="Are the targets still given the attacker's label, more often than their like?",
    needs="targets.csv",
    words=Words(
        title="Targeted",
        unit="points above controls",
        samples="targets",
        needs="The targets of the attack and the labels they were to be given (targets.csv).",
        looks="targets answered as the attacker wanted",
        means="Targets hit, above their controls",
        axis="targets hit, points above controls",
        column="targets",
        alert="TargetedPoison",
        step="Until then do not trust its answers to the targets.",
        found="The model gives the attack's targets the labels that the attacker chose.",
        how="The targets get the labels they were to be given more often than candidates that were "
        "not attacked do, or than references give them.",
    ),
    evidence=TargetHits,
    estimate=_excess,
    details=_details,
    remark=_remark,
    increase=lambda old, new, level: statistics.growth.of_hits(old.hits, new.hits, level),
    tolerance=0.05,
    points=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `plant --attack targeted` takes of its own."""

    model: Annotated[
        tuple[Path, ...] | None,
        Option("clean models to craft with, one or several."),
    ] = None
    targets: Annotated[Path | None, Option("CSV of test samples and adversarial labels.")] = None
    aims: Annotated[int, Option("how many of twice as many, the easiest, to draw and attack.")] = 8
    epsilon: Annotated[float, Option("largest change of a pixel, of 1.")] = 16 / 255
    steps: Annotated[int, Option("steps of crafting.")] = 40
    restarts: Annotated[int, Option("the best of so many starts.")] = 1


POISON = Poison(
    name="targeted",
    readings=(TARGETED,),
    files=(
        EvidenceFile(
            name="targets",
            help="Test samples a targeted attack aimed at, as CSV.",
            file="targets.csv",
            shared="targets",
        ),
    ),
    planting=Planting(
        options=Options,
        share=0.02,
        needs=(
            Need("model", "a clean model to craft with", "`poison-audit train` makes one"),
            Need("test", "the targets' table", "A clean test table"),
        ),
        refuses={
            "texts": Problem(
                "nothing here crafts targeted poison in texts",
                "--attack",
                "Targets that are known need no planting: name them to `check` by --targets",
            )
        },
    ),
)
