"""Indiscriminate poison: what the numbers of its probe mean. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from poison_audit.case.planting import PICTURES, TEXTS, Need, Option, Planting
from poison_audit.case.poison import Poison
from poison_audit.statistics.reading import Reading

INDISCRIMINATE = Reading(
    name="indiscriminate",
    title="Indiscriminate damage",
    question="How much accuracy is missing against a model that never saw the poison?",
    needs="a reference",
    tolerance=0.01,
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
