"""What is free JSON in a record: odd values are refused, or they stop no page."""

import json
from dataclasses import replace

import pytest

from builders.audits import small_audit
from builders.more_records import ALL, explained
from builders.some_records import residual
from builders.text_records import texts
from poison_audit.atomic import from_json, to_json
from poison_audit.errors import InputError
from poison_audit.reports.view.view import view
from poison_audit.reports.view.words import shallow
from poison_audit.verdict.forms import wrong_forms
from poison_audit.verdict.record import AuditRecord

ODD = ("x", [], {"a": 1}, 1e300, -5, True, [[1]], 10**40)


def shown_or_refused(record):
    """Whether a record is shown; if not, it is refused where it is read."""
    if wrong_forms(record):
        return False
    view(record)
    return True


def test_what_probes_write_is_kept():
    for record in (small_audit(), *(make() for make in ALL.values())):
        assert wrong_forms(record) == []
        assert shallow(record.subject) == record.subject


def test_what_was_cut_stays_so():
    once = shallow({"a": [[[["x"]]]], "b": {"c": {"d": 1}}}, 3)
    assert once == {"a": [["..."]], "b": {"c": {"d": 1}}}
    assert shallow(once, 3) == once


def test_a_number_that_is_none_is_refused():
    (finding, *_) = residual().findings
    for odd in ("0.15", None, True, 1e300, [0.15]):
        broken = replace(finding, details={**finding.details, "tpr": odd})
        (problem,) = wrong_forms(replace(residual(), findings=(broken,)))
        assert problem.where == "findings[0].details.tpr"


def places(plain, at=()):
    """Where free JSON stands: a path for each key, of lists the first item."""
    if isinstance(plain, dict):
        for key, item in plain.items():
            yield (*at, key)
            yield from places(item, (*at, key))
    elif isinstance(plain, list) and plain:
        yield from places(plain[0], (*at, 0))


def replaced(plain, path, odd):
    if not path:
        return odd
    key, *rest = path
    if isinstance(plain, dict):
        return {**plain, key: replaced(plain[key], rest, odd)}
    return [replaced(plain[0], rest, odd), *plain[1:]]


@pytest.mark.parametrize("make", [explained, texts])
def test_odd_values_stop_no_view(make):
    record = make()
    record = replace(record, cells=record.cells[:2], findings=record.findings[:8])
    record = replace(
        record, findings=(*record.findings, *(f for f in make().findings if f.probe in WHY))
    )
    plain = json.loads(to_json(record))
    tried = 0
    for number, finding in enumerate(plain["findings"]):
        for path in places(finding["details"]):
            for odd in ODD:
                whole = replaced(finding["details"], path, odd)
                if isinstance(whole, dict):
                    changed = list(record.findings)
                    changed[number] = replace(changed[number], details=whole)
                    shown_or_refused(replace(record, findings=tuple(changed)))
                    tried += 1
    for path in places(plain["subject"]):
        for odd in ODD:
            shown_or_refused(replace(record, subject=replaced(plain["subject"], path, odd)))
            tried += 1
    assert tried > 200


WHY = ("shift", "orthogonality")


@pytest.mark.parametrize("odd", ODD)
def test_odd_movements_stop_no_view(odd):
    record = explained()
    for cell in record.cells:
        for key in cell.movement or ():
            broken = replace(cell, movement={**cell.movement, key: odd})
            shown_or_refused(replace(record, cells=(broken,)))


def test_depth_is_bounded():
    def nested(depth):
        deep = "x"
        for _ in range(depth):
            deep = [deep]
        return replace(residual(), environment={"a": deep}, subject={"b": {"c": deep}})

    with pytest.raises(InputError, match="not JSON"):
        from_json(AuditRecord, to_json(nested(400)))
    record = from_json(AuditRecord, to_json(nested(150)))
    told = {term: text for group in view(record).facts for term, text in group.pairs}
    assert told["a"] == "..."
    assert shallow({"a": {"b": 1}}, 1) == {"a": "..."}
