"""Reports of one model over time: what can be compared stands in one chart, all else apart."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import pytest

from builders.some_records import clean, residual
from poison_audit.atomic import to_json
from poison_audit.cli import invoke
from poison_audit.records import Outcome
from poison_audit.reports.page.history import render_history, strip
from poison_audit.reports.view.history import history
from poison_audit.verdict.compare import comparability


def dated(record, started, **subject):
    record = replace(
        record,
        environment={**record.environment, "started": started},
        subject={**record.subject, **subject},
    )
    return replace(record, comparability=comparability(record))


@pytest.fixture
def folder(tmp_path):
    """Two audits of one evidence, one of another, one that is no report, one without a time."""
    reports = {
        "b/later": dated(clean(), "2026-03-01T10:00:00+00:00"),
        "a/first": dated(residual(), "2026-01-01T10:00:00+00:00"),
        "other": dated(clean(), "2026-02-01T10:00:00+00:00", test_sha256="ab" * 32),
        "timeless": dated(clean(), None),
        "edited": replace(dated(clean(), "2026-02-02T10:00:00+00:00"), comparability="cd" * 32),
    }
    for name, record in reports.items():
        place = tmp_path / "runs" / name
        place.mkdir(parents=True)
        (place / "report.json").write_text(to_json(record))
    (tmp_path / "runs/broken").mkdir()
    (tmp_path / "runs/broken/report.json").write_text("{")
    return tmp_path / "runs"


def test_what_can_be_compared_stands_together_in_its_order():
    one, two = (
        dated(r, f"2026-0{m}-01T10:00:00+00:00") for r, m in ((clean(), 3), (residual(), 1))
    )
    seen = history([("late", one), ("early", two)])
    (group,) = seen.groups
    assert group.hash == one.comparability == two.comparability
    assert [entry.file for entry in group.entries] == ["early", "late"]
    assert [entry.when for entry in group.entries] == ["2026-01-01 10:00", "2026-03-01 10:00"]
    assert [entry.outcome for entry in group.entries] == ["RESIDUAL", "CLEAN"]
    assert group.probes == ("gaussian", "exposure")
    (before, _), (after, _) = (entry.found for entry in group.entries)
    assert (before.statistic, before.candidate, before.way) == (1.29, "deployed", "")
    assert before.interval.low == pytest.approx(1.29 - 0.158)
    assert after.outcome is Outcome.CLEAN
    assert seen.apart == ()


def test_the_terminal_names_what_stands_apart(folder, capsys, tmp_path):
    assert invoke(["history", str(folder)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "2 reports that can be compared" in said
    assert said.index("2026-01-01") < said.index("2026-03-01")
    for name, why in (
        ("other", "no other report has its comparability hash"),
        ("timeless", "does not say when the audit began"),
        ("edited", "was it edited?"),
        ("broken", "it cannot be read as a report"),
    ):
        assert re.search(rf"{name}/report.json: .*?{re.escape(why)}", said), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]  # nothing is written


def test_the_page_has_a_strip_a_probe_and_escapes_what_it_is_told(folder, tmp_path):
    record = dated(residual(), "2026-02-03T10:00:00+00:00", model="<script>x</script>")
    (folder / "<b>").mkdir()
    (folder / "<b>/report.json").write_text(to_json(record))
    page = tmp_path / "page.html"
    assert invoke(["history", str(folder), "-o", str(page)]) == 0
    text = page.read_text()
    assert text.count('<svg viewBox="0 0 400 170" role="img"') == 2  # Gaussian and exposure
    assert "Gaussian over time" in text
    assert "<b>/report.json" not in text
    assert "&lt;b&gt;/report.json" in text
    assert "<script" not in text
    assert not re.search(r'(src|href)="(?!#|data:)', text)


def test_a_strip_puts_every_figure_above_its_report():
    found = [f for f in residual().findings if f.probe == "gaussian" and f.interval][:3]
    svg = strip([*found, None], ["a", "b", "c", "d"], name="s", title="t", describe="d")
    tone = r'style="fill: var\(--(?:good|bad|worse|unsure)\)'
    marks = [float(x) for x in re.findall(rf'x="([\d.]+)" y="[\d.]+" {tone}', svg)]
    steps = [after - before for before, after in pairwise(marks)]
    assert len(marks) == 3
    assert steps == pytest.approx([(400 - 46 - 12) / 4] * 2)  # one unit of an axis of four
    assert strip([None], ["a"], name="s", title="t", describe="d") is None


def test_a_folder_without_a_report_is_refused(tmp_path, capsys):
    assert invoke(["history", str(tmp_path)]) == 2
    assert "holds no report.json" in capsys.readouterr().err
    assert invoke(["history", str(tmp_path / "none")]) == 2
    assert "is no folder" in capsys.readouterr().err


def test_no_torch_is_needed(folder):
    code = (
        "import sys; from poison_audit.cli import invoke; "
        f"invoke(['history', {str(folder)!r}]); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_an_empty_history_has_a_page():
    text = render_history(history([], [("x", "it is none")]), folder="f")
    assert "No two reports can be compared." in text
    assert json.dumps("x") not in text
