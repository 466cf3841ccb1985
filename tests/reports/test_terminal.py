import io
from dataclasses import replace

import pytest
from rich.console import Console

from builders.more_records import ALL as EVERY
from builders.some_records import HOSTILE, hostile, residual
from builders.text_records import texts
from poison_audit.records import Outcome
from poison_audit.reports.formats.terminal import render_terminal
from poison_audit.reports.view.words import printable


def shown(record, *, width=80, encoding="utf-8", **options):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    render_terminal(record, console=Console(file=file, width=width, **options))
    file.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [60, 80, 128, 200])
@pytest.mark.parametrize("name", EVERY)
def test_the_last_line_is_code_outcome_and_reason(name, width):
    verdict = EVERY[name]().verdict
    last = shown(EVERY[name](), width=width).splitlines()[-1]
    sentence = printable(verdict.sentence)
    assert last == f"exit {verdict.exit_code}: {verdict.outcome}. {sentence}"


@pytest.mark.parametrize("width", [80, 128, 200])
def test_lines_fit_and_verdicts_stay_whole(width):
    *lines, _ = shown(residual(), width=width).splitlines()
    assert max(map(len, lines)) <= width
    rows = [line.split()[:2] for line in lines]
    for candidate in residual().verdict.candidates:
        assert [candidate.candidate, candidate.outcome.value] in rows


def test_numbers_stand_in_their_row():
    lines = shown(residual()).splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("ga "))
    assert lines[place].split("  ")[0:1] == ["ga"]
    assert lines[place].split() == ["ga", "RESIDUAL", "-0.71,", "z", "-10.0", "0.381", "81.9%"]
    below = ["method", "[-0.87,", "-0.55]", "[0.334,", "0.428]", "[80.8,", "82.9]"]
    assert lines[place + 1].split() == below


@pytest.mark.parametrize("width", [60, 80])
def test_four_probes_and_the_accuracy_fit(width):
    record = texts()
    record = replace(
        record, findings=tuple(replace(f, outcome=Outcome.INCONCLUSIVE) for f in record.findings)
    )
    *lines, _ = shown(record, width=width).splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("candidate"))
    assert lines[start].split()[-1] == "acc."
    assert max(map(len, lines)) <= width
    table = " ".join(lines[start : lines.index("", start)])
    verdicts = [each.outcome.value for each in record.verdict.candidates]
    assert [word for word in table.split() if word in set(Outcome)] == verdicts
    assert table.count("[") == table.count("]")  # no interval is cut


def test_a_wide_terminal_shows_all_columns():
    wide, narrow = shown(residual(), width=128), shown(residual(), width=127)
    assert "14,976 / 15,000" in wide
    assert "membership" in wide
    assert "14,976 / 15,000" not in narrow
    assert "a terminal of 128 columns" in narrow


def test_a_pipe_gets_no_colours_and_a_terminal_does():
    assert "\x1b" not in shown(residual())
    coloured = shown(residual(), force_terminal=True, color_system="standard")
    assert "\x1b[1;31m" in coloured  # bold red


@pytest.mark.parametrize("name", ["inconclusive", "unusable"])
def test_what_is_not_known_is_said(name):
    text = shown(EVERY[name](), width=200)
    assert "Not decided:" in text
    assert ("not measured" in text) == (name == "inconclusive")
    assert not any(word in text for word in ("nan", "None", "inf "))


def test_hostile_names_are_inert():
    text = shown(hostile(), width=400, force_terminal=True, color_system=None)
    assert "[red]x[/red]" in text
    assert ":smile:" in text
    assert printable(HOSTILE) in text
    assert "\u202e" not in text
    assert "\x1b[31m" not in text


def test_a_pipe_that_is_not_utf8_loses_no_verdict():
    text = shown(hostile(), encoding="ascii", width=400)
    assert r"\u6bd2" in text
    assert text.splitlines()[-1].startswith("exit 1: RESIDUAL. ")
