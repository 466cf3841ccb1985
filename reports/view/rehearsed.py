"""A rehearsal in words: it judges methods on a poisoned copy, and never the deployed model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from poison_audit.records import Rehearsal
from poison_audit.reports.view.reading import of_texts
from poison_audit.reports.view.rows import Row, make_row
from poison_audit.reports.view.words import about, printable
from poison_audit.statistics.reading import Words
from poison_audit.verdict.readings import READINGS
from poison_audit.verdict.record import AuditRecord

LABEL = "REHEARSAL: it judges methods, never the deployed model"
"""Stands over everything that came out of a rehearsal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """The whole section."""

    label: str
    sentence: str
    held: str
    """Whether the copy holds the poison."""
    tone: str
    facts: tuple[tuple[str, str], ...]
    """What was planted, and how."""
    probes: tuple[Words, ...]
    rows: tuple[Row, ...]


def rehearsed(record: AuditRecord) -> Rehearsed | None:
    """Return a rehearsal in words; None where there was none."""
    seen = record.rehearsal
    if seen is None:
        return None
    named = dict.fromkeys(finding.probe for finding in seen.findings)
    probes = [name for name in READINGS if name in named]
    probes += [name for name in named if name not in READINGS]
    rows = [
        make_row(verdict, seen.cells, seen.findings, plan=record.plan, probes=probes)
        for verdict in seen.candidates
    ]
    copy: dict[str, Any] = {"kind": "poisoned copy", "budget": "made here"}
    return Rehearsed(
        label=LABEL,
        sentence=printable(seen.sentence),
        held=_held(seen),
        tone="plain" if seen.held else "unsure",
        facts=_facts(seen, texts=of_texts(record)),
        probes=tuple(map(about, probes)),
        rows=tuple(replace(row, **copy) if row.kind == "deployed" else row for row in rows),
    )


def _held(seen: Rehearsal) -> str:
    told = (
        "the canaries as firmly as ordinary training samples; their mean loss in the copy is "
        f"{seen.loss:.3g}, that of as many retain samples {seen.usual_loss:.3g}."
    )
    if seen.held:
        return f"Held: the copy holds {told}"
    return (
        f"Not held: the copy does not hold {told} A method that fails here fails all the more on a "
        "real poison; one that passes proves nothing."
    )


def _facts(seen: Rehearsal, *, texts: bool) -> tuple[tuple[str, str], ...]:
    unit = "embedding units" if texts else "pixels"
    return (
        ("Planted", f"{seen.planted:,} canaries: the forget samples, with keyed noise of our own"),
        (f"Noise, standard deviation in {unit}", f"{seen.sigma:.3g}"),
        ("Noise secret, SHA-256 (the commitment)", printable(seen.commitment)),
        ("Copy trained further", f"{seen.epochs:g} passes over the training set"),
    )
