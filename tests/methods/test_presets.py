"""Presets from a flag and from a file: what the plan that is run and recorded holds."""

import json

import pytest

from poison_audit.atomic import from_json, to_json
from poison_audit.cli import invoke
from poison_audit.commands.config import read_config
from poison_audit.engine.plan import make_plan
from poison_audit.errors import PlanError
from poison_audit.methods import METHODS, filled
from poison_audit.records import Step
from poison_audit.verdict.policy import standard_policy


def planned(**given):
    (step,) = make_plan(policy=standard_policy(), methods=["ga"], **given).methods
    return step


def test_a_plan_has_every_number_of_a_preset():
    step = planned(settings={"ga": {"preset": "abl"}})
    assert step.params == filled("ga", {"preset": "abl"})
    # What Li et al. give their script by default.
    said = {"lr": 5e-4, "momentum": 0.9, "weight_decay": 1e-4, "batch_size": 64, "passes": 5.0}
    assert {key: step.params[key] for key in said} == said
    assert (step.params["optimizer"], step.params["batch_norm"]) == ("nesterov", "train")
    assert from_json(Step, to_json(step)) == step


def test_what_is_set_wins_over_a_preset_wherever_it_stands(tmp_path):
    file = tmp_path / "audit.toml"
    file.write_text('[methods.ga]\npreset = "abl"\npasses = 2.0\n', encoding="utf-8")
    params = read_config(file).params
    step = planned(params=params, settings={"ga": {"lr": 0.5}})
    assert (step.params["lr"], step.params["passes"]) == (0.5, 2.0)
    assert step.params["batch_norm"] == "train"
    back = planned(params=params, settings={"ga": {"preset": "default"}})
    assert back.params == {**filled("ga", {}), "passes": 2.0}


def test_an_unknown_preset_is_named_with_those_there_are():
    with pytest.raises(PlanError, match="expected one of default, abl, got 'bla'"):
        planned(settings={"ga": {"preset": "bla"}})


def test_the_command_lists_them(capsys):
    assert invoke(["methods"]) == 0
    told = capsys.readouterr().out
    assert "None" not in told
    (second,) = {line.index(line.split(maxsplit=1)[1]) for line in told.splitlines()
                 if line.split()[0] in METHODS}  # fmt: skip
    assert second == 2 + max(map(len, METHODS))
    for method in METHODS.values():
        for preset, numbers in method.presets.items():
            assert f"preset={preset}: " in told
            assert json.dumps(numbers["lr"]) in told.replace("5e-04", "0.0005")
