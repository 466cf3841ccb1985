import dataclasses
import re
from pathlib import Path

import pytest

from poison_audit.commands.arguments import check_settings
from poison_audit.commands.config import find_config, make_recipe, read_config
from poison_audit.commands.inputs import read_plan
from poison_audit.commands.settings import TABLES
from poison_audit.engine import plan as plan_room
from poison_audit.errors import InputError, PlanError
from poison_audit.records import Policy, Recipe
from poison_audit.verdict.policy import standard_policy

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
[evidence.targeted]
targets = "targets.csv"
[evidence.backdoor]
trigger = "../trigger.json"
[reference]
paths = ["a.safetensors"]
[policy]
alpha = 0.01
gate = "any-method"
[policy.tolerances]
gaussian = 0.3
indiscriminate = 0.02
[plan]
methods = ["gd", "scrub"]
budget = 0.05
found = 0.5
found_seed = 3
[methods.scrub]
alpha = 0.5
[probes.exposure]
draws = 64
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "audit.toml"
    path.write_text(text, encoding="utf-8")
    return path


def plan_of(config, *, budgets=None, settings=None, tolerances=None, **flags):
    """Plan as `check` does: what the command line's values say, over an audit.toml."""
    pairs = [(f"{name}.{key}", str(value)) for name, values in (settings or {}).items()
             for key, value in values.items()]  # fmt: skip
    given = {
        "model": Path("nowhere/m"), "forget": None, "config": config.path, "recipe": None,
        "factory": None, "budget": budgets, "settings": pairs, "exit_zero": False,
        "tolerance": [(name, str(value)) for name, value in (tolerances or {}).items()], **flags,
    }  # fmt: skip
    asked = check_settings(given)
    assert not asked.problems
    return read_plan(asked)


def test_paths_are_relative_to_the_file(tmp_path):
    config = read_config(write(tmp_path, FULL))
    assert config.get("data", "train") == tmp_path / "t.npz"
    assert config.get("evidence.gaussian", "canaries") == tmp_path / "canaries.json"
    assert config.get("evidence.targeted", "targets") == tmp_path / "targets.csv"
    assert config.get("evidence.backdoor", "trigger") == tmp_path / "../trigger.json"
    assert (config.get("plan", "found"), config.get("plan", "found_seed")) == (0.5, 3)
    assert config.get("reference", "paths") == (tmp_path / "a.safetensors",)
    assert config.params == {"scrub": {"alpha": 0.5}, "exposure": {"draws": 64}}


def test_an_editor_s_mark_of_utf_8_is_no_text(tmp_path):
    path = write(tmp_path, FULL)
    path.write_text("\ufeff" + path.read_text("utf-8"), encoding="utf-8")
    assert read_config(path).get("plan", "found") == 0.5


def test_a_plan_from_the_file_alone(tmp_path):
    made = plan_of(read_config(write(tmp_path, FULL)))
    assert [step.name for step in made.methods] == ["gd", "scrub"]
    assert made.methods[1].params["alpha"] == 0.5
    assert made.methods[1].params["gamma"] == 0.99  # the method's own default, written down
    assert {step.name: step.params for step in made.probes}["exposure"]["draws"] == 64
    assert made.budget == 0.05
    assert made.policy.alpha == 0.01
    assert made.policy.tolerances == {
        **standard_policy().tolerances,
        "gaussian": 0.3,
        "indiscriminate": 0.02,
    }


@pytest.mark.parametrize(
    ("said", "budget", "sweep"),
    [("0.05", 0.05, ()), ("[0.02, 0.1, 0.05]", 0.1, (0.05, 0.02)), ("[0.1, 0.1]", 0.1, ())],
)
def test_several_budgets_are_the_largest_and_a_sweep(tmp_path, said, budget, sweep):
    made = plan_of(read_config(write(tmp_path, f"[plan]\nbudget = {said}\n")))
    assert (made.budget, made.sweep) == (budget, sweep)


@pytest.mark.parametrize("said", ["[]", '["0.1"]', '"0.1"', "[0.1, true]", "[[0.1]]"])
def test_what_is_no_budget_is_refused(tmp_path, said):
    with pytest.raises(InputError, match="a number or a list of them"):
        read_config(write(tmp_path, f"[plan]\nbudget = {said}\n"))


@pytest.mark.parametrize("digits", [400, 5000])  # past any float, and past what int() reads
@pytest.mark.parametrize(
    "text",
    ["[plan]\nbudget = {}\n", "[training]\nlr = {}\n", "[policy.tolerances]\ngaussian = {}\n"],
)
def test_a_whole_number_too_large_for_any_float_is_refused(tmp_path, text, digits):
    with pytest.raises(InputError, match=r"expected a number|digits"):
        read_config(write(tmp_path, text.format("1" + "0" * digits)))


def test_a_flag_wins_over_the_file(tmp_path):
    made = plan_of(
        read_config(write(tmp_path, FULL)), methods=["scrub", "ssd"], alpha=0.02, gate="deployed",
        budgets=[0.1], settings={"scrub": {"alpha": 0.7}, "exposure": {"draws": 8}},
        tolerances={"gaussian": 0.2},
    )  # fmt: skip
    assert [step.name for step in made.methods] == ["scrub", "ssd"]
    assert made.methods[0].params["alpha"] == 0.7
    tolerances = {**standard_policy().tolerances, "gaussian": 0.2, "indiscriminate": 0.02}
    assert made.policy == Policy(alpha=0.02, gate="deployed", tolerances=tolerances)


def test_token_canaries_have_a_key_a_tolerance_and_draws(tmp_path):
    text = """
    [evidence.token-canary]
    strings = "s.json"
    [policy.tolerances]
    token-canary = 0.6
    [probes.token-canary]
    draws = 16
    """
    config = read_config(write(tmp_path, text))
    assert config.get("evidence.token-canary", "strings") == tmp_path / "s.json"
    made = plan_of(config)
    assert made.policy.tolerances == {**standard_policy().tolerances, "token-canary": 0.6}
    assert {s.name: s.params for s in made.probes}["token-canary"]["draws"] == 16
    flags = {"settings": {"token-canary": {"draws": 8}}, "tolerances": {"token-canary": 0.7}}
    made = plan_of(config, **flags)
    assert made.policy.tolerances["token-canary"] == 0.7
    assert {s.name: s.params for s in made.probes}["token-canary"]["draws"] == 8
    assert plan_of(read_config_empty()).policy.tolerances["token-canary"] == 0.57


@pytest.mark.parametrize("value", [0.5, 1.0, 0.2])
def test_a_tolerance_of_token_canaries_is_a_chance_above_one_half(value):
    with pytest.raises(
        PlanError, match=r"tolerance of token-canary: must be above 0\.5 and below 1"
    ):
        plan_of(read_config_empty(), tolerances={"token-canary": value})
    with pytest.raises(PlanError, match=r"token-canary\.draws must be a whole number"):
        plan_of(read_config_empty(), settings={"token-canary": {"draws": value}})


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
    found = "half"
    found_seed = 1.5
    [policy.tolerances]
    backdoor = "small"
    """
    with pytest.raises(InputError) as caught:
        read_config(write(tmp_path, text))
    said = [re.sub(r"^.*audit\.toml", "audit.toml", str(p)) for p in caught.value.problems]
    assert said == [
        "audit.toml: unknown key 'stray' outside every table. Known: " + ", ".join(sorted(TABLES))
        + ".",
        "audit.toml [model]: unknown key 'archh'. Did you mean arch?",
        "audit.toml: unknown table [dta]. Did you mean data?",
        "audit.toml [training] epochs: expected a number above 0, got -1.",
        "audit.toml [training] batch_size: expected a whole number above 0, got 1.5.",
        "audit.toml [training] optimizer: expected one of sgd, adamw, got 'adam'.",
        "audit.toml [policy] alpha: expected a number, got '0.05'.",
        "audit.toml [policy.tolerances] backdoor: expected a number, got 'small'.",
        "audit.toml [plan] methods: expected a list of strings, got 'gd'.",
        "audit.toml [plan] seeds: expected a whole number, got True.",
        "audit.toml [plan] found: expected a number, got 'half'.",
        "audit.toml [plan] found_seed: expected a whole number, got 1.5.",
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
            config, methods=["scrub", "gdd"], budgets=[1.5], alpha=0.9, seeds=0,
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
    from poison_audit.commands.config import Config

    return Config()


NEW = ("nesterov", "label_smoothing", "ema")


def test_recipe_flags_win_and_what_nobody_said_is_assumed(tmp_path):
    config = read_config(write(tmp_path, FULL))
    recipe = make_recipe(config, [("lr", "0.05"), ("augment", "flip")])
    expected = Recipe(
        epochs=30, lr=0.05, optimizer="adamw", augment="flip",
        assumed=("momentum", "weight_decay", "batch_size", "schedule", *NEW),
    )  # fmt: skip
    assert recipe == expected
    with pytest.raises(PlanError) as caught:
        make_recipe(config, [("lrr", "1"), ("epochs", "many"), ("batch_size", "2.5")])
    assert len(caught.value.problems) == 3


def test_the_config_beside_the_model_is_found_and_none_beside_the_forget_set(tmp_path):
    model, forget = tmp_path / "a" / "m.safetensors", tmp_path / "b" / "forget.csv"
    for folder in (model.parent, forget.parent):
        folder.mkdir()
    write(forget.parent, "")
    assert find_config(model) is None
    beside = write(model.parent, "")
    assert find_config(model) == find_config(model.parent) == beside
    folder = model.parent / "network"
    folder.mkdir()
    assert find_config(folder) == beside  # as `train` writes it, beside a language model's folder
    assert find_config(folder.parent / "elsewhere" / "m.safetensors") is None


def test_every_recipe_field_can_be_said():
    fields = {field.name for field in dataclasses.fields(Recipe)} - {"assumed"}
    assert fields == set(TABLES["training"])


def test_every_tolerance_can_be_said():
    assert set(TABLES["policy.tolerances"]) == set(standard_policy().tolerances)
