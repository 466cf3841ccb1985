"""Recipes by name: what they say, what wins over them, and that a model of one can be audited."""

import json

import pytest
from safetensors import safe_open

import poison_audit as pa
from poison_audit.cli import invoke
from poison_audit.commands.config import Config, make_recipe
from poison_audit.commands.presets import PRESETS
from poison_audit.commands.settings import TRAINING
from poison_audit.errors import PlanError
from poison_audit.models.checkpoint import load_model


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_everything(name):
    recipe = make_recipe(Config(), [(name, "")])
    assert recipe.assumed == ()
    assert set(PRESETS[name]) == set(TRAINING)


def test_single_settings_win_wherever_they_stand_and_audit_toml_does_not():
    config = Config(values={("training", "lr"): 7.0, ("training", "epochs"): 3})
    recipe = make_recipe(config, [("epochs", "5"), ("paper", ""), ("ema", "0.5")])
    assert (recipe.epochs, recipe.lr, recipe.ema, recipe.augment) == (5, 0.1, 0.5, "crop-flip")


def test_what_cannot_be_is_refused():
    given = [("nesterov", "yes"), ("label_smoothing", "1"), ("ema", "1.5")]
    with pytest.raises(PlanError) as caught:
        make_recipe(Config(), given)
    assert len(caught.value.problems) == 3
    with pytest.raises(PlanError, match="needs a momentum"):
        make_recipe(Config(), [("nesterov", "true"), ("momentum", "0")])


def test_an_unknown_name_is_refused(case, capsys):
    assert invoke(["train", "train.npz", "-o", "m.safetensors", "--recipe", "slow"]) == 2
    assert "expected KEY=VALUE, fast or paper" in capsys.readouterr().err


def test_a_model_of_a_preset_is_read_by_its_header(case, monkeypatch):
    given = ["--arch", "cifar-speed:w4-6", "--normalize", "none", "--recipe", "fast"]
    more = ["--recipe", "epochs=2", "--recipe", "batch_size=30", "--recipe", "lr=0.01"]
    assert invoke(["train", "train.npz", "-o", "s.safetensors", *given, *more]) == 0
    with safe_open("s.safetensors", "pt") as file:
        told = json.loads(file.metadata()["poison_audit.recipe"])
    assert told["nesterov"] is True
    assert (told["label_smoothing"], told["ema"], told["augment"]) == (0.2, 0.99, "shift-flip")
    assert load_model(case / "s.safetensors").model.arch == "cifar-speed:w4-6"


@pytest.mark.parametrize("said", [True, False])
def test_epochs_that_were_said_beside_a_wrong_key_are_not_asked_for(said, case):
    recipe = {"learning_rate": 1.0} | ({"epochs": 3} if said else {})
    with pytest.raises(pa.InputError) as refused:
        pa.audit(
            "model.safetensors", train="train.npz", test="test.npz", forget="forget.csv",
            recipe=recipe, normalize="none",
        )  # fmt: skip
    told = str(refused.value)
    assert "learning_rate" in told
    assert ("epochs of the original training are not given" in told) is not said
