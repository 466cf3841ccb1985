"""Probes of a user's own: what their numbers mean, whoever wrote them. No torch.

Such a probe gives a score for each of some samples that the poison should have marked, and beside
each score those of as many controls. Its stated null is that in a model that never saw the poison a
score and its controls are exchangeable, and the rows independent. Then each rank is uniform, and
the figure, the chance that a score lies above a control, is 0.5. Ties count as not above, so that
they can only make less of what is found.

Everything here carries `own:` before its name, and nothing that does can clear a model: its reading
measures no residue, and has no tolerance that a policy could change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from poison_audit import statistics
from poison_audit.records import Asked
from poison_audit.statistics.forms import Count, Some, refuse
from poison_audit.statistics.reading import Reading, Words

OWN = "own:"
"""Before the names of these probes."""
TOLERATED = 0.57
"""Largest chance that is tolerated: that of exposure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """What such a probe saw: how many of its controls each score lies above."""

    wins: Annotated[tuple[Count, ...], Asked({"min_length": 1})]
    draws: Some
    """Controls of each."""

    def __post_init__(self) -> None:
        most = max(self.wins)
        refuse((most > self.draws, f"a score lies above {most} of {self.draws} controls"))


def is_own(probe: str) -> bool:
    """Return whether a probe is of a user's own."""
    return probe.startswith(OWN)


def own_reading(probe: str) -> Reading[Any]:
    """Return what the numbers of a probe of a user's own mean."""
    name = probe.removeprefix(OWN)
    return Reading(
        name=probe,
        title=f"{name} (your own)",
        question="What you wrote it to ask.",
        needs="what you wrote it to need",
        words=Words(
            title=f"{name} (your own)",
            unit="chance to score above controls",
            samples="scores",
            needs="A function that gives scores and controls.",
            looks=f"what your own probe {name} looks for",
            means="Chance that a score lies above a control",
            alert="OwnProbe",
        ),
        evidence=Ranked,
        estimate=lambda seen, level, tolerance: statistics.estimates.mean_rank(
            seen.wins, seen.draws, level=level, tolerance=tolerance
        ),
        residue=False,
    )
