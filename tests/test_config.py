import dataclasses
import re
from pathlib import Path

import pytest

from audit import plan as plan_room
from audit.config import KEYS, find_config, make_recipe, read_config
from audit.errors import InputError, PlanError
from audit.records import Policy, Recipe

FULL = """
[model]
arch = "resnet18"
normalize = "cifar10"
[data]
train = "t.npz"
test = "../test"
names = ["cat", "dog"]
[training]
epochs = 30
lr = 0.1
optimizer = "adamw"
[evidence.gaussian]
canaries = "canaries.json"
[reference]
paths = ["a.safetensors"]
[policy]
alpha = 0.01
gate = "any-method"
[policy.tolerances]
gaussian = 0.3
[plan]
methods = ["gd", "scrub"]
budget = 0.05
[methods.scrub]
alpha = 0.5
[probes.exposure]
draws = 64
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "audit.toml"
    path.write_text(text, encoding="utf-8")
    return path


def plan_of(config, **flags):
    given = {
        "methods": None, "settings": {}, "tolerances": {}, "alpha": None, "gate": None,
        "budget": None, "seed": None, "seeds": None, "exit_zero": False, **flags,
    }  # fmt: skip
    return plan_room.make_plan(config, **given)


def test_paths_are_relative_to_the_file(tmp_path):
    config = read_config(write(tmp_path, FULL))
    assert config.get("data", "train") == tmp_path / "t.npz"
    assert config.get("evidence.gaussian", "canaries") == tmp_path / "canaries.json"
    assert config.get("reference", "paths") == (tmp_path / "a.safetensors",)
    assert config.params == {"scrub": {"alpha": 0.5}, "exposure": {"draws": 64}}


def test_a_plan_from_the_file_alone(tmp_path):
    made = plan_of(read_config(write(tmp_path, FULL)))
    assert [step.name for step in made.methods] == ["gd", "scrub"]
    assert made.methods[1].params["alpha"] == 0.5
    assert made.methods[1].params["gamma"] == 0.99  # the method's own default, written down
    assert {step.name: step.params for step in made.probes}["exposure"]["draws"] == 64
    assert made.budget == 0.05
    assert made.policy.alpha == 0.01
    assert made.policy.tolerances == {"gaussian": 0.3, "exposure": 0.57, "utility": 0.02}


def test_a_flag_wins_over_the_file(tmp_path):
    made = plan_of(
        read_config(write(tmp_path, FULL)), methods=["scrub", "ssd"], alpha=0.02, gate="deployed",
        budget=0.1, settings={"scrub": {"alpha": 0.7}, "exposure": {"draws": 8}},
        tolerances={"gaussian": 0.2},
    )  # fmt: skip
    assert [step.name for step in made.methods] == ["scrub", "ssd"]
    assert made.methods[0].params["alpha"] == 0.7
    assert made.policy == Policy(
        alpha=0.02, gate="deployed", tolerances={"gaussian": 0.2, "exposure": 0.57, "utility": 0.02}
    )


def test_every_problem_of_a_file_at_once(tmp_path):
    text = """
    stray = 1
    [model]
    archh = "resnet18"
    [dta]
    train = "x"
    [training]
    epochs = -1
    batch_size = 1.5
    optimizer = "adam"
    [policy]
    alpha = "0.05"
    [plan]
    methods = "gd"
    seeds = true
    """
    with pytest.raises(InputError) as caught:
        read_config(write(tmp_path, text))
    said = [re.sub(r"^.*audit\.toml", "audit.toml", str(p)) for p in caught.value.problems]
    assert said == [
        "audit.toml: unknown key 'stray' outside every table. Known: " + ", ".join(sorted(KEYS))
        + ".",
        "audit.toml [model]: unknown key 'archh'. Did you mean arch?",
        "audit.toml: unknown table [dta]. Did you mean data?",
        "audit.toml [training] epochs: expected a number above 0, got -1.",
        "audit.toml [training] batch_size: expected a whole number above 0, got 1.5.",
        "audit.toml [training] optimizer: expected one of sgd, adamw, got 'adam'.",
        "audit.toml [policy] alpha: expected a number, got '0.05'.",
        "audit.toml [plan] methods: expected a list of strings, got 'gd'.",
        "audit.toml [plan] seeds: expected a whole number, got True.",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["[model", "a = \n", "x = 1\x00"])
def test_not_toml(tmp_path, text):
    with pytest.raises(InputError, match="not valid TOML"):
        read_config(write(tmp_path, text))


def test_not_utf8_and_not_there(tmp_path):
    (tmp_path / "audit.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not valid TOML"):
        read_config(tmp_path / "audit.toml")
    with pytest.raises(InputError, match="cannot be read"):
        read_config(tmp_path / "none.toml")


def test_unknown_names_and_parameters_are_refused_all_at_once(tmp_path):
    config = read_config(
        write(tmp_path, "[methods.srub]\nalpha = 1\n[probes.exposure]\ndraw = 2\n")
    )
    with pytest.raises(PlanError) as caught:
        plan_of(
            config, methods=["scrub", "gdd"], budget=1.5, alpha=0.9, seeds=0,
            settings={"scrub": {"alfa": 1.0, "temperature": "hot"}, "ssd": {"alpha": 1.0}},
            tolerances={"gauss": 0.1, "exposure": 0.4},
        )  # fmt: skip
    said = str(caught.value)
    for part in (
        "unknown method 'gdd'. Did you mean gd?", "'srub'. Did you mean scrub?", "alfa",
        "temperature", "ssd is not among the methods to run", "exposure has no parameter 'draw'",
        "named 'gauss'. Did you mean gaussian?", "tolerance of exposure", "--budget", "--alpha",
        "--seeds",
    ):  # fmt: skip
        assert part in said, part


def test_what_only_the_model_shows_to_be_impossible():
    made = plan_of(read_config_empty(), methods=["cf_k"], settings={"cf_k": {"k": 9}}, gate="minne")
    with pytest.raises(PlanError) as caught:
        plan_room.check_plan(made, blocks=6, candidates=["mine"])
    assert "1..6" in str(caught.value)
    assert "Did you mean mine?" in str(caught.value)


def read_config_empty():
    from audit.config import Config

    return Config()


def test_recipe_flags_win_and_what_nobody_said_is_assumed(tmp_path):
    config = read_config(write(tmp_path, FULL))
    recipe = make_recipe(config, {"lr": "0.05", "augment": "flip"})
    expected = Recipe(
        epochs=30, lr=0.05, optimizer="adamw", augment="flip",
        assumed=("momentum", "weight_decay", "batch_size", "schedule"),
    )  # fmt: skip
    assert recipe == expected
    with pytest.raises(PlanError) as caught:
        make_recipe(config, {"lrr": "1", "epochs": "many", "batch_size": "2.5"})
    assert len(caught.value.problems) == 3


def test_the_config_beside_the_model_is_found_before_the_one_beside_forget(tmp_path):
    model, forget = tmp_path / "a" / "m.safetensors", tmp_path / "b" / "forget.csv"
    for folder in (model.parent, forget.parent):
        folder.mkdir()
    assert find_config(model, forget) is None
    beside = write(forget.parent, "")
    assert find_config(model, forget) == beside
    first = write(model.parent, "")
    assert find_config(model, forget) == first
    assert find_config(model.parent, None) == first


def test_every_recipe_field_can_be_said():
    fields = {field.name for field in dataclasses.fields(Recipe)} - {"assumed"}
    assert fields == set(KEYS["training"])
