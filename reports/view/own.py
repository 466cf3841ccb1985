"""Probes of the user's own in words, apart from what this tool vouches for."""

from __future__ import annotations

from dataclasses import dataclass

from poison_audit.checks.own import OWN
from poison_audit.records import Outcome
from poison_audit.reports.view.figure import Figure, figure
from poison_audit.reports.view.words import printable, value
from poison_audit.verdict.own import EXTRA
from poison_audit.verdict.record import AuditRecord

OWN_TITLE = "Probes of your own"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnProbe:
    """One of them."""

    name: str
    asks: str
    null: str
    """As it states it."""
    source: str
    """The function, and the digest of its source."""
    seen: tuple[tuple[str, Figure], ...]
    """(candidate, figure) of every finding."""

    @property
    def lines(self) -> tuple[str, ...]:
        """What it found, a line each."""
        return tuple(f"{who}: {shown.outcome}. {shown.reason}" for who, shown in self.seen)


def own_probes(record: AuditRecord) -> tuple[OwnProbe, ...]:
    """Return what probes of the user's own found."""
    return tuple(
        OwnProbe(
            name=printable(step.name),
            asks=value(step.params.get("asks")),
            null=value(step.params.get("null")),
            source=f"{value(step.params.get('function'))}, SHA-256 of its source "
            f"{value(step.params.get('sha256'))}",
            seen=tuple(
                (f"{printable(f.candidate)}{f', seed {f.seed}' * bool(f.seed)}", figure(f))
                for f in record.findings
                if f.probe == f"{OWN}{step.name}"
            ),
        )
        for step in record.plan.own
    )


def own_told(record: AuditRecord) -> str:
    """Return what they add to the chance of a wrong finding; empty where nothing of it counts."""
    found = {f.probe for f in record.findings if f.outcome is Outcome.RESIDUAL and f.gating}
    if not any(probe.startswith(OWN) for probe in found):
        return ""
    more = f"{100 * EXTRA * record.plan.policy.alpha:g} in 100"
    return f"Probes of your own add {more} to that, and only if the nulls that they state hold."
