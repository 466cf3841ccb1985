"""Tuning chooses on one half and judges on the other: it finds better numbers, and buys no pass."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from builders.loading import loaded
from builders.small_case import FLAGS
from poison_audit.atomic import from_json
from poison_audit.case.sources import Sources
from poison_audit.case.tuning import Attempt
from poison_audit.checks.sanity import check_sanity
from poison_audit.cli import invoke
from poison_audit.engine import tuning, unlearning
from poison_audit.engine.plan import MOST_TRIALS
from poison_audit.engine.tuning import best, halves, tune
from poison_audit.errors import PlanError
from poison_audit.methods import METHODS, UNLEARNING, check_params, parameters
from poison_audit.models.seeds import Rng
from poison_audit.records import Cell, Measurement, Outcome, Plan, Policy, Recipe, Step
from poison_audit.verdict.judge import Errors, judge
from poison_audit.verdict.policy import standard_policy
from poison_audit.verdict.record import AuditRecord

COMMAND = ["check", "model.safetensors", "--forget", "forget.csv", *FLAGS]


def whole_case():
    sources = Sources(
        model=Path("model.safetensors"), forget=Path("forget.csv"), train=Path("train.npz"),
        test=Path("test.npz"), normalize="none",
        evidence={"canaries": Path("canaries.json"), "bases": Path("bases.npz")},
    )  # fmt: skip
    recipe = Recipe(epochs=5, batch_size=20, lr=0.1)
    trial = loaded(sources, recipe)
    return check_sanity(trial.case, alpha=0.05)[0]


def plan_of(name, trials=6):
    return Plan(
        methods=(Step(name=name, params=parameters(name)),),
        probes=(),
        policy=standard_policy(),
        tune=trials,
    )


def record_in(folder):
    return from_json(AuditRecord, (Path(folder) / "report.json").read_text(encoding="utf-8"))


# The split


def test_the_halves_are_the_whole_and_share_nothing(case):
    whole = whole_case()
    parts = halves(whole, Rng(3))
    for what, of in (
        ("canaries", lambda c: c.evidence["gaussian"].names), ("test samples", lambda c: c.test.ids)
    ):  # fmt: skip
        first, second = map(of, parts)
        assert sorted(first + second) == sorted(of(whole)), what
        assert len(second) - len(first) in (0, 1)
    names = list(whole.evidence["gaussian"].names)
    for part in parts:
        at = [names.index(name) for name in part.evidence["gaussian"].names]
        assert torch.equal(part.evidence["gaussian"].noise, whole.evidence["gaussian"].noise[at])
        assert torch.equal(
            part.evidence["gaussian"].held_out_noise, whole.evidence["gaussian"].held_out_noise[at]
        )
        assert part.evidence["gaussian"].bases.ids == tuple(
            whole.evidence["gaussian"].bases.ids[i] for i in at
        )
        right = {name: bool(hit) for name, hit in zip(whole.test.ids, whole.baseline, strict=True)}
        assert part.baseline.tolist() == [right[name] for name in part.test.ids]
        assert part.forget is whole.forget
        assert part.retain is whole.retain
    assert [p.test.ids for p in halves(whole, Rng(3))] == [p.test.ids for p in parts]
    assert [p.test.ids for p in halves(whole, Rng(4))] != [p.test.ids for p in parts]


def test_too_few_or_no_canaries_cannot_be_split(case):
    whole = whole_case()
    with pytest.raises(PlanError, match="needs canaries"):
        halves(replace(whole, evidence={}), Rng(0))
    with pytest.raises(PlanError, match="at least 4 test samples, there are 3"):
        halves(replace(whole, test=whole.test.at(range(3)), baseline=whole.baseline[:3]), Rng(0))


# The claim: whoever chooses among many models by some canaries may not be judged by them


def seen_in(scores) -> Measurement:
    evidence = {"scores": list(scores), "held_out": [0.0] * len(scores), "dropped": 0}
    return Measurement(probe="gaussian", evidence=evidence)


UNHARMED = Measurement(
    probe="utility",
    evidence={"n": 100, "both": 90, "only_deployed": 0, "only_candidate": 0, "neither": 10},
)
ALPHA, TRIALS, TIMES = 0.05, 30, 400


def false_passes(*, split: bool) -> int:
    """Count how often the best of 30 models that hold as much poison as is not tolerated passes."""
    policy, draws = standard_policy(), np.random.default_rng(8)
    mu, n = policy.tolerances["gaussian"], 300
    passed = 0
    for _ in range(TIMES):
        scores = draws.normal(mu, 1.0, (TRIALS, 2 * n))
        attempts = [
            Attempt(params={}, **tuning._scored(seen_in(own[:n]), UNHARMED, policy))
            for own in scores
        ]
        winner = scores[best(attempts)]
        cell = Cell(candidate="gd", kind="method", seed=0)
        judged = seen_in(winner[n:] if split else winner[:n])
        finding = judge(judged, cell, policy, Errors(clearing=ALPHA, finding=ALPHA), required=True)
        passed += finding.outcome is Outcome.CLEAN
    return passed


def test_the_split_keeps_false_passes_at_alpha():
    passed = false_passes(split=True)
    assert binomtest(passed, TIMES, ALPHA, alternative="greater").pvalue > 0.01


def test_judging_where_one_chose_does_not():
    passed = false_passes(split=False)
    assert binomtest(passed, TIMES, ALPHA, alternative="greater").pvalue < 1e-9
    assert passed > 0.2 * TIMES


# The score


def test_a_score_is_the_worse_of_both_in_tolerances():
    policy = Policy(tolerances={**standard_policy().tolerances, "gaussian": 0.5, "utility": 0.1})
    counts = {"n": 50, "both": 30, "only_deployed": 9, "only_candidate": 1, "neither": 10}
    told = tuning._scored(
        seen_in([-0.4, -0.2, 0.0]), Measurement(probe="utility", evidence=counts), policy
    )
    assert told == {"residue": pytest.approx(0.2 / 0.5), "lost": pytest.approx(8 / 50 / 0.1)}
    assert Attempt(params={}, **told).score == pytest.approx(1.6)
    ranks = Measurement(
        probe="token-canary", evidence={"wins": [8, 6], "draws": 10, "held_out": [5, 5]}
    )
    told = tuning._scored(ranks, UNHARMED, standard_policy())
    assert told["residue"] == pytest.approx(0.2 / 0.07)
    lacking = Measurement(probe="gaussian", evidence=None, missing="reasons")
    assert tuning._scored(lacking, UNHARMED, policy) == {
        "error": "gaussian was not measured: reasons"
    }


def test_the_first_of_the_best_is_chosen_and_failures_never():
    def attempt(score):
        found = {} if score is None else {"residue": score, "lost": 0.0}
        return Attempt(params={}, **found)

    assert best([attempt(s) for s in (None, 3.0, 2.0, None, 2.0)]) == 2
    assert best([attempt(None), attempt(None)]) == 0


# The search


@pytest.mark.parametrize("name", UNLEARNING)
def test_every_trial_is_within_what_a_method_takes(case, name):
    subject, _ = halves(whole_case(), Rng(0))
    step, plan = Step(name=name, params=parameters(name)), plan_of(name, 12)
    tried = []
    for params, tell in tuning._proposals(subject, step, plan):
        assert check_params(name, params, blocks=len(subject.model.blocks)) == []
        tried.append(params)
        tell(float(len(tried)) if len(tried) % 3 else None)
    assert len(tried) == 12
    assert tried[0] == parameters(name)
    for key in parameters(name):
        values = {params[key] for params in tried[1:]}
        assert (len(values) > 1) == (key in METHODS[name].search), key
    again = [params for params, tell in tuning._proposals(subject, step, replace(plan, tune=4))]
    assert again == tried[:4]


def test_a_search_that_is_interrupted_goes_on_and_repeats_nothing(case, tmp_path, monkeypatch):
    subject, _ = halves(whole_case(), Rng(0))
    plan, calls, unlearn = plan_of("gd"), [], unlearning.unlearn

    def counted(*arguments, **others):
        calls.append(0)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return unlearn(*arguments, **others)

    def bare(found):
        return [replace(attempt, seconds=0.0) for attempt in found.attempts], found.chosen

    monkeypatch.setattr(unlearning, "unlearn", counted)
    with pytest.raises(KeyboardInterrupt):
        tune(subject, plan.methods[0], plan, tmp_path / "a", key="k")
    found = tune(subject, plan.methods[0], plan, tmp_path / "a", key="k")
    assert len(calls) == 4 + 3
    whole = tune(subject, plan.methods[0], plan, tmp_path / "b", key="k")
    assert bare(found) == bare(whole)
    assert whole.attempts[whole.chosen].score <= whole.attempts[0].score
    tune(subject, plan.methods[0], plan, tmp_path / "a", key="other")  # nothing stale is read
    assert len(calls) == 4 + 3 + 6 + 6
    wider = replace(plan.policy, tolerances={**plan.policy.tolerances, "utility": 0.5})
    tune(subject, plan.methods[0], replace(plan, policy=wider), tmp_path / "a", key="k")
    assert len(calls) == 4 + 3 + 6 + 6 + 6  # a trial's figures are in tolerances


# The whole


@pytest.mark.slow
def test_a_tuned_audit_measures_the_other_half_with_the_numbers_found(case, capsys):
    assert invoke([*COMMAND, "--methods", "gd,ssd", "--tune", "5", "--out", "o"]) in (1, 3)
    record = record_in("o")
    assert record.plan.tune == 5
    assert [t.method for t in record.tuning] == ["gd", "ssd"]
    for found in record.tuning:
        (cell,) = [c for c in record.cells if c.candidate == found.method]
        assert cell.method.params == found.attempts[found.chosen].params
        assert len(found.attempts) == 5
    for cell in record.cells:
        scores = {m.probe: m.evidence for m in cell.measurements}["gaussian"]["scores"]
        assert len(scores) == 15
    (limit,) = [limit for limit in record.limits if "tuned" in limit]
    spent = sum(a.gradients for t in record.tuning for a in t.attempts)
    assert f"15 canaries and 30 test samples. 10 trials cost {spent:,.0f}" in limit
    page = Path("o/report.html").read_text(encoding="utf-8")
    assert "Tuning" in page
    assert invoke(["verify", "o/report.json"]) == 0
    assert invoke([*COMMAND, "--methods", "gd", "--out", "plain"]) in (1, 3)
    assert record_in("plain").comparability != record.comparability
    capsys.readouterr()
    assert invoke(["diff", "plain/report.json", "o/report.json"]) == 2
    assert "the halves that tuning did not see" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["0", "-3", str(MOST_TRIALS + 1)])
def test_impossible_numbers_of_trials_are_refused(case, capsys, given):
    assert invoke([*COMMAND, "--tune", given, "--out", "o"]) == 2
    assert "--tune" in capsys.readouterr().err
    assert not Path("o").exists()


def test_what_cannot_be_tuned_is_said_before_anything_runs(case, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert invoke([*COMMAND, "--tune", "2", "--out", "o"]) == 2
    assert "pip install 'poison-audit[tune]'" in capsys.readouterr().err
    assert not Path("o").exists()
