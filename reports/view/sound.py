"""What a record holds beside its typed fields, kept only where it has the form that probes write.

A report.json may be anybody's. Its details, movements and environment are free JSON: what is of
another form than expected is left out here, once, so that nothing that shows a record has to ask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from poison_audit.records import Cell, Finding, Json, Rehearsal, Step
from poison_audit.verdict.record import AuditRecord

DEEPEST = 12
"""Levels of lists and objects that are shown; deeper ones are cut."""
FARTHEST = 1e9
"""Largest number that any probe could write, and that a chart can be drawn with."""

_Fits = Callable[[Json], bool]


def sound(record: AuditRecord) -> AuditRecord:
    """Return the record without what has not the form that this tool writes."""
    rehearsal = record.rehearsal
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
        cells=tuple(_cell(cell) for cell in record.cells),
        findings=tuple(_finding(finding) for finding in record.findings),
        rehearsal=None if rehearsal is None else _rehearsal(rehearsal),
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


def _step(step: Step) -> Step:
    return replace(step, params={str(k): shallow(v) for k, v in step.params.items()})


def _finding(finding: Finding) -> Finding:
    return replace(finding, details=_kept(finding.details, _DETAILS))


def _cell(cell: Cell) -> Cell:
    movement = None if cell.movement is None else _kept(cell.movement, _MOVEMENT)
    return replace(
        cell, movement=movement, method=None if cell.method is None else _step(cell.method)
    )


def _rehearsal(rehearsal: Rehearsal) -> Rehearsal:
    return replace(
        rehearsal,
        cells=tuple(_cell(cell) for cell in rehearsal.cells),
        findings=tuple(_finding(finding) for finding in rehearsal.findings),
    )


def _kept(plain: Mapping[str, Json], form: Mapping[str, _Fits]) -> dict[str, Json]:
    return {key: plain[key] for key, fits in form.items() if key in plain and fits(plain[key])}


def _count(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= FARTHEST


def _text(value: Json) -> bool:
    return isinstance(value, str)


def _texts(value: Json) -> bool:
    return isinstance(value, Mapping) and all(map(_text, value.values()))


def _list(fits: _Fits) -> _Fits:
    return lambda value: isinstance(value, list | tuple) and all(map(fits, value))


def _pair(value: Json) -> bool:
    return _list(is_number)(value) and len(value) == 2


def _perhaps(value: Json) -> bool:
    return value is None or is_number(value)


def _object(*numbers: str, **more: _Fits) -> _Fits:
    form = {**dict.fromkeys(numbers, is_number), **more}
    return lambda value: (
        isinstance(value, Mapping) and all(fits(value.get(key)) for key, fits in form.items())
    )


def _reference(value: Json) -> bool:
    """Say whether this is one reference of the backdoor probe, or of the indiscriminate one."""
    named = _object(reference=_text, rate=_perhaps, deficit=_perhaps, low=_perhaps, high=_perhaps)(
        value
    )
    return named and any(value.get(key) is not None for key in ("rate", "deficit"))


_BAND = _object("mean", "low", "high")


def _network(value: Json) -> bool:
    """Say whether this was measured of the whole network, or says that nothing was."""
    if not isinstance(value, Mapping) or value.get("share") is None:
        return isinstance(value, Mapping)
    told = _object("share", "share_low", "share_high", "rank", "gradients", sketched_share=_perhaps)
    return told(value) and (value.get("random") is None or _BAND(value["random"]))


_DETAILS: Mapping[str, _Fits] = {
    **dict.fromkeys(
        ("tpr", "tpr_low", "tpr_high", "fpr", "held_out_mean", "held_out_p", "spread"), is_number
    ),
    **{
        f"{name}{end}": is_number
        for name in ("rate", "control_rate", "clean_rate", "accuracy")
        for end in ("", "_low", "_high")
    },
    **dict.fromkeys(("deployed_accuracy", "control_mean", "control_sd", "control_max"), is_number),
    **dict.fromkeys(
        ("dropped", "draws", "hits", "targets", "control_hits", "control_inputs"), _count
    ),
    "controls": lambda value: _count(value) or _text(value),
    "references": _list(_reference),
    **dict.fromkeys(("fractions", "poison_l1"), _list(is_number)),
    **dict.fromkeys(("random_l1_mean", "random_l1_low", "random_l1_high"), _list(_perhaps)),
    **dict.fromkeys(
        ("share", "random_share_mean", "random_share_low", "random_share_high"), is_number
    ),
    "direction_share": _BAND,
    "network": _network,
    "network_missing": _text,
}
"""What the details of a finding hold, of whatever probe."""

_MOVEMENT: Mapping[str, _Fits] = {
    **dict.fromkeys(("moved_l2", "distance_l2", "covered", "aligned", "apart"), is_number),
    **dict.fromkeys(("distance_l2_range", "covered_range", "aligned_range"), _pair),
    "references": _count,
    "missing": _texts,
    "sentence": _text,
}
"""What is shown of a method's movement."""
