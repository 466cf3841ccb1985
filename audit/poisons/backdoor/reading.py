"""A backdoor: what the numbers of its probe mean. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from poison_audit.case.planting import PICTURES, TEXTS, Need, Option, Planting
from poison_audit.case.poison import EvidenceFile, Poison
from poison_audit.statistics.reading import Reading

BACKDOOR = Reading(
    name="backdoor",
    title="Backdoor",
    question="Does the trigger still cause its label, more often than triggers like it?",
    needs="trigger.json",
    tolerance=0.05,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `plant --attack backdoor` takes of its own."""

    label: Annotated[str | None, Option("the label that the trigger is to cause.")] = None
    patch: Annotated[int, Option("edge of a checkerboard patch.", on=PICTURES)] = 4
    phrase: Annotated[str | None, Option("the trigger: a word or phrase.", on=TEXTS)] = None
    position: Annotated[
        Literal["start", "end"] | None, Option("where it stands.", shown="start", on=TEXTS)
    ] = None
    trigger: Annotated[Path | None, Option("your own trigger.json.")] = None
    clean_label: Annotated[bool, Option("stamp samples of the label itself.", on=PICTURES)] = False
    model: Annotated[
        Path | None,
        Option(
            "with --clean-label, a clean model that the pictures are made hard for.",
            on=PICTURES,
        ),
    ] = None
    epsilon: Annotated[float, Option("largest change of a pixel, of 1.", on=PICTURES)] = 16 / 255


_LABEL = "the label that the trigger is to cause"


def _has_trigger(options: Options) -> bool:
    return options.trigger is not None


POISON = Poison(
    name="backdoor",
    readings=(BACKDOOR,),
    files=(
        EvidenceFile(
            name="trigger",
            help="Patch or phrase of a backdoor (trigger.json).",
            file="trigger.json",
        ),
    ),
    planting=Planting(
        options=Options,
        share=0.05,
        needs=(
            Need(
                "label",
                _LABEL,
                "A class number, or a name of --names",
                on=PICTURES,
                unless=_has_trigger,
            ),
            Need("label", _LABEL, "A class number or name", on=TEXTS, unless=_has_trigger),
            Need(
                "phrase",
                "the trigger: a word or phrase",
                'For example --phrase "cf mn"',
                on=TEXTS,
                unless=_has_trigger,
            ),
        ),
    ),
)
