from dataclasses import replace

import pytest

from builders.more_records import ALL as EVERY
from builders.some_records import (
    clean,
    gaussian,
    hostile,
    inconclusive,
    residual,
    several_seeds,
    unusable,
    utility,
)
from poison_audit.case.tuning import Attempt, Tuning
from poison_audit.records import WORST_FIRST, Outcome, Step
from poison_audit.reports.view.figure import TONES, figure
from poison_audit.reports.view.rows import worst
from poison_audit.reports.view.view import COLUMNS, view
from poison_audit.reports.view.words import about


def row(record, name):
    return next(row for row in view(record).rows if row.name == name)


def test_numbers_of_a_row_against_a_table_by_hand():
    gd = row(residual(), "gd")
    assert (gd.kind, gd.outcome, gd.budget, gd.time) == (
        "method",
        "RESIDUAL",
        "14,976 / 15,000",
        "13.8 s",  # 12.34 of the method and 1.5 of the probes
    )
    assert [f.text for f in gd.figures] == [
        "+1.22 [1.06, 1.38]",  # 1.22 -+ 0.158
        "0.70 [0.65, 0.75]",  # 0.701 -+ 0.047
        "0.52 [0.49, 0.56]",  # 0.491 to 0.555
        "83.0% [81.9, 84.0]",  # 82.96, less 1.06, more 1.04
    ]
    assert gd.figures[0].z == "z +17.3"  # 1.22 * sqrt(200) = 17.25
    assert gd.figures[3].note == "lost 0.2 [-0.6, 0.9]"  # 0.16, -0.55 and 0.87 points


def test_extra_numbers_against_a_table_by_hand():
    deployed = row(residual(), "deployed")
    assert deployed.figures[0].extras == (
        "97.5% interval",
        "z = +18.2",  # 1.29 * sqrt(200) = 18.24
        "p < 1e-6",
        "200 canaries",
        "true positive rate 15.0% [10.4, 20.7] at a false positive rate of 1%",
        "held-out keys: mean +0.03, p = 0.410 for N(0, 1)",
        "spread of the scores 1.02",
        "2 vanished gradients left out",
    )
    assert "32 fresh draws a canary" in deployed.figures[1].extras


def test_a_bound_near_the_tolerance_gets_more_decimals():
    shown = figure(gaussian("x", 0, Outcome.INCONCLUSIVE, 0.0924))  # up to 0.2504
    assert shown.text == "+0.0924 [-0.0656, 0.2504]"
    shown = figure(utility("x", 0, Outcome.INCONCLUSIVE, 0.8, 0.0129, half=0.00712))
    assert shown.note == "lost 1.290 [0.578, 2.002]"


def test_what_was_not_measured_says_so_and_why():
    deployed = row(inconclusive(), "deployed")
    assert [f.value for f in deployed.figures] == ["not measured"] * 3 + ["83.1%"]
    assert deployed.figures[0].reason.startswith("Not measured: needs the key")
    assert deployed.figures[2].reason == "Planned, but it did not run."
    assert [f.outcome for f in deployed.figures] == ["NOT_MEASURED"] * 3 + ["CLEAN"]
    unplanned = inconclusive()
    unplanned = replace(unplanned, plan=replace(unplanned.plan, probes=()))
    assert row(unplanned, "deployed").figures[2].reason == "Not part of the plan."


def test_what_failed_says_so():
    scrub = row(residual(), "scrub")
    assert {f.value for f in scrub.figures} == {"failed"}
    assert (scrub.budget, scrub.time) == ("not recorded", "not recorded")


def test_gaps_are_told_once():
    gaps = [(gap.title, gap.who) for gap in view(residual()).gaps]
    assert gaps == [
        ("Gaussian, Exposure, Membership, Accuracy", "scrub"),
        ("Gaussian", "neggrad_plus"),
        ("Exposure", "neggrad_plus"),
    ]
    assert view(clean()).gaps == ()
    (loads, *rest) = view(unusable()).gaps
    assert loads.title == "Does it work at all?"
    assert rest == []


def test_a_gap_says_what_would_decide_it():
    gaps = {gap.title: gap.remedy for gap in view(residual()).gaps}
    assert gaps["Gaussian"] == ("The 200 canaries here would show an effect of 0.31 9 times in 10.")
    (missing, _) = view(inconclusive()).gaps
    assert missing.title == "Gaussian, Exposure"
    assert "canaries.json" in missing.remedy


def test_of_several_seeds_the_worst_is_shown():
    scrub = row(several_seeds(), "scrub")
    assert scrub.seeds == "worst of 3 seeds"
    assert scrub.figures[0].value == "+0.90"
    assert [(seed, shown.value) for seed, shown in scrub.every] == [
        ("0", "+0.10"),
        ("1", "+0.90"),
        ("2", "+0.20"),
    ]
    assert scrub.time == "41.5 s"  # three times 12.34 + 1.5


def test_of_one_outcome_the_farthest_is_worst():
    near, far = (gaussian("x", 0, Outcome.RESIDUAL, mean) for mean in (0.5, -0.9))
    assert worst([near, far]) is far
    # Accuracy won is no harm.
    lost, won = (utility("x", 0, Outcome.CLEAN, 0.8, loss) for loss in (0.001, -0.01))
    assert worst([won, lost]) is lost
    assert worst([]) is None


def test_every_outcome_has_a_rank_and_a_tone():
    assert set(WORST_FIRST) == set(TONES) == set(Outcome)


@pytest.mark.parametrize("name", EVERY)
def test_the_exit_line_carries_outcome_and_code(name):
    record = EVERY[name]()
    seen = view(record)
    start = f"exit {record.verdict.exit_code}: {record.verdict.outcome}. "
    assert seen.exit_line == start + seen.sentence


def test_an_unknown_probe_gets_a_column():
    record = residual()
    probes = (*record.plan.probes, Step(name="trigger"))
    seen = view(replace(record, plan=replace(record.plan, probes=probes)))
    assert [p.title for p in seen.probes] == [about(name).title for name in COLUMNS] + ["trigger"]
    assert seen.rows[0].figures[-1].value == "not measured"


def test_facts_cover_the_subject_and_skip_what_is_missing():
    groups = {group.title: dict(group.pairs) for group in view(residual()).facts}
    assert groups["Model"]["Parameters"] == "11,173,962"
    assert groups["Model"]["SHA-256"] == "3f" * 32
    assert groups["Data"]["Canary key, SHA-256 (the commitment)"] == "c0" * 32
    assert groups["Data"]["Attacks named in the forget table"] == "gaussian: 200, unknown: 200"
    assert groups["Recipe of the original training"]["momentum"] == "0.9 (assumed)"
    assert groups["Recipe of the original training"]["lr"] == "0.1"
    assert groups["Candidates given"]["retrained.sha256"] == "9e" * 32
    assert groups["Weights measured, SHA-256"]["scrub, seed 0"] == "no weights to measure"
    signed = {group.title: dict(group.pairs) for group in view(EVERY["signed"]()).facts}
    assert signed["Environment"]["Git commit of the working folder"] == "0b" * 20
    assert signed["Environment"]["Changes that are not committed"] == "yes"
    assert signed["Plan and policy"]["Comparability, SHA-256"] == "e5" * 32
    assert len(signed["Files read"]) == 13
    assert signed["Files read"]["candidate c3: runs/c3.npz"] == f"{'5a' * 32} (1,234,567 bytes)"
    titles = {group.title for group in view(unusable()).facts}
    assert titles == {"Recipe of the original training", "Plan and policy"}


def test_runs_are_listed_with_what_they_spent():
    runs = {run.name: run for run in view(residual()).runs}
    assert list(runs) == ["gd", "ngd", "ga", "eu_k", "cf_k", "scrub", "neggrad_plus", "ssd"]
    gd = runs["gd"]
    assert (gd.params, gd.steps) == ("lr = 0.01, steps = 117", "117")
    assert (gd.spent, gd.allowed) == ("14,976 (100%)", "15,000")
    assert (gd.time, gd.memory, gd.losses) == ("12.3 s", "1.5 GiB", "2.4 to 0.123")
    assert runs["scrub"].status == "failed: the loss is not finite after step 9"
    assert runs["scrub"].spent == "not recorded"


def test_what_a_smaller_budget_had_computed_is_told_apart():
    record = residual()
    cells = [
        replace(c, cost=replace(c.cost, reused=8_192.0)) if c.candidate == "gd" else c
        for c in record.cells
    ]
    told = view(replace(record, cells=tuple(cells)))
    gd = next(run for run in told.runs if run.name == "gd")
    assert gd.spent == "14,976 (100%), 8,192 of them by the smaller budget"
    rows = {row.name: row.time for row in told.rows}
    assert rows["gd"].endswith(" more")
    assert not rows["ngd"].endswith(" more")


def test_a_search_is_shown_with_what_it_found_and_cost():
    attempts = (
        Attempt(params={"lr": None, "beta": 0.9}, residue=2.0, lost=-0.001, gradients=1000.0),
        Attempt(params={"lr": 0.5, "beta": 0.9}, error="gd diverged", gradients=10.0, seconds=1.0),
        Attempt(params={"lr": 0.25, "beta": 0.9}, residue=0.125, lost=0.5, gradients=2000.0,
                seconds=60.0),
    )  # fmt: skip
    record = replace(residual(), tuning=(
        Tuning(method="gd", attempts=attempts, chosen=2),
        Tuning(method="ga", attempts=attempts[:2], chosen=0),
    ))  # fmt: skip
    gd, ga = view(record).tuned
    assert (gd.name, gd.trials, gd.spent) == ("gd", "3, 1 of them failed", "3,010")
    assert gd.time == "1 min 01 s"
    assert (gd.before, gd.after, gd.params) == ("2.00 and 0.00", "0.12 and 0.50", "lr = 0.25")
    assert (ga.after, ga.params) == ("the plan's own numbers", "none")
    assert view(residual()).tuned == ()


@pytest.mark.parametrize("chosen", [-1, 1])
def test_a_search_chose_one_of_its_attempts(chosen):
    with pytest.raises(ValueError, match="one of the attempts"):
        Tuning(method="gd", attempts=(Attempt(params={}),), chosen=chosen)


def strings(plain):
    if isinstance(plain, str):
        yield plain
    elif isinstance(plain, bool) or plain is None:
        return
    elif isinstance(plain, tuple):
        for item in plain:
            yield from strings(item)
    else:
        for name in plain.__slots__:
            yield from strings(getattr(plain, name))


def test_every_string_of_a_view_is_on_one_line_and_in_order():
    assert all(text.isprintable() for text in strings(view(hostile())))


def test_the_file_is_that_of_the_model_that_was_judged():
    def told(gate):
        record = residual()
        return view(replace(record, verdict=replace(record.verdict, gate=gate))).file

    assert told("deployed").startswith("runs/2026-02-11/model.safetensors, SHA-256 3f3f")
    assert told("retrained").startswith("runs/clean.safetensors, SHA-256 9e9e")
    assert told("gd").startswith(
        "what gd made of runs/2026-02-11/model.safetensors, which is in no"
    )
    assert "SHA-256" not in told("gd")
