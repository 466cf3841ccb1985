"""A dry run: every part in miniature, nothing written, nothing that a gate takes for a pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from builders.loading import loaded
from builders.small_case import FLAGS
from poison_audit.case.sources import Sources
from poison_audit.cli import invoke
from poison_audit.engine.forecast import _pace, forecast
from poison_audit.engine.probes import PROBES
from poison_audit.engine.unlearning import allowance, unlearn
from poison_audit.methods import METHODS, UNLEARNING, parameters
from poison_audit.models.seeds import Rng
from poison_audit.records import Measurement, Plan, Recipe, Step
from poison_audit.verdict.policy import standard_policy


def trial(**recipe):
    sources = Sources(
        model=Path("model.safetensors"), forget=Path("forget.csv"), train=Path("train.npz"),
        test=Path("test.npz"), normalize="none",
        evidence={"canaries": Path("canaries.json"), "bases": Path("bases.npz")},
    )  # fmt: skip
    recipe = Recipe(**{"epochs": 5, "batch_size": 20, "lr": 0.1, **recipe})
    return loaded(sources, recipe)


def plan_of(*names, **settings):
    steps = tuple(Step(name=name, params=parameters(name)) for name in names)
    return Plan(methods=steps, probes=(), policy=standard_policy(), **settings)


def test_a_dry_run_names_every_part_and_writes_nothing(case, capsys):
    before = sorted(Path().rglob("*"))
    command = ["check", "model.safetensors", "--forget", "forget.csv", *FLAGS]
    command += ["--methods", "all,retrain", "--set", "orthogonality.gradients=30"]
    assert invoke([*command, "--out", "o", "--dry-run"]) == 3
    assert sorted(Path().rglob("*")) == before
    told = capsys.readouterr().out.splitlines()
    names = [line.partition("  ")[0] for line in told]
    run = [name for name in UNLEARNING if METHODS[name].unfit(trial().case) is None]
    models = f"probes of {len(run) + 2} models"
    expected = [*run, "retrain", models, "shift", "orthogonality"]
    rows = len(expected)
    assert names[:rows] == expected
    assert told[rows].startswith("in all, about ")
    assert "iB" in told[rows + 1]
    assert told[rows + 2] == "Not looked at: whether inputs are read as in training."
    assert told[-1] == "exit 3: A dry run. Nothing was audited, and nothing was written."


def test_a_probe_has_a_dry_run_too(case, capsys):
    command = ["probe", "model.safetensors", "--forget", "forget.csv", *FLAGS, "--dry-run"]
    assert invoke(command) == 3
    assert capsys.readouterr().out.startswith("probes of 1 model ")


def test_what_is_wrong_is_said_before(case, capsys):
    command = ["check", "model.safetensors", "--forget", "none.csv", *FLAGS, "--dry-run"]
    assert invoke(command) == 2
    assert "none.csv" in capsys.readouterr().err


@pytest.mark.parametrize("budget", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("name", UNLEARNING)
def test_a_method_makes_as_many_evaluations_as_it_says(case, name, budget):
    subject = replace(trial().case, stamp=lambda samples: samples)
    step = Step(name=name, params=parameters(name))
    done = unlearn(subject, step, Rng(0), budget=budget)
    assert done.error is None
    said = METHODS[name].spends(allowance(subject, budget), subject, step.params)
    largest = 20 * 2 * 4 / 3  # a step of two batches, a teacher's pass included
    assert done.cost.gradients <= said + largest
    assert said <= done.cost.gradients + largest


def test_a_forecast_counts_what_is_computed(case, monkeypatch):
    # With one second an evaluation, a forecast is the number of evaluations.
    monkeypatch.setattr(
        "poison_audit.engine.forecast._pace", lambda case, step, rng: (1.0, step.name == "gd")
    )
    found = {
        part.name: part.seconds
        for part in forecast(trial(), plan_of(
            "gd", "scrub", "ssd", "retrain", budget=1.0, sweep=(0.4, 0.2), seeds=2
        )).parts
    }  # fmt: skip
    assert found["gd"] == 2 * 5 * 90
    assert found["scrub"] == pytest.approx(2 * 5 * 90 * (1 + 0.4 + 0.2))
    assert found["ssd"] == 2 * 90
    assert found["retrain"] == 2 * 5 * 60


def test_a_probe_of_many_draws_is_foretold_from_a_few(case, monkeypatch):
    spent = [0.0]

    def probe(model, case, rng, *, draws):
        spent[0] += 3 + 5 * draws
        return Measurement(probe="exposure", evidence=None, missing="nothing is measured here")

    class Count:
        def __init__(self, device):
            self.start = spent[0]

        def read(self):
            return spent[0] - self.start

    monkeypatch.setitem(PROBES, "exposure", probe)
    monkeypatch.setattr("poison_audit.engine.forecast.Clock", Count)
    asked = Plan(
        methods=(), probes=(Step(name="exposure", params={"draws": 100}),), policy=standard_policy()
    )
    (part,) = forecast(trial(), asked).parts
    assert part.seconds > 0
    assert part.seconds % (3 + 5 * 100) == 0  # once for each state of the model
    assert spent[0] < 60


def test_waking_is_foretold(case, monkeypatch):
    monkeypatch.setattr("poison_audit.engine.forecast.Clock.read", lambda _: 1.0)
    plans = plan_of("gd"), plan_of("gd", reaudit=True)
    bare, woken = ({p.name: p.seconds for p in forecast(trial(), plan).parts} for plan in plans)
    # Both are recalibrated in any case; with --reaudit each is woken in six ways.
    assert bare["probes of 2 models"] == 2 + 2
    assert woken["probes of 2 models"] == 2 + 2 * 6
    assert woken["training of 8 woken models"] == 8
    assert "training of 8 woken models" not in bare


def test_a_pace_counts_what_was_computed_and_not_what_was_taken_over(case, monkeypatch):
    # A clock that is the number of losses that were computed, with their batches' lengths.
    subject, counted = trial().case, [0.0]
    model, loss = subject.model, subject.model.loss

    def counting(module, batch):
        counted[0] += len(batch)
        return loss(module, batch)

    class Count:
        def __init__(self, device):
            self.start = counted[0]

        def read(self):
            return counted[0] - self.start

    monkeypatch.setattr("poison_audit.engine.forecast.Clock", Count)
    case = replace(subject, model=replace(model, loss=counting))
    for name, goes_on in (("gd", True), ("ga", True), ("ssd", False), ("eu_k", False)):
        step = Step(name=name, params=parameters(name))
        pace, found = _pace(
            replace(case, recipe=replace(case.recipe, schedule="cosine")), step, Rng(0)
        )
        assert (pace, found) == (pytest.approx(1.0), goes_on), name
