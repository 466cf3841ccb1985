"""The search for the methods' numbers, in words."""

from __future__ import annotations

from dataclasses import dataclass

from poison_audit.case.tuning import Attempt, Tuning
from poison_audit.reports.view.words import duration, printable, value
from poison_audit.verdict.record import AuditRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """One method's search."""

    name: str
    trials: str
    spent: str
    time: str
    before: str
    """What the plan's own numbers came to."""
    after: str
    """What those that were chosen came to."""
    params: str
    """The chosen numbers that the plan does not give."""


def tuned(record: AuditRecord) -> tuple[Tuned, ...]:
    """Return each method's search in words; empty where nothing was tuned."""
    return tuple(_tuned(tuning) for tuning in record.tuning)


def _tuned(tuning: Tuning) -> Tuned:
    attempts = tuning.attempts
    first, last = attempts[0], attempts[tuning.chosen]
    changed = {k: v for k, v in last.params.items() if v != first.params.get(k)}
    failed = sum(attempt.score is None for attempt in attempts)
    return Tuned(
        name=printable(tuning.method),
        trials=f"{len(attempts):,}" + (f", {failed:,} of them failed" if failed else ""),
        spent=f"{sum(attempt.gradients for attempt in attempts):,.0f}",
        time=duration(sum(attempt.seconds for attempt in attempts)),
        before=_figures(first),
        after=_figures(last) if tuning.chosen else "the plan's own numbers",
        params=", ".join(f"{printable(k)} = {value(v)}" for k, v in changed.items()) or "none",
    )


def _figures(attempt: Attempt) -> str:
    if attempt.residue is None or attempt.lost is None:
        return f"failed: {printable(attempt.error or 'no reason given')}"
    return f"{attempt.residue:.2f} and {attempt.lost:z.2f}"
