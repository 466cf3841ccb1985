"""`init`: what an audit.toml says at once, and what it leaves to be filled in."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel

from builders.small_text import LENGTH, WIDTH, tokenizer, write_decoder
from poison_audit.cli import invoke
from poison_audit.commands.config import read_config
from poison_audit.commands.doctor import describe_installation
from poison_audit.models.image import CifarResNet, CifarResNetSpec


@pytest.fixture
def case(tmp_path, monkeypatch):
    """planted/ as `plant` and `train` leave it."""
    folder = tmp_path / "planted"
    write_decoder(folder / "model")
    write_decoder(folder / "retrained")
    for name in ("train.csv", "test.csv", "forget.csv", "canaries.json", "strings.json",
                 "trigger.json", "targets.csv"):  # fmt: skip
        (folder / name).write_text("")
    (folder / "test").mkdir()  # a folder of tests is no table of texts
    monkeypatch.chdir(tmp_path)
    return folder


def written(path: Path) -> tuple[dict, set[str]]:
    """Return what an audit.toml says, and the keys that it marks."""
    text = path.read_text(encoding="utf-8")
    asked = {line.split()[1] for line in text.splitlines() if line.startswith("# ")}
    return tomllib.loads(text), asked


RECIPE = {"epochs", "lr", "batch_size", "optimizer", "schedule"}


def test_a_folder_of_texts_finds_what_lies_beside_it(case, capsys):
    assert invoke(["init", "planted/model"]) == 0
    said, asked = written(case / "model/audit.toml")
    assert {table: keys for table, keys in said.items() if keys} == {
        "model": {"arch": "transformers:gpt2", "max_tokens": LENGTH},
        "data": {"train": "../train.csv", "test": "../test.csv"},
        "evidence": {
            "gaussian": {"canaries": "../canaries.json"},
            "token-canary": {"strings": "../strings.json"},
            "backdoor": {"trigger": "../trigger.json"},
            "targeted": {"targets": "../targets.csv"},
        },
        "reference": {"paths": ["../retrained"]},
    }
    assert asked == RECIPE | {"start"}
    assert "start, epochs" in capsys.readouterr().out
    config = read_config(case / "model/audit.toml")  # and it is one that is read
    assert config.get("evidence.backdoor", "trigger").resolve() == case / "trigger.json"


def test_what_lies_in_the_folder_itself_comes_first(case):
    (case / "model/train.parquet").write_text("")
    assert invoke(["init", "planted/model", "-o", "planted/audit.toml"]) == 0
    said, _ = written(case / "audit.toml")
    assert said["data"] == {"train": "model/train.parquet", "test": "test.csv"}
    assert said["reference"] == {"paths": ["retrained"]}


def test_a_causal_model_is_asked_for_its_words(tmp_path, capsys):
    words = tokenizer()
    config = GPT2Config(vocab_size=len(words), n_positions=LENGTH, n_embd=WIDTH, n_layer=1,
                        n_head=2)  # fmt: skip
    with torch.random.fork_rng():
        GPT2LMHeadModel(config).save_pretrained(tmp_path / "m")
    words.save_pretrained(tmp_path / "m")
    assert invoke(["init", str(tmp_path / "m")]) == 0
    said, asked = written(tmp_path / "m/audit.toml")
    assert said["model"] == {"arch": "transformers:gpt2"}
    assert asked == RECIPE | {
        "max_tokens", "start", "label_words", "prompt", "train", "test", "canaries", "paths",
    }  # fmt: skip


def test_pictures_are_asked_for_what_pictures_need(tmp_path):
    net = CifarResNet(CifarResNetSpec((1,), 4), channels=1, classes=3)
    save_file(net.state_dict(), tmp_path / "m.safetensors")
    np.savez(tmp_path / "train.npz", x=np.zeros(1))
    (tmp_path / "test").mkdir()
    (tmp_path / "trigger.json").write_text("")
    assert invoke(["init", str(tmp_path / "m.safetensors")]) == 0
    said, asked = written(tmp_path / "audit.toml")
    assert {table: keys for table, keys in said.items() if keys} == {
        "model": {"arch": "cifar-resnet:1:w4"},
        "data": {"train": "train.npz", "test": "test"},
        "evidence": {"gaussian": {}, "backdoor": {"trigger": "trigger.json"}},
    }
    assert asked == RECIPE | {"normalize", "augment", "canaries", "bases", "paths"}


def test_a_file_that_is_there_is_kept(case, capsys):
    (case / "model/audit.toml").write_text("[data]\n")
    assert invoke(["init", "planted/model"]) == 2
    assert "Overwrite it by --force" in capsys.readouterr().err
    assert (case / "model/audit.toml").read_text() == "[data]\n"
    assert invoke(["init", "planted/model", "--force"]) == 0


def test_doctor_names_what_texts_need():
    assert any(line.startswith("transformers ") for line in describe_installation().splitlines())


def test_a_pickle_is_drafted_from_with_the_flag(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    module = CifarResNet(CifarResNetSpec((1, 1), 4), channels=3, classes=5)
    torch.save({"params": module.state_dict(), "epoch": 3}, "net.th")
    assert invoke(["init", "net.th"]) == 2
    assert "--allow-pickle" in capsys.readouterr().err
    assert invoke(["init", "net.th", "--allow-pickle", "--state-key", "params"]) == 0
    said, _ = written(tmp_path / "audit.toml")
    assert said["model"] == {"arch": "cifar-resnet:1-1:w4", "state_key": "params"}


@pytest.mark.parametrize(
    ("there", "train", "test"),
    [
        (("train.tsv", "test.csv.gz"), "train.tsv", "test.csv.gz"),
        (("train.jsonl", "validation.jsonl"), "train.jsonl", "validation.jsonl"),
        (("data/train.npz", "data/val.npz"), "data/train.npz", "data/val.npz"),
        (("data/train/a/0.png", "data/test/a/0.png"), "data/train/", "data/test/"),
        (("data/train-00000-of-00001.parquet",), "data", "data"),
        (("dataset/dataset_dict.json",), "dataset", "dataset"),
        (
            ("cifar-10-batches-py/data_batch_1", "cifar-10-batches-py/batches.meta"),
            "cifar-10-batches-py",
            "cifar-10-batches-py",
        ),
    ],
)
def test_tables_are_found_as_people_keep_them(tmp_path, monkeypatch, there, train, test):
    monkeypatch.chdir(tmp_path)
    spec = CifarResNetSpec((1,), 4)
    network = CifarResNet(spec, channels=1, classes=3)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    for name in there:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert invoke(["init", "model.safetensors"]) == 0
    said, _ = written(tmp_path / "audit.toml")
    assert {key: value.rstrip("/") for key, value in said["data"].items()} == {
        "train": train.rstrip("/"), "test": test.rstrip("/"),
    }  # fmt: skip
