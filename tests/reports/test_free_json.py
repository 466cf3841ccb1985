"""Whatever stands where JSON is free: a report is refused in words, or every format renders it."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from builders.more_records import ALL, explained
from builders.some_records import residual
from builders.text_records import texts
from poison_audit.atomic import from_json, to_json
from poison_audit.cli import invoke
from poison_audit.commands.reviewing import read_report
from poison_audit.errors import InputError, Problems
from poison_audit.reports.formats import FORMATS
from poison_audit.reports.formats.terminal import render_terminal
from poison_audit.verdict.forms import wrong_forms
from poison_audit.verdict.record import AuditRecord


def deep(levels, inner="x"):
    return inner if levels == 0 else [deep(levels - 1, inner)]


ODD = {
    "text": "x", "empty text": "", "list": [], "object": {"a": 1}, "far": 1e300, "negative": -5,
    "true": True, "nested": [[1]], "huge": 10**4000, "null": None, "long": "n" * 20_000,
    "surrogate": "\ud800", "escape": "\x00\x1b[2J\u202e]]>", "deep": deep(150), "nulls": [None],
    "zero": 0, "half": 0.5, "keys": {"\ud800": "\udfff", "": {"\x00": 10**400}},
}  # fmt: skip


def places(plain, at=()):
    """Where a value can be replaced: a path for each key, of lists for their first item."""
    if isinstance(plain, dict):
        for key, item in plain.items():
            yield (*at, key)
            yield from places(item, (*at, key))
    elif isinstance(plain, list) and plain:
        yield (*at, 0)
        yield from places(plain[0], (*at, 0))


def replaced(plain, path, odd):
    if not path:
        return odd
    key, *rest = path
    if isinstance(plain, dict):
        return {**plain, key: replaced(plain[key], rest, odd)}
    return [*plain[:key], replaced(plain[key], rest, odd), *plain[key + 1 :]]


def at(plain, path):
    for key in path:
        plain = plain[key]
    return plain


def small(make):
    """A record's JSON, with a cell and a finding of each kind."""
    record = make()
    seen = {f.probe: f for f in record.findings if f.details}
    plain = json.loads(to_json(replace(record, findings=tuple(seen.values()))))
    moved = next((cell for cell in plain["cells"] if cell["movement"]), None)
    plain["cells"] = [plain["cells"][0], *([moved] if moved else ())]
    plain["environment"] |= {"seconds": 3.5, "started": "2026-11-25T10:00:00+00:00"}
    plain["environment"] |= {"git": {"commit": "ab", "dirty": True}}
    plain["subject"] |= {"free": {"a": [1, {"b": "c"}]}}
    return plain


def free(plain):
    """Where JSON is free in a record."""
    tops = [("subject",), ("environment",)]
    tops += [("findings", i, "details") for i in range(len(plain["findings"]))]
    for i, cell in enumerate(plain["cells"]):
        tops += [("cells", i, "movement")] * (cell["movement"] is not None)
        tops += [("cells", i, "method", "params")] * (cell["method"] is not None)
        for j, seen in enumerate(cell["measurements"]):
            tops += [("cells", i, "measurements", j, "evidence")] * (seen["evidence"] is not None)
    tops += [
        ("plan", kind, i, "params")
        for kind in ("methods", "probes", "hypotheses")
        for i in range(len(plain["plan"][kind]))
    ]
    return [(*top, *path) for top in tops for path in places(at(plain, top))]


def read(plain, folder):
    folder.mkdir(exist_ok=True)
    (folder / "report.json").write_text(json.dumps(plain), encoding="utf-8")
    return read_report(folder)[0]


def reads(plain, folder):
    problems = Problems()
    with problems.collecting():
        read(plain, folder)
    assert all(problem.what and problem.where for problem in problems)
    return not problems


@pytest.mark.parametrize("name", ALL)
def test_what_audits_write_has_its_form(name):
    assert wrong_forms(ALL[name]()) == []


@pytest.mark.parametrize(
    ("odd", "make"), [(odd, (explained, texts)[place // 6 % 2]) for place, odd in enumerate(ODD)]
)
def test_it_is_refused_in_words_or_renders_everywhere(make, odd, tmp_path):
    plain = whole = small(make)
    kept = refused = 0
    # Each value is put into every sixth place, and every place of both records is given one.
    for path in [*reversed(free(plain))][list(ODD).index(odd) % 6 :: 6]:
        changed = replaced(plain, path, ODD[odd])
        if reads(changed, tmp_path / "one"):
            # What can be read alone is put in beside the rest: rendering is slow.
            together = replaced(whole, path, ODD[odd])
            if reads(together, tmp_path / "all"):
                whole, kept = together, kept + 1
        else:
            refused += 1
    assert kept + refused > 7
    record = read(whole, tmp_path / "all")
    for each in FORMATS.values():
        each.render(record).encode("utf-8")
    render_terminal(record, console=Console(file=io.StringIO(), width=80))
    read(plain, tmp_path / "plain")
    before, after = str(tmp_path / "plain"), str(tmp_path / "all")
    for command in (["verify", after, "--no-files"], ["decide", after], ["diff", before, after]):
        assert invoke(command) in (0, 1, 2, 3), command


def test_details_at_odds_are_refused():
    shift = next(f for f in explained().findings if f.probe == "shift")
    gaps = [None] * len(shift.details["fractions"])

    def problems(**details):
        changed = replace(shift, details={**shift.details, **details})
        return [str(p) for p in wrong_forms(replace(explained(), findings=(changed,)))]

    short = ["findings[0].details: the curves of the shift differ in length."]
    for odd in ({"fractions": [1.0]}, {"poison_l1": None}, {"fractions": []}):
        assert problems(**odd) == short
    (told,) = problems(random_l1_low=gaps)
    assert told == "findings[0].details: the band of random shifts is not whole."
    (told,) = problems(share=0.5)
    assert told.endswith(".details: the share within reach comes with that of random subsets.")
    assert problems(tpr="high", hits=-1) == [
        "findings[0].details.tpr: expected of type float, got 'high'.",
        "findings[0].details.hits: should be greater than or equal to 0, got -1.",
    ]


@pytest.mark.parametrize("odd", ["0.15", True, 1e300, [0.15], None, 10**40])
def test_a_number_that_is_none_is_refused(odd):
    (finding, *_) = residual().findings
    broken = replace(finding, details={**finding.details, "tpr": odd})
    (problem,) = wrong_forms(replace(residual(), findings=(broken,)))
    assert problem.where == "findings[0].details.tpr"


def test_a_method_that_moved_the_weights_beyond_all_bounds_is_no_odd_report(tmp_path):
    record = explained()
    cells = [
        replace(c, movement={**c.movement, "moved_l2": 1e300}) if c.movement else c
        for c in record.cells
    ]
    record = replace(record, cells=tuple(cells))
    assert wrong_forms(record) == []
    assert "1e+300" in FORMATS["html"].render(record)


def test_depth_is_bounded():
    record = replace(explained(), environment={"a": deep(400)})
    with pytest.raises(InputError, match="not JSON"):
        from_json(AuditRecord, to_json(record))
