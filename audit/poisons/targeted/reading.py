"""Targeted poison: what the numbers of its probe mean. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from poison_audit.case.planting import Need, Option, Planting
from poison_audit.case.poison import EvidenceFile, Poison
from poison_audit.errors import Problem
from poison_audit.statistics.reading import Reading

TARGETED = Reading(
    name="targeted",
    title="Targeted misclassification",
    question="Are the targets still given the attacker's label, more often than their like?",
    needs="targets.csv",
    tolerance=0.05,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `plant --attack targeted` takes of its own."""

    model: Annotated[
        tuple[Path, ...] | None,
        Option("clean models to craft with, one or several."),
    ] = None
    targets: Annotated[Path | None, Option("CSV of test samples and adversarial labels.")] = None
    aims: Annotated[int, Option("how many targets to choose, the easiest.")] = 8
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
