"""Two audits side by side: what may be compared, and what counts as worse."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from hypothesis import given, settings
from rich.console import Console
from scipy import stats

from builders.audits import audits, plain, small_audit
from poison_audit.atomic import to_json
from poison_audit.cli import invoke
from poison_audit.errors import InputError
from poison_audit.models.seeds import Rng
from poison_audit.records import Step
from poison_audit.reports.formats.difference import render_difference
from poison_audit.verdict.compare import comparability, compare, differences
from poison_audit.verdict.redecide import redecide


def with_scores(record, scores):
    """The record with other leak scores of the deployed model, judged again."""
    cell = record.cells[0]
    seen = tuple(
        replace(m, evidence={**m.evidence, "scores": scores}) if m.probe == "gaussian" else m
        for m in cell.measurements
    )
    changed = replace(record, cells=(replace(cell, measurements=seen), *record.cells[1:]))
    return redecide(changed, record.plan.policy)


def of(comparison, candidate="deployed", probe="gaussian"):
    (found,) = [c for c in comparison.changes if (c.candidate, c.probe) == (candidate, probe)]
    return found


@settings(max_examples=10)
@given(audits())
def test_an_audit_is_no_worse_than_itself(record):
    comparison = compare(record, record)
    assert comparison.exit_code == 0
    assert {c.direction for c in comparison.changes} <= {"same", "undecided"}


def test_growth_is_student_s_paired_interval():
    record = small_audit()
    draws = Rng(2).numpy()
    first = draws.standard_normal(40)
    second = first + 0.9 + 0.3 * draws.standard_normal(40)
    before, after = (with_scores(record, s.tolist()) for s in (first, second))
    change = of(compare(before, after))
    # As it stands and, where that was done, woken.
    alone = {"membership", "utility", "indiscriminate"}
    seen = [c.measurements for c in record.cells]
    seen += [woken.measurements for cell in record.cells for woken in cell.woken]
    paired = sum(len({m.probe for m in each} - alone) for each in seen)
    expected = stats.ttest_rel(second, first).confidence_interval(1 - 0.05 / paired)
    assert change.grown.low == pytest.approx(expected.low, rel=1e-9)
    assert change.grown.high == pytest.approx(expected.high, rel=1e-9)
    assert change.direction == "worse"
    assert compare(before, after).exit_code == 1
    back = compare(after, before)
    assert of(back).direction == "better"
    assert back.exit_code == 0


@pytest.fixture(scope="module")
def whole():
    """A record with all its figures: it is made once, and other tests have it, too."""
    return small_audit()


@pytest.mark.usefixtures("no_sizes")
@pytest.mark.slow
def test_two_models_with_the_same_effect_are_seldom_called_worse(whole):
    record, draws, worse = whole, Rng(4).numpy(), 0
    for _ in range(100):
        first, second = (
            with_scores(record, (1.0 + draws.standard_normal(40)).tolist()) for _ in range(2)
        )
        worse += of(compare(first, second)).direction == "worse"
    # At most 0.05 by construction: Binomial(100, 0.05) exceeds 11 with probability 0.004.
    assert worse <= 11


def test_a_worse_outcome_is_worse_and_a_better_one_better():
    record = small_audit()
    clean = with_scores(record, plain("gaussian", 0.0, n=400)["scores"])
    leaky = with_scores(record, plain("gaussian", 0.3, n=400)["scores"])
    assert of(compare(clean, leaky)).direction == "worse"
    assert of(compare(leaky, clean)).direction == "better"
    assert "CLEAN became RESIDUAL" in of(compare(clean, leaky)).reason


def test_what_is_no_longer_measured_is_told():
    record = small_audit()
    cell = record.cells[0]
    gone = tuple(
        replace(m, evidence=None, missing="needs its key") if m.probe == "gaussian" else m
        for m in cell.measurements
    )
    less = redecide(
        replace(record, cells=(replace(cell, measurements=gone), *record.cells[1:])),
        record.plan.policy,
    )
    comparison = compare(record, less)
    assert of(comparison).direction == "gone"
    assert comparison.exit_code == 3
    assert of(compare(less, record)).direction == "new"


def test_candidates_that_one_audit_lacks_are_named_and_not_compared():
    record = small_audit()
    (alone,) = (c for c in record.cells if c.kind == "deployed")
    probed = redecide(replace(record, cells=(alone,)), record.plan.policy)
    others = {c.candidate for c in record.cells} - {"deployed"}
    for pair in ((record, probed), (probed, record)):
        comparison = compare(*pair)
        assert {*comparison.apart} == others
        assert {change.candidate for change in comparison.changes} == {"deployed"}
        assert comparison.exit_code == 0
    # But what the first was judged by must be there.
    gated = redecide(record, replace(record.plan.policy, gate=min(others)))
    lacking = redecide(replace(record, cells=(alone,)), record.plan.policy)
    assert compare(gated, lacking).exit_code == 3


CHANGES = {
    "training samples": lambda r: replace(r, subject={**r.subject, "train_sha256": "a"}),
    "forget set": lambda r: replace(r, subject={**r.subject, "forget_sha256": "a"}),
    "test samples": lambda r: replace(r, subject={**r.subject, "test_sha256": "a"}),
    "canary key": lambda r: replace(r, subject={**r.subject, "canaries": {"commitment": "a"}}),
    "key of token canaries": lambda r: replace(
        r, subject={**r.subject, "strings": {"commitment": "a"}}
    ),
    "targets": lambda r: replace(r, subject={**r.subject, "targets": {"sha256": "a"}}),
    "trigger": lambda r: replace(r, subject={**r.subject, "trigger": {"sha256": "a"}}),
    "references": lambda r: replace(
        r, subject={**r.subject, "candidates": {"x": {"kind": "reference", "sha256": "a"}}}
    ),
    "reading of texts": lambda r: replace(r, subject={**r.subject, "reading": {"max_tokens": 9}}),
    "probes": lambda r: replace(
        r, plan=replace(r.plan, probes=(*r.plan.probes[:-1], Step(name="x", params={"draws": 8})))
    ),
    "root seed": lambda r: replace(r, plan=replace(r.plan, seed=1)),
    "alpha": lambda r: replace(r, plan=replace(r.plan, policy=replace(r.plan.policy, alpha=0.01))),
    "tolerances": lambda r: replace(
        r,
        plan=replace(
            r.plan,
            policy=replace(r.plan.policy, tolerances={**r.plan.policy.tolerances, "gaussian": 0.3}),
        ),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_must_be_shared(name):
    record = small_audit()
    other = CHANGES[name](record)
    assert comparability(other) != comparability(record)
    (problem,) = differences(record, other)
    assert f"another {name}: " in problem.what
    with pytest.raises(InputError, match=name):
        compare(record, other)


def test_every_difference_is_told_at_once():
    record = other = small_audit()
    for change in CHANGES.values():
        other = change(other)
    assert len(differences(record, other)) == len(CHANGES)


def test_what_may_differ():
    record = small_audit()
    policy = replace(record.plan.policy, gate="gd", exit_zero=True)
    other = replace(
        record,
        plan=replace(record.plan, policy=policy, budget=0.5, seeds=3),
        subject={**record.subject, "model": "other", "model_sha256": "b"},
        tool_version="9",
        environment={},
        cells=(),
    )
    assert comparability(other) == comparability(record)


def test_a_hash_that_does_not_fit_is_refused(tmp_path, capsys):
    record = small_audit()
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    paths[0].write_text(to_json(replace(record, comparability=comparability(record))))
    paths[1].write_text(to_json(replace(record, comparability="0" * 64)))
    assert invoke(["diff", str(paths[0]), str(paths[0])]) == 0
    assert invoke(["diff", *map(str, paths)]) == 2
    assert "is not that of what it holds" in capsys.readouterr().err


def test_the_terminal_shows_the_worst_first_and_nothing_of_markup():
    record = small_audit()
    name = "[red]x[/red]\x1b[31m\u202e"
    cells = (record.cells[0], replace(record.cells[1], candidate=name))
    first = redecide(replace(record, cells=cells), record.plan.policy)
    clean = plain("gaussian", 0.0, n=400)["scores"]
    out = io.StringIO()
    comparison = compare(with_scores(first, clean), first)
    render_difference(comparison, Console(file=out, width=100))
    text = out.getvalue()
    lines = [line for line in text.splitlines() if line.strip()]
    assert lines[-1].startswith("exit 1: WORSE. ")
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[red]x[/red]" in text
    assert "\\n" not in text
    rows = [line for line in lines if line.rstrip().endswith(("worse", "same", "undecided"))]
    assert rows[0].rstrip().endswith("worse")
