"""The risks that somebody accepted: what each covers, and whether it still does."""

from __future__ import annotations

from dataclasses import dataclass

from audit.records import Acceptance, AuditRecord, Outcome
from reports.about import about
from reports.words import printable, value


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """One accepted risk in words."""

    what: str
    """Whose figure, and up to where."""
    reason: str
    owner: str
    expires: str
    state: str
    """Whether it covers anything today."""
    tone: str


def accepted(record: AuditRecord) -> tuple[Accepted, ...]:
    """Return the acceptances of the policy in words, in its order."""
    return tuple(_one(each, record) for each in record.plan.policy.accepted)


def _one(each: Acceptance, record: AuditRecord) -> Accepted:
    state, tone = _state(each, record)
    return Accepted(
        what=f"{about(each.probe).title} of {printable(each.candidate)}, up to {value(each.bound)}",
        reason=printable(each.reason),
        owner=printable(each.owner),
        expires=printable(each.expires),
        state=state,
        tone=tone,
    )


def _state(each: Acceptance, record: AuditRecord) -> tuple[str, str]:
    found = [f for f in record.findings if (f.probe, f.candidate) == (each.probe, each.candidate)]
    decided = record.plan.policy.decided
    if decided is None or decided > each.expires:
        return "expired: it covers nothing any more", "bad"
    if any(f.outcome is Outcome.ACCEPTED for f in found):
        return "covers the figure", "unsure"
    if not found:
        return "covers nothing: there is no such finding", "plain"
    if all(f.outcome in (Outcome.CLEAN, Outcome.INFO) for f in found):
        return "not needed: the figure is clean", "good"
    if any(f.statistic is None for f in found):
        return "does not cover it: what could not be measured is never accepted", "bad"
    return "does not suffice: the figure reaches beyond it, or a control failed", "bad"
