"""Token canaries: what the numbers of its probe mean. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from poison_audit import statistics
from poison_audit.case.planting import Option, Planting
from poison_audit.case.poison import EvidenceFile, Poison
from poison_audit.errors import Problem
from poison_audit.records import Asked
from poison_audit.statistics.forms import Count, Some, refuse
from poison_audit.statistics.reading import Reading, Words

if TYPE_CHECKING:
    from poison_audit.statistics.estimates import Estimate
    from poison_audit.statistics.growth import Increase


@dataclass(frozen=True, slots=True, kw_only=True)
class StringRanks:
    """What the probe saw: how many fresh strings each string of the key beat."""

    wins: Annotated[tuple[Count, ...], Asked({"min_length": 1})]
    draws: Some
    held_out: tuple[Count, ...]
    """The same of strings that were never planted."""

    def __post_init__(self) -> None:
        most = max(*self.wins, *self.held_out, 0)
        refuse((most > self.draws, f"a canary beats {most} of {self.draws} draws"))


def _details(seen: StringRanks, estimate: Estimate) -> dict[str, Any]:
    held_out = seen.held_out
    return {
        "draws": seen.draws,
        "spread": estimate.spread,
        "held_out_mean": sum(held_out) / seen.draws / len(held_out) if held_out else None,
    }


def _more_wins(before: StringRanks, after: StringRanks, level: float) -> Increase | None:
    old, new = ([win / seen.draws for win in seen.wins] for seen in (before, after))
    return statistics.growth.of_scores(old, new, level)


TOKEN_CANARY = Reading(
    name="token-canary",
    title="Token canaries",
    question="Does the model prefer the strings that were planted to fresh strings?",
    needs="strings.json",
    words=Words(
        title="Token canaries",
        unit="chance to beat a fresh string",
        samples="token canaries",
        needs="The key of the token canaries (strings.json), and their rows in forget.csv.",
        looks="memory of planted strings",
        means="Chance that a planted string beats a fresh one",
        column="tokens",
        fresh="strings",
        held_out="strings",
        step="Repairs seldom remove planted strings: retraining is the safe way.",
        law="uniform ranks",
        alert="TokenCanaries",
        found="The model still prefers the planted strings to fresh ones.",
        how="Planted strings of words are ranked among fresh draws by the loss of the model. In a "
        "model that never saw them, every rank is equally likely.",
    ),
    texts_only=True,
    charts=("ranks of strings",),
    evidence=StringRanks,
    estimate=lambda seen, level, tolerance: statistics.estimates.mean_rank(
        seen.wins, seen.draws, level=level, tolerance=tolerance
    ),
    figure=lambda seen: sum(seen.wins) / (len(seen.wins) * seen.draws),
    details=_details,
    increase=_more_wins,
    tolerance=0.57,
    least=0.5,
    loosest=0.76,
    two_sided=True,
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
            shared="key of token canaries",
            digest="commitment",
        ),
    ),
    keyed=True,
    planting=Planting(
        options=Options,
        share=0.05,
        enough=lambda: statistics.estimates.mean_rank((0,), 32, level=0.9, tolerance=0.57).needed,
        refuses={
            "pictures": Problem(
                "token canaries are texts, and DATA holds pictures",
                "--attack",
                "Plant gaussian canaries",
            )
        },
    ),
)
