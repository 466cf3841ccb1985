"""The table of methods: what a plan may ask of each."""

import ast
import inspect
import math
from pathlib import Path

import pytest

from poison_audit.methods import (
    METHODS,
    REFERENCES,
    UNLEARNING,
    check_params,
    filled,
    parameters,
)


def test_the_table_names_them_and_the_reference():
    nine = ("gd", "ngd", "ga", "eu_k", "cf_k", "scrub", "neggrad_plus", "npo", "ssd")
    more = ("head_edit", "restamp", "potion", "i_bau", "weight_distortion")
    assert (*nine, *more) == UNLEARNING
    assert tuple(METHODS) == (*nine, *more, "retrain")
    assert REFERENCES == ("retrained",)


def test_no_method_is_named_outside_its_room():
    root = Path(__file__).parents[2]
    names = {*METHODS, *REFERENCES}
    for path in (*root.glob("audit/**/*.py"), *root.glob("reports/**/*.py")):
        if "methods" in path.parts:
            continue
        tree = ast.parse(path.read_text("utf-8"))
        told = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        assert not names & told, path


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_described_and_its_defaults_are_within_their_ranges(name):
    method = METHODS[name]
    assert method.run.__name__ == name
    assert method.title
    assert "arXiv:" in method.source
    assert method.source.split("arXiv:")[1] in inspect.getmodule(method.run).__doc__
    assert method.needs
    assert method.needs <= {"retain", "forget"}
    words = {key for key, value in parameters(name).items() if isinstance(value, str)}
    assert set(method.ranges) == set(parameters(name)) - words
    assert check_params(name, parameters(name), blocks=4) == []


@pytest.mark.parametrize(
    ("name", "preset"), [(name, preset) for name in METHODS for preset in METHODS[name].presets]
)
def test_a_preset_fills_what_is_not_given(name, preset):
    own = METHODS[name].presets[preset]
    assert check_params(name, {"preset": preset, **own}, blocks=4) == []
    assert filled(name, {"preset": preset}) == {**parameters(name), **own}
    assert filled(name, {}) == filled(name, {"preset": "default"}) == parameters(name)
    assert filled(name, {"preset": preset, "lr": 7.0})["lr"] == 7.0
    changed = {key for key, value in own.items() if parameters(name)[key] != value}
    assert changed


def test_parameters_are_the_numbers_of_the_signature():
    assert parameters("ssd") == {"alpha": 10.0, "lam": 1.0}
    assert parameters("gd") == {"lr": None, "batch_norm": "train"}
    assert parameters("retrain") == {}
    assert parameters("ngd")["sigma"] ** 2 == pytest.approx(1e-7)


def test_ssd_is_idle_from_the_largest_ratio_on():
    """Of 3,000 training and 40 forget samples an importance is at most 75 times the mean's."""
    idle = METHODS["ssd"].idle
    assert idle({"alpha": 74.9}, 3000, 40) is None
    assert "ratio is at most 75" in idle({"alpha": 75.0}, 3000, 40)
    assert METHODS["gd"].idle({}, 3000, 40) is None


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("gd", {"lr": 1}),
        ("gd", {"lr": 1e-9}),
        ("neggrad_plus", {"beta": 0}),
        ("neggrad_plus", {"beta": 1.0}),
        ("cf_k", {"k": 4}),
        ("scrub", {"max_epochs": 0, "alpha": 0.0}),
        ("ssd", {}),
        ("npo", {"momentum": None, "batch_size": 3, "batch_norm": "eval"}),
        ("ga", {"preset": "abl", "optimizer": "adamw"}),
    ],
)
def test_possible_numbers_pass(name, params):
    assert check_params(name, params, blocks=4) == []


@pytest.mark.parametrize(
    ("name", "key", "value", "said"),
    [
        ("gd", "lr", 0.0, "expected a number above 0, got 0.0"),
        ("gd", "lr", -1, "above 0"),
        ("gd", "lr", "fast", "got 'fast'"),
        ("gd", "lr", math.nan, "got nan"),
        ("gd", "lr", math.inf, "got inf"),
        ("gd", "lr", 10**400, "expected a number above 0"),
        ("gd", "lr", True, "got True"),
        ("ngd", "sigma", -0.1, "expected a number of at least 0, got -0.1"),
        ("ngd", "sigma", None, "got None"),
        ("neggrad_plus", "beta", 1.5, "expected a number in [0, 1], got 1.5"),
        ("cf_k", "k", 0, "expected a whole number of at least 1, got 0"),
        ("eu_k", "k", 2.0, "expected a whole number of at least 1, got 2.0"),
        ("cf_k", "k", 9, "k = 9, but the model has 4 blocks. Use 1..4"),
        ("scrub", "max_epoch", 3, "scrub has no such parameter. Did you mean max_epochs?"),
        ("retrain", "lr", 0.1, "retrain has no such parameter. It takes none."),
        ("ga", "preset", "able", "expected one of default, abl, got 'able'"),
        ("ssd", "preset", "abl", "expected nothing but default, got 'abl'"),
        ("ga", "preset", ["abl"], "expected one of default, abl, got ['abl']"),
        ("ga", "batch_norm", "joint", "expected one of eval, train, got 'joint'"),
        ("npo", "batch_norm", True, "expected one of eval, train, joint, got True"),
        ("ga", "batch_size", 2.5, "expected a whole number of at least 1, got 2.5"),
        ("npo", "momentum", 1.5, "expected a number in [0, 1], got 1.5"),
    ],
)
def test_impossible_numbers_are_named(name, key, value, said):
    (problem,) = check_params(name, {key: value}, blocks=4)
    assert problem.where == f"[methods.{name}] {key}"
    assert said in str(problem)


def test_the_number_of_blocks_may_not_be_known_yet():
    assert check_params("cf_k", {"k": 9}) == []


def test_all_problems_come_at_once():
    wrong = {"lr": 0, "gama": 1, "temperature": -1}
    assert len(check_params("scrub", wrong)) == 3
