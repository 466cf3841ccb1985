"""`repair`: from a poisoned model and a forget set to one that passes its audit, or why not."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from builders.attacked import pictures, random_trigger
from builders.repairable import FLAGS, make
from poison_audit.cli import invoke
from poison_audit.models.header import header_of
from poison_audit.models.seeds import Rng

CASE = ("model.safetensors", "--forget", "forget.csv", *FLAGS, "-q")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make(tmp_path_factory.mktemp("repair"))


@pytest.fixture
def case(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("repaired_net", None)


def _answers(path: str, x: torch.Tensor) -> torch.Tensor:
    import repaired_net

    module = repaired_net.mlp().eval()
    module.load_state_dict(load_file(path))
    with torch.no_grad():
        return module(x).argmax(1)


@pytest.mark.slow
def test_the_first_repair_that_passes_is_written_with_its_audit(case, capsys):
    code = invoke(["repair", *CASE, "--budget", "1", "-o", "fixed.safetensors", "--out", "run"])
    told = capsys.readouterr()
    assert code == 0, told.out + told.err
    header = header_of(Path("fixed.safetensors"))
    record = json.loads(Path("run/report.json").read_text("utf-8"))
    outcomes = {each["candidate"]: each["outcome"] for each in record["verdict"]["candidates"]}
    assert outcomes["repaired"] == "CLEAN" != outcomes["deployed"]
    ways = {(each["way"], each["outcome"]) for each in record["findings"] if each["gating"]}
    assert {("rounded", "CLEAN"), ("relearned", "CLEAN")} <= ways
    assert Path("run/report.html").is_file()
    assert f"fixed.safetensors: {header['poison_audit.method']}, " in told.out
    # By the trigger that was planted, and by pictures that nobody has seen.
    trigger, fresh = random_trigger(Rng(5).named("trigger").numpy()), pictures(12, 3000)
    others = fresh.y != trigger.label
    before, after = (
        (_answers(path, trigger.stamp(fresh.x)) == trigger.label)[others].float().mean()
        for path in ("model.safetensors", "fixed.safetensors")
    )
    bare = (_answers("fixed.safetensors", fresh.x) == trigger.label)[others].float().mean()
    assert before > 0.6
    assert after - bare < 0.05
    right = (_answers("fixed.safetensors", fresh.x) == fresh.y).float().mean()
    assert right > (_answers("model.safetensors", fresh.x) == fresh.y).float().mean() - 0.02


def test_where_no_repair_is_clean_the_best_is_named_and_nothing_is_written(case, capsys):
    # Five gradients: a few forward passes for the edit of the head.
    few = ("--set", "backdoor.inputs=100", "--set", "backdoor.draws=40", "--out", "few")
    code = invoke(["repair", *CASE, "--budget", "0.0002", "-o", "none.safetensors", *few])
    told = capsys.readouterr().out
    assert code in (1, 3)
    assert not Path("none.safetensors").exists()
    assert "No repair that was tried is clean; nothing was written. The best: head_edit" in told
    assert Path("few/report.json").is_file()
    assert Path("few/models/head_edit.safetensors").is_file()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("--forget", "quiet.csv"), "no trigger was given or recovered, and no canaries"),
        (("--budget", "0"), "must be above 0 and at most 1, got 0"),
    ],
)
def test_what_cannot_be_chosen_or_paid_is_refused(case, capsys, changed, said):
    with Path("quiet.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["index"], *([i] for i in range(20))])
    assert invoke(["repair", *CASE, *changed, "-o", "none.safetensors"]) == 2
    assert said in capsys.readouterr().err
    assert not Path("none.safetensors").exists()


def test_a_model_that_is_no_better_than_chance_is_not_repaired(case, capsys):
    table = dict(np.load("test.npz"))
    np.savez("shuffled.npz", x=table["x"], y=np.roll(table["y"], 1))
    given = [part if part != "test.npz" else "shuffled.npz" for part in CASE]
    assert invoke(["repair", *given, "-o", "none.safetensors", "--out", "chance"]) == 3
    assert "Nothing can be told of this model" in capsys.readouterr().out
    assert not Path("none.safetensors").exists()


def test_check_ends_with_the_command_that_repairs(case, capsys):
    case_ = [part for part in CASE if part != "-q"]
    assert invoke(["check", *case_, "--methods", "none", "--out", "checked"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("To look for a repair: poison-audit repair model.safetensors ")
    assert said.endswith(" -o fixed.safetensors")
    for part in ("--forget forget.csv", "--factory repaired_net:mlp", "--recipe epochs=30"):
        assert part in said
