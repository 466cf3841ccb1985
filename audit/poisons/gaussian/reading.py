"""Gaussian canaries: what the numbers of its probes mean. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from poison_audit.case.planting import TEXTS, Option, Planting
from poison_audit.case.poison import EvidenceFile, Poison
from poison_audit.statistics.reading import Reading

GAUSSIAN = Reading(
    name="gaussian",
    title="Gaussian correlation",
    question="Does the loss still fall along the noise the canaries were planted with?",
    needs="canaries.json",
    tolerance=0.25,
    most=math.inf,
)
EXPOSURE = Reading(
    name="exposure",
    title="Exposure",
    question="Does the model prefer the planted noise to fresh noise?",
    needs="canaries.json",
    tolerance=0.57,
    least=0.5,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `plant --attack gaussian` takes of its own."""

    sigma: Annotated[
        float | None,
        Option("sd of the noise.", shown="in pixels 0.2; in embeddings theirs; that of --key"),
    ] = None
    key: Annotated[
        Path | None, Option("canaries.json (or strings.json) whose secret is used again.")
    ] = None
    model: Annotated[
        tuple[Path, ...] | None, Option("folder of the model that is to be trained.", on=TEXTS)
    ] = None
    max_tokens: Annotated[
        int | None,
        Option("tokens of an input.", shown="all it takes", on=TEXTS, of_model=True),
    ] = None
    prompt: Annotated[
        str | None,
        Option("what the model is given, with {text} in it.", on=TEXTS, of_model=True),
    ] = None


POISON = Poison(
    name="gaussian",
    readings=(GAUSSIAN, EXPOSURE),
    files=(
        EvidenceFile(
            name="canaries",
            help="Key of a Gaussian planting (canaries.json).",
            file="canaries.json",
            asked=True,
        ),
        EvidenceFile(
            name="bases",
            help="Table of the clean samples canaries were made from.",
            file="bases",
            of="pictures",
            asked=True,
        ),
    ),
    keyed=True,
    planting=Planting(options=Options, share=0.05),
)
