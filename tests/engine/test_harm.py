"""What a repair costs a clean model: counted on a reference, shown, and never decided by."""

import json
from dataclasses import asdict, replace
from io import StringIO

import pytest
from rich.console import Console

from builders.audits import small_audit
from builders.small_case import FLAGS
from builders.tiny import net, picture_case
from poison_audit.atomic import from_json, to_json
from poison_audit.case.harm import Harm, figures_of
from poison_audit.cli import invoke
from poison_audit.engine.harm import swapped
from poison_audit.errors import InputError
from poison_audit.models.seeds import Rng
from poison_audit.records import Interval
from poison_audit.reports.formats.terminal import render_terminal
from poison_audit.reports.page.html import render_html
from poison_audit.reports.view.harmed import harmed
from poison_audit.reports.view.view import view
from poison_audit.verdict.record import AuditRecord

LOST, INTERVAL = figures_of(20, 0, 500)
ONE = Harm(
    method="gd", reference="clean", forgotten=30, both=400, only_before=20, neither=80,
    lost=LOST, interval=INTERVAL,
)  # fmt: skip


def test_the_interval_is_tangos_score_interval():
    """By hand for b = 20, c = 0, n = 500: (b - n d) / sqrt(n (2 q + d (1 - d))) = -+ z."""
    z, n, b = 1.959964, 500, 20

    def score(d):
        # Tango 1998: 2 n q^2 + (-b + (2 n - b) d) q = 0 where c = 0; the root that is not 0.
        q = max(0.0, (b - (2 * n - b) * d) / (2 * n))
        return (b - n * d) / (n * (2 * q + d * (1 - d))) ** 0.5

    assert LOST == 0.04
    assert score(INTERVAL.low) == pytest.approx(z, abs=1e-3)
    assert score(INTERVAL.high) == pytest.approx(-z, abs=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lost": 0.0},
        {"only_after": 3},
        {"interval": replace(INTERVAL, low=0.0)},
        {"interval": None},
        {"missing": "it failed"},
    ],
)
def test_figures_that_the_counts_do_not_say_are_refused(wrong):
    with pytest.raises(ValueError, match="the harm of a method"):
        replace(ONE, **wrong)
    tree = json.loads(to_json(replace(small_audit(), harm=(ONE,))))
    tree["harm"][0] |= {
        key: asdict(value) if isinstance(value, Interval) else value for key, value in wrong.items()
    }
    with pytest.raises(InputError):
        from_json(AuditRecord, json.dumps(tree))


def test_a_clean_model_is_to_forget_random_retain_samples():
    case = picture_case(net("plain"))
    other = net("batchnorm")
    first, again = (swapped(case, other, Rng(3)) for _ in range(2))
    assert first.model is other
    assert len(first.forget) == len(case.forget) == 5
    assert sorted(first.forget.ids + first.retain.ids) == sorted(case.retain.ids)
    assert first.forget.ids == again.forget.ids != swapped(case, other, Rng(4)).forget.ids
    small = replace(case, retain=case.retain.at(range(7)))
    assert len(swapped(small, other, Rng(3)).forget) == 3  # half, so that something is retained
    assert not first.evidence


def test_harm_is_shown_and_decides_nothing():
    record = small_audit()
    name = record.verdict.candidates[0].candidate
    harmful = replace(record, harm=(replace(ONE, method=name),))
    seen = view(harmful)
    assert (seen.rows[0].harm.value, seen.rows[0].harm.interval) == ("+4.0", "[2.6, 6.1]")
    assert seen.rows[1].harm.value == "-"
    assert "what the same method costs clean" in seen.harm
    assert seen.exit_line == view(record).exit_line
    assert view(record).rows[0].harm is None
    stream = StringIO()
    render_terminal(harmful, console=Console(file=stream, width=100))
    told = stream.getvalue()
    assert "harm" in told
    assert "+4.0" in told
    failed = Harm(method=name, reference="clean", forgotten=3, missing="it diverged")
    shown = harmed(name, (failed,))
    assert (shown.value, shown.note) == ("failed", "it diverged")
    page = render_html(harmful)
    assert "points lost by a clean model" in page
    assert '<span class="interval">[2.6, 6.1]</span>' in page
    assert "points lost by a clean model" not in render_html(record)


@pytest.mark.slow
def test_harm_is_counted_in_an_audit(small_pictures, tmp_path, monkeypatch, capsys, plain_page):
    monkeypatch.chdir(small_pictures)
    command = [
        "check", "model.safetensors", "--forget", "forget.csv", *FLAGS, "--methods", "gd,ga",
        "--set", "ga.lr=5", "--harm", "--out", str(tmp_path),
    ]  # fmt: skip
    assert invoke(command) == 2
    assert "--harm: needs a reference" in capsys.readouterr().err
    code = invoke([*command, "--reference", "clean.safetensors"])
    report = json.loads((tmp_path / "report.json").read_text())
    assert code == report["verdict"]["exit_code"]
    gd, ga = report["harm"]
    assert [gd["method"], ga["method"]] == ["gd", "ga"]
    assert gd["forgotten"] == ga["forgotten"] == 30
    for one in (gd, ga):
        assert one["missing"] or sum(one[k] for k in ("both", "only_before", "only_after",
                                                      "neither")) == 60  # fmt: skip
    assert abs(gd["lost"]) < 0.1
    assert ga["missing"] or ga["lost"] > 0.2
