"""Reports of one model over time: which of them can be compared, and what each found.

Comparable are those of one comparability hash (`verdict.compare`): the same evidence, asked the
same way and judged by the same tolerances. Only their figures stand in one chart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from poison_audit.records import Finding
from poison_audit.reports.view.figure import TONES, figure
from poison_audit.reports.view.machine import exit_line, started
from poison_audit.reports.view.words import about, printable, value
from poison_audit.verdict.compare import comparability
from poison_audit.verdict.readings import READINGS
from poison_audit.verdict.record import AuditRecord

SHOWN = tuple(name for name, each in READINGS.items() if each.residue and each.tolerance)
"""The probes that have a strip: those of what is left of poison."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One report."""

    file: str
    when: str
    """`YYYY-MM-DD hh:mm`, in UTC."""
    model: str
    digest: str
    """The first letters of the deployed weights' SHA-256."""
    outcome: str
    tone: str
    exit_line: str
    found: tuple[Finding | None, ...]
    """Of the deployed model as it stands, in the order of `Group.probes`; None: not measured."""

    @property
    def figures(self) -> tuple[str, ...]:
        """Each finding on a line."""
        return tuple("not measured" if f is None else figure(f).text for f in self.found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Reports that can be compared, the earliest first."""

    hash: str
    probes: tuple[str, ...]
    titles: tuple[str, ...]
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Every report of a folder."""

    groups: tuple[Group, ...]
    """The one with the newest report first."""
    apart: tuple[tuple[str, str], ...]
    """Files that can be compared with none, each with the reason."""


def history(
    reports: Sequence[tuple[str, AuditRecord]], unread: Sequence[tuple[str, str]] = ()
) -> History:
    """Return the reports of one model in their order.

    Args:
        reports: (file, record).
        unread: files that are no report, each with the reason.
    """
    apart = [(printable(file), printable(why)) for file, why in unread]
    by_hash: dict[str, list[tuple[str, str, AuditRecord]]] = {}
    for file, record in reports:
        when, hashed = started(record), comparability(record)
        if record.comparability not in (None, hashed):
            told = "its comparability hash is not that of what it holds: was it edited?"
            apart.append((printable(file), told))
        elif when is None:
            apart.append((printable(file), "it does not say when the audit began"))
        else:
            by_hash.setdefault(hashed, []).append((when, file, record))
    groups = []
    for hashed, members in by_hash.items():
        members.sort(key=lambda one: one[:2])
        if len(members) > 1:
            groups.append(_group(hashed, members))
        else:
            told = f"no other report has its comparability hash, {hashed[:12]}"
            apart.append((printable(members[0][1]), told))
    groups.sort(key=lambda group: group.entries[-1].when, reverse=True)
    return History(groups=tuple(groups), apart=tuple(sorted(apart)))


def _group(hashed: str, members: Sequence[tuple[str, str, AuditRecord]]) -> Group:
    every = [_deployed(record) for _, _, record in members]
    probes = tuple(name for name in SHOWN if any(name in found for found in every))
    entries = tuple(
        Entry(
            file=printable(file),
            when=when.replace("T", " ")[:16],
            model=value(record.subject.get("model")),
            digest=printable(str(record.subject.get("model_sha256") or "not recorded"))[:12],
            outcome=record.verdict.outcome.value,
            tone=TONES[record.verdict.outcome],
            exit_line=exit_line(record.verdict),
            found=tuple(found.get(name) for name in probes),
        )
        for (when, file, record), found in zip(members, every, strict=True)
    )
    titles = tuple(about(name).title for name in probes)
    return Group(hash=hashed, probes=probes, titles=titles, entries=entries)


def _deployed(record: AuditRecord) -> dict[str, Finding]:
    names = {c.candidate for c in record.verdict.candidates if c.kind == "deployed"}
    return {
        f.probe: f
        for f in record.findings
        if f.candidate in names and not f.way and f.statistic is not None and f.probe in SHOWN
    }
