"""Commands with `--device cuda` on a pretend device: what they write is what the CPU writes."""

from __future__ import annotations

import json
import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from builders.device_cases import both, same, weights
from builders.pretend_cuda import pretend_cuda
from poison_audit.checks.waking import ALONE, TAUGHT, rate, woken
from poison_audit.cli import invoke
from poison_audit.engine.plan import make_plan
from poison_audit.engine.repairing import repairs
from poison_audit.models.seeds import Rng
from poison_audit.verdict.policy import standard_policy

pytestmark = [pytest.mark.device, pytest.mark.usefixtures("float32", "plain_page", "no_sizes")]


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr("poison_audit.checks.waking.STEPS", 4)


def on_both(*command: str) -> None:
    """Run a command that writes into `cpu`, and again into `cuda` on the device."""
    assert invoke([*command, "-o", "cpu", "--device", "cpu"]) == 0
    with pretend_cuda():
        assert invoke([*command, "-o", "cuda", "--device", "cuda"]) == 0


def alike(one: str, other: str) -> None:
    a, b = load_file(one), load_file(other)
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5)


def test_train_on_pictures(case):
    recipe = {"epochs": 1, "batch_size": 30, "lr": 0.05, "augment": "crop-flip"}
    told = [part for key, value in recipe.items() for part in ("--recipe", f"{key}={value}")]
    on_both("train", "train.npz", "--test", "test.npz", "--arch", "cifar-resnet:1:w4",
            "--normalize", "0.5/0.25", *told, "-q")  # fmt: skip
    alike("cpu", "cuda")


def test_train_on_texts_with_noise_in_their_embeddings_and_dropout(
    small_texts, tmp_path, monkeypatch
):
    shutil.copytree(small_texts, tmp_path / "t")
    monkeypatch.chdir(tmp_path / "t")
    path = Path("base/config.json")
    told = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(told | {"resid_pdrop": 0.1, "embd_pdrop": 0.1}), "utf-8")
    on_both("train", "train.csv", "--start", "base", "--recipe", "epochs=1", "--recipe",
            "optimizer=adamw", "--recipe", "batch_size=26", "--canaries", "canaries.json",
            "-q")  # fmt: skip
    alike("cpu/model.safetensors", "cuda/model.safetensors")


PLANTED = {
    "targeted": ["bases.npz", "--test", "test.npz", "--aims", "1", "--steps", "3", "--count", "3"],
    "backdoor": ["bases.npz", "--label", "0", "--clean-label", "--count", "5"],
    "indiscriminate": ["train.npz", "--steps", "3", "--count", "5"],
}


@pytest.mark.parametrize("attack", PLANTED)
def test_plant(case, attack):
    on_both("plant", *PLANTED[attack], "--attack", attack, "--model", "clean.safetensors",
            "--normalize", "none")  # fmt: skip
    (file,) = {path.name for path in Path("cpu").glob("*.npz")} & {"train.npz", "data.npz"}
    a, b = np.load(f"cpu/{file}"), np.load(f"cuda/{file}")
    assert a["id"].tolist() == b["id"].tolist()
    # A pixel whose gradient is nearly zero may move the other way: few do.
    assert np.mean(np.abs(a["x"] - b["x"]) > 1e-4) < 0.02


@pytest.mark.parametrize("kind", ["pictures", "texts"])
def test_models_are_woken_to_the_same(kind, request):
    def work(loaded):
        case, rng = loaded.case, Rng(0)
        lr = rate(case.model, case, rng)
        found = [woken(case.model, case, way, rng, lr=0.001) for way in (*ALONE, *TAUGHT)]
        return lr, [None if one is None else weights(one) for one in found]

    (lr, expected), (found_lr, found), _ = both(request.getfixturevalue(f"device_{kind}"), work)
    assert lr == found_lr
    for one, other in zip(expected, found, strict=True):
        assert (one is None) == (other is None)
        # Rounding to 8 bits may take a weight between two steps to the other one.
        assert one is None or (one - other).abs().max() < 0.02


@pytest.mark.parametrize("kind", ["pictures", "texts"])
def test_repairs_are_the_same(kind, request):
    plan = make_plan(policy=standard_policy(), methods=("none",), budgets=(1.0,))

    def work(loaded):
        tried = islice(repairs(loaded.case, plan), 5)
        return [(one.name, one.gradients, one.worst) for one in tried]

    expected, found, _ = both(request.getfixturevalue(f"device_{kind}"), work)
    assert expected
    assert same(expected, found, 0.05)
