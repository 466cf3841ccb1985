"""`train`: the model it writes, going on after an interruption, refusals, audit.toml."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from scipy.stats import binomtest
from torch.nn import functional as F

from poison_audit.atomic import from_json
from poison_audit.case.case import Case
from poison_audit.case.tables import read_table
from poison_audit.cli import invoke
from poison_audit.commands import train as trainer
from poison_audit.commands import train_partial as partial
from poison_audit.commands.config import read_config
from poison_audit.commands.train_pictures import sized
from poison_audit.methods.retrain import retrain
from poison_audit.models.checkpoint import load_model
from poison_audit.models.factory import head_size
from poison_audit.models.identify import _EmptyOnMeta, architectures
from poison_audit.models.image import CifarResNet, CifarResNetSpec, image_classifier
from poison_audit.models.seeds import Rng
from poison_audit.records import Recipe
from poison_audit.training.batches import shuffled
from poison_audit.training.ledger import Ledger
from poison_audit.verdict.record import AuditRecord

ROOT = Path(__file__).parents[2]
RECIPE = {"epochs": 3, "batch_size": 20, "lr": 0.05}
STEPS = round(3 * 90 / 20)
SPEC = CifarResNetSpec((1,), 4)
NET = """
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(),
        nn.Linear(144, 3),
    )
"""


@pytest.fixture
def case(case, monkeypatch):
    for file in ("model", "clean"):
        (case / f"{file}.safetensors").unlink()
    monkeypatch.setenv("COLUMNS", "300")
    return case


PLAIN = {"nesterov": False, "label_smoothing": 0.0, "ema": 0.0}


def run(*more, output="m.safetensors", arch=SPEC.name, test="test.npz", **recipe):
    given = ["train", "train.npz", "-o", output, "--normalize", "none"]
    given += ["--arch", arch] if arch else []
    given += ["--test", test] if test else []
    for key, value in {**RECIPE, **recipe}.items():
        given += ["--recipe", f"{key}={value}"]
    return invoke([*given, *more])


def header(path="m.safetensors"):
    with safe_open(path, "pt") as file:
        return file.metadata()


def blank():
    def build():
        return CifarResNet(SPEC, channels=1, classes=3)

    return image_classifier(build(), build=build, arch=SPEC.name, classes=3)


# what is trained


def test_the_model_is_the_one_of_a_plain_loop(case):
    assert run(schedule="cosine", weight_decay=0.01, momentum=0.8) == 0
    rng, data = Rng(0).named("train"), read_table(case / "train.npz")
    net = blank().fresh(rng.named("init")).module.train()
    sgd = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.8, weight_decay=0.01)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, STEPS)
    for _, batch in zip(range(STEPS), shuffled(data, 20, rng.named("batches")), strict=False):
        sgd.zero_grad()
        F.cross_entropy(net(batch.x), batch.y).backward()
        sgd.step()
        cosine.step()
    for name, tensor in load_file("m.safetensors").items():
        torch.testing.assert_close(tensor, net.state_dict()[name], msg=name)


def test_a_reference_is_retraining_on_what_is_retained(case):
    recipe = {"optimizer": "adamw", "lr": 0.01, "augment": "crop-flip", "schedule": "onecycle"}
    assert run("--without", "forget.csv", "--seed", "3", **recipe) == 0
    train, test = read_table(case / "train.npz"), read_table(case / "test.npz")
    whole = Case(
        model=blank(),
        retain=train.at(range(30, 90)),
        forget=train.at(range(30)),
        test=test,
        recipe=Recipe(**{**RECIPE, **recipe}),
    )
    expected = retrain(whole.model, whole, Rng(3).named("train"), ledger=Ledger())
    assert load_model(case / "m.safetensors").model.digest() == expected.digest()
    assert header()["poison_audit.samples"] == "60"


def test_the_header_says_how_it_was_made(case, capsys):
    assert run("--seed", "7", augment="flip") == 0
    out = capsys.readouterr().out
    told = header()
    recipe = {**RECIPE, "augment": "flip"}
    defaults = {
        "optimizer": "sgd",
        "momentum": 0.9,
        "weight_decay": 0.0,
        "schedule": "cosine",
        **PLAIN,
    }
    assert json.loads(told["poison_audit.recipe"]) == {**recipe, **defaults}
    assert told["poison_audit.seed"] == "7"
    assert told["poison_audit.data"] == read_table(case / "train.npz").digest()
    assert told["poison_audit.precision"] == "float32"
    assert "poison_audit.without" not in told
    loaded = load_model(case / "m.safetensors")  # the header is enough to read it
    test = np.load(case / "test.npz")
    with torch.no_grad():
        answers = loaded.model.module(torch.from_numpy(test["x"]).float() / 255).argmax(1).numpy()
    right = int((answers == test["y"]).sum())
    assert float(told["poison_audit.test_accuracy"]) == right / 60
    interval = binomtest(right, 60).proportion_ci(method="exact")
    pattern = (
        rf"m\.safetensors: 3 epochs, 90 samples, train loss \d\.\d{{4}}, test accuracy "
        rf"{right / 60:.1%} \({interval.low:.1%} to {interval.high:.1%}, 95% exact\), \d+\.\d s\n"
        r"A reference, which never saw the poison, shows what clean looks like: poison-audit train "
        r"train\.npz -o reference\.safetensors --seed 8 --without forget\.csv\n"
        r"Next: poison-audit check m\.safetensors --forget forget\.csv\n"
    )
    assert re.fullmatch(pattern, out)


def test_the_train_loss_is_the_last_epochs(case, capsys, monkeypatch):
    kept = []
    monkeypatch.setattr(trainer, "Ledger", lambda: kept.append(Ledger()) or kept[-1])
    assert run(test=None, batch_size=30) == 0
    losses = [float(loss) for loss in kept[0].losses]
    assert len(losses) == 9
    assert f"train loss {sum(losses[-3:]) / 3:.4f}, " in capsys.readouterr().out


def test_equal_commands_give_equal_files(case):
    assert run(augment="flip") == run(output="n.safetensors", augment="flip") == 0
    assert run("--seed", "1", output="o.safetensors", augment="flip") == 0
    first, second, third = ((case / f"{x}.safetensors").read_bytes() for x in "mno")
    assert first == second != third


# interruptions


def interrupt_after(monkeypatch, count):
    """Make every step write its state, and stop after so many; return the list of steps."""
    written = []
    monkeypatch.setattr(partial, "EVERY", 0.0)
    write = partial.write_partial

    def writing(path, key, snapshot):
        write(path, key, snapshot)
        written.append(snapshot.step)
        if len(written) == count:
            raise KeyboardInterrupt

    monkeypatch.setattr(partial, "write_partial", writing)
    return written


@pytest.mark.parametrize("count", [1, 5, STEPS])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_an_interrupted_run_ends_bit_for_bit_as_one_that_was_not(
    case, monkeypatch, capsys, optimizer, count
):
    (case / "dropping_net.py").write_text(NET)
    more = ("--factory", "dropping_net:build")
    settings = {"arch": None, "optimizer": optimizer, "augment": "crop-flip", "lr": 0.01}
    if optimizer == "sgd":
        settings |= {
            "nesterov": "true",
            "label_smoothing": 0.1,
            "ema": 0.8,
            "augment": "shift-flip",
        }
    assert run(*more, output="whole.safetensors", **settings) == 0
    written = interrupt_after(monkeypatch, count)
    assert run(*more, **settings) == 130
    assert (case / "m.safetensors.partial").is_file()
    assert not (case / "m.safetensors").exists()
    capsys.readouterr()
    assert run(*more, **settings) == 0
    assert f"going on after step {count}." in capsys.readouterr().err
    assert written == list(range(1, STEPS + 1))  # no step was done twice
    assert (case / "m.safetensors").read_bytes() == (case / "whole.safetensors").read_bytes()
    assert not list(case.glob("*.partial")) + list(case.glob(".*"))


@pytest.mark.parametrize(
    ("more", "recipe"),
    [
        ((), {"lr": 0.04}), ((), {"augment": "flip"}), (("--seed", "1"), {}),
        (("--without", "forget.csv"), {}), (("--arch", "cifar-resnet:1:w5"), {}),
        (("--normalize", "0.5,0.2"), {}),
    ],
)  # fmt: skip
def test_the_state_of_another_run_is_never_used(case, monkeypatch, capsys, more, recipe):
    # In a folder of its own: the audit.toml it writes would be read by the next.
    assert run(*more, output="whole/m.safetensors", **recipe) == 0
    with monkeypatch.context() as patch:
        interrupt_after(patch, 4)
        assert run() == 130
    capsys.readouterr()
    assert run(*more, **recipe) == 0
    assert "m.safetensors.partial is of other data" in capsys.readouterr().err
    assert (case / "m.safetensors").read_bytes() == (case / "whole/m.safetensors").read_bytes()


def test_a_broken_state_is_never_used(case, capsys):
    (case / "m.safetensors.partial").write_bytes(b"\xff" * 100)
    assert run(output="whole.safetensors") == run() == 0
    assert "cannot be read" in capsys.readouterr().err
    assert (case / "m.safetensors").read_bytes() == (case / "whole.safetensors").read_bytes()


def test_code_that_changed_starts_anew(case, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 4)
        assert run() == 130
    monkeypatch.setattr("poison_audit.engine.runs.code_digest", lambda *also: "other")
    assert run() == 0
    assert "starting anew" in capsys.readouterr().err


def test_divergence_writes_nothing(case, capsys, monkeypatch):
    monkeypatch.setattr(partial, "EVERY", 0.0)
    before = sorted(case.iterdir())
    assert run(lr=1e30) == 2
    err = capsys.readouterr().err
    assert "training diverged" in err
    assert "Try a lower lr (it was 1e+30)" in err
    assert sorted(case.iterdir()) == before


# audit.toml


def test_the_recipe_is_noted_and_is_enough_the_next_time(case, capsys):
    (case / "models").mkdir()
    assert run(output="models/a.safetensors", optimizer="adamw", lr=0.01) == 0
    config = read_config(case / "models" / "audit.toml")
    assert config.get("data", "train").resolve() == case / "train.npz"
    assert config.get("data", "test").resolve() == case / "test.npz"
    assert (config.get("model", "arch"), config.get("model", "normalize")) == (SPEC.name, "none")
    recipe = {"optimizer": "adamw", "lr": 0.01, "epochs": 3, "batch_size": 20, "momentum": 0.9,
              "weight_decay": 0.0, "schedule": "cosine", "augment": "none", **PLAIN}  # fmt: skip
    assert {key: config.get("training", key) for key in recipe} == recipe
    before = (case / "models" / "audit.toml").read_bytes()
    for name in ("r1", "r2", "r1"):
        code = invoke(
            f"train train.npz -o models/{name}.safetensors --without forget.csv --force".split()
        )
        assert code == 0
    config = read_config(case / "models" / "audit.toml")
    paths = [path.name for path in config.get("reference", "paths")]
    assert paths == ["r1.safetensors", "r2.safetensors"]
    assert (case / "models" / "audit.toml").read_bytes().startswith(before)
    assert json.loads(header("models/r1.safetensors")["poison_audit.recipe"]) == recipe
    assert "said otherwise" not in capsys.readouterr().err
    assert run(output="models/b.safetensors") == 0
    # What no flag says is what audit.toml says.
    assert header("models/b.safetensors")["poison_audit.recipe"].startswith(
        '{"epochs": 3, "optimizer": "adamw", "lr": 0.05,'
    )
    assert "said otherwise before: lr." in capsys.readouterr().err


def test_comments_of_a_file_written_by_hand_are_kept(case, capsys):
    text = "[training]\nlr = 0.05  # mine\nepochs = 9  # guessed\n"
    (case / "audit.toml").write_text(text)
    assert run() == 0
    assert "said otherwise before: epochs." in capsys.readouterr().err
    written = (case / "audit.toml").read_text()
    assert written.startswith("[training]\nlr = 0.05  # mine\nepochs = 3  # guessed\n")
    assert read_config(case / "audit.toml").get("data", "train") == case / "train.npz"


def test_check_audits_what_train_wrote(case):
    assert run(epochs=6) == 0
    assert run("--without", "forget.csv", output="ref.safetensors", epochs=6) == 0
    given = ["--forget", "forget.csv", "--canaries", "canaries.json", "--bases", "bases.npz",
             "--methods", "gd", "--set", "exposure.draws=8", "--out", "out"]  # fmt: skip
    code = invoke(["check", "m.safetensors", *given])
    assert code in (0, 1, 3)
    record = from_json(AuditRecord, (case / "out" / "report.json").read_text(encoding="utf-8"))
    assert record.recipe == Recipe(**{**RECIPE, "epochs": 6})  # nothing was assumed
    assert {cell.candidate for cell in record.cells} == {"deployed", "gd", "ref"}
    gd = next(cell for cell in record.cells if cell.candidate == "gd")
    assert gd.cost.allowed == pytest.approx(0.1 * 6 * 90)


# the command


def test_progress_is_plain_lines_and_quiet_is_quiet(case, capsys):
    assert run("--quiet") == 0
    assert capsys.readouterr().err == ""
    assert run("--force") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch ")]
    assert len(lines) == STEPS // math.ceil(STEPS / 10)
    assert all(re.fullmatch(r"epoch \d\.\d of 3, loss \d\.\d{4}", line) for line in lines)


def test_help_needs_no_torch():
    code = "import sys; from poison_audit.cli import invoke; invoke(['train', '-h']); " \
           "sys.exit('torch' in sys.modules)"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True)
    assert done.returncode == 0
    assert b"--without" in done.stdout


@pytest.mark.parametrize("arch", architectures())
def test_every_architecture_gets_the_tables_classes(arch):
    with _EmptyOnMeta():
        module = sized(arch, classes=7, shape=(3, 224, 224))()
    assert head_size(module, arch) == 7
