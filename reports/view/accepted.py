"""The risks that somebody accepted: what each covers, and whether it still does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from poison_audit.records import Acceptance, Finding, Outcome
from poison_audit.reports.view.evidence import is_suspect
from poison_audit.reports.view.words import about, printable, value
from poison_audit.verdict.record import AuditRecord


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
    every = record.plan.policy.accepted
    return tuple(
        Accepted(
            what=f"{about(a.probe).title} of {printable(a.candidate)}, up to {value(a.bound)}",
            reason=printable(a.reason),
            owner=printable(a.owner),
            expires=printable(a.expires),
            state=state,
            tone=tone,
        )
        for a in every
        for state, tone in [_state(a, record)]
    )


def _state(each: Acceptance, record: AuditRecord) -> tuple[str, str]:
    found = [f for f in record.findings if (f.probe, f.candidate) == (each.probe, each.candidate)]
    decided = record.plan.policy.decided
    if decided is None or decided > each.expires:
        return f"expired on {printable(each.expires)}: it covers nothing any more", "bad"
    if not found:
        return "covers nothing: there is no such finding", "plain"
    gating = [f for f in found if f.gating]
    if not gating:
        return "not needed: the figure decides nothing", "plain"
    # Of several seeds the worst decides, so all of them have to be covered.
    uncovered = [f for f in gating if f.outcome not in (Outcome.CLEAN, Outcome.ACCEPTED)]
    if uncovered:
        return _uncovered(uncovered, record), "bad"
    if all(f.outcome is Outcome.CLEAN for f in gating):
        return "not needed: the figure is clean", "plain"
    return "covers the figure", "unsure"


def _uncovered(found: Sequence[Finding], record: AuditRecord) -> str:
    if any(f.statistic is None for f in found):
        return "does not cover it: what could not be measured is never accepted"
    if any(f.outcome is Outcome.ACTIVATED for f in found):
        return "does not cover it: an attack that was made stronger is never accepted"
    if any(is_suspect(record, f) for f in found):
        return "does not cover it: a control failed, so the figure cannot be trusted"
    return "does not suffice: the interval reaches beyond it"
