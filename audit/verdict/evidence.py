"""The evidence of a report that somebody gives, read before any of it is judged."""

from __future__ import annotations

from poison_audit.errors import Problem, Problems
from poison_audit.verdict.readings import reading_of
from poison_audit.verdict.record import AuditRecord


def wrong_evidence(record: AuditRecord) -> list[Problem]:
    """Return what is wrong with the form of a report's measurements, each with its place."""
    problems = Problems()
    cells = [(f"cells[{i}]", cell) for i, cell in enumerate(record.cells)]
    if record.rehearsal is not None:
        cells += [(f"rehearsal.cells[{i}]", c) for i, c in enumerate(record.rehearsal.cells)]
    for place, cell in cells:
        for number, seen in enumerate(cell.measurements):
            if seen.evidence is not None:
                where = f"{place}.measurements[{number}].evidence: {seen.probe}"
                with problems.collecting():
                    reading_of(seen.probe).read(seen.evidence, where)
    return problems
