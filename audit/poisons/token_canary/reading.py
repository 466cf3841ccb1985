"""Token canaries: what the numbers of its probe mean. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from poison_audit.case.planting import Option, Planting
from poison_audit.case.poison import EvidenceFile, Poison
from poison_audit.errors import Problem
from poison_audit.statistics.reading import Reading

TOKEN_CANARY = Reading(
    name="token-canary",
    title="Token canaries",
    question="Does the model prefer the strings that were planted to fresh strings?",
    needs="strings.json",
    texts_only=True,
    tolerance=0.57,
    least=0.5,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `plant --attack token-canary` takes of its own."""

    key: Annotated[
        Path | None,
        Option("canaries.json (or strings.json) whose secret is used again."),
    ] = None
    length: Annotated[int | None, Option("words of one.", shown="10, or that of --key")] = None


POISON = Poison(
    name="token-canary",
    readings=(TOKEN_CANARY,),
    files=(
        EvidenceFile(
            name="strings",
            help="Key of token canaries in texts (strings.json).",
            file="strings.json",
        ),
    ),
    keyed=True,
    planting=Planting(
        options=Options,
        share=0.05,
        refuses={
            "pictures": Problem(
                "token canaries are texts, and DATA holds pictures",
                "--attack",
                "Plant gaussian canaries",
            )
        },
    ),
)
