"""What is free JSON in a record, and shown whatever it holds: cut, so that no page is endless.

What is read of it has the form that this tool writes, or a report is refused (verdict.forms).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from poison_audit.records import Cell, Json, Step
from poison_audit.verdict.record import AuditRecord

DEEPEST = 12
"""Levels of lists and objects that are shown; deeper ones are cut."""
FARTHEST = 1e9
"""Largest number that any probe could write, and that a chart can be drawn with."""


def sound(record: AuditRecord) -> AuditRecord:
    """Return the record with what is free JSON, and shown whole, cut to `DEEPEST` levels."""
    of = record.rehearsal
    return replace(
        record,
        subject={str(k): shallow(v) for k, v in record.subject.items()},
        environment={str(k): shallow(v) for k, v in record.environment.items()},
        plan=replace(
            record.plan,
            methods=tuple(map(_step, record.plan.methods)),
            probes=tuple(map(_step, record.plan.probes)),
            hypotheses=tuple(map(_step, record.plan.hypotheses)),
        ),
        cells=tuple(map(_cell, record.cells)),
        rehearsal=None if of is None else replace(of, cells=tuple(map(_cell, of.cells))),
    )


def drawable(*numbers: float | None, most: float = FARTHEST) -> bool:
    """Say whether a chart can be drawn with these numbers, all of them at most `most` in size.

    >>> drawable(0.5, -3.0), drawable(None), drawable(1e300)
    (True, False, False)
    """
    return all(number is not None and abs(number) <= most for number in numbers)


def is_number(value: Json) -> bool:
    """Say whether a value is a number that some probe could have written."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and abs(value) <= FARTHEST


def shallow(plain: Json, deepest: int = DEEPEST) -> Json:
    """Return a JSON value with everything below so many levels cut.

    >>> shallow([1, [2, [3]]], 2)
    [1, [2, '...']]
    """
    if not isinstance(plain, list | tuple | Mapping):
        return plain
    if deepest == 0:
        return "..."
    if isinstance(plain, Mapping):
        return {str(key): shallow(item, deepest - 1) for key, item in plain.items()}
    return [shallow(item, deepest - 1) for item in plain]


def _cell(cell: Cell) -> Cell:
    return cell if cell.method is None else replace(cell, method=_step(cell.method))


def _step(step: Step) -> Step:
    return replace(step, params={str(k): shallow(v) for k, v in step.params.items()})
