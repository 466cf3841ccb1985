"""What cannot be trained is refused in words, every problem at once."""

from __future__ import annotations

import numpy as np
import pytest

from poison_audit.cli import invoke
from poison_audit.models.image import CifarResNetSpec

RECIPE = {"epochs": 3, "batch_size": 20, "lr": 0.05}
SPEC = CifarResNetSpec((1,), 4)


@pytest.fixture
def case(case, monkeypatch):
    for file in ("model", "clean"):
        (case / f"{file}.safetensors").unlink()
    monkeypatch.setenv("COLUMNS", "300")
    return case


def run(*more, output="m.safetensors", arch=SPEC.name, test="test.npz", **recipe):
    given = ["train", "train.npz", "-o", output, "--normalize", "none"]
    given += ["--arch", arch] if arch else []
    given += ["--test", test] if test else []
    for key, value in {**RECIPE, **recipe}.items():
        given += ["--recipe", f"{key}={value}"]
    return invoke([*given, *more])


# refusals


def test_every_problem_at_once(case, capsys):
    assert invoke(["train", "train.npz", "-o", "m.safetensors"]) == 2
    err = capsys.readouterr().err
    assert "3 problems" in err
    for part in ("--recipe epochs=N", "--normalize cifar10", "--arch NAME"):
        assert part in err
    (case / "audit.toml").write_text("[model]\narchh = 'x'\n")
    (case / "m.safetensors").write_bytes(b"")
    given = ["--arch", "resnet18", "--normalize", "cifar100", "--device", "nowhere",
             "--test", "none.npz", "--without", "none.csv", "--recipe", "epochs=0",
             "--recipe", "lrr=1"]  # fmt: skip
    assert invoke(["train", "train.npz", "-o", "m.safetensors", *given]) == 2
    err = capsys.readouterr().err
    assert "9 problems" in err
    for part in (
        "Did you mean arch?", "Overwrite it by --force", "'cifar100'", "nowhere", "none.npz",
        "none.csv", "epochs=0: expected a number above 0", "Did you mean lr?",
        "resnet18 takes pictures of 3 channels, the table's have 1",
    ):  # fmt: skip
        assert part in err, part
    assert (case / "m.safetensors").read_bytes() == b""


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--arch", "cifar-resnet:1:w4", "--factory", "a:b"), "both an architecture"),
        (("--arch", "cifar-resnet18000"), "unknown architecture"),
        (("--normalize", "0,0,0/1,1,1"), "the normalisation has 3 channels, not 1"),
        (("--names", "a,b"), "label"),
        (("--test", "train.npz"), "train.npz"),
        (("-o", "."), "is a folder"),
        (("--arch", "cifar-resnet:1-1-1-1-1-1:w4", "--recipe", "batch_size=1"), "does not train"),
    ],
)
def test_what_does_not_fit_is_refused(case, capsys, flags, said):
    assert run(*flags) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("labels", [[0] * 6, [0, 1, 2, 3, 4, 6], [-1, 0, 1, 0, 1, 0]])
def test_labels_that_number_no_classes_are_refused(case, capsys, labels):
    np.savez(case / "train.npz", x=np.zeros((6, 1, 8, 8), np.uint8), y=np.array(labels))
    assert run(test=None) == 2
    assert "label" in capsys.readouterr().err


def test_nothing_left_to_train_on_is_refused(case, capsys):
    (case / "all.csv").write_text("index\n" + "\n".join(map(str, range(90))) + "\n")
    assert run("--without", "all.csv") == 2
    assert "every training sample is to be left out" in capsys.readouterr().err


def test_an_output_is_overwritten_only_by_force(case):
    assert run() == 0
    before = (case / "m.safetensors").read_bytes()
    assert run("--seed", "1") == 2
    assert (case / "m.safetensors").read_bytes() == before
    assert run("--seed", "1", "--force") == 0
    assert (case / "m.safetensors").read_bytes() != before
