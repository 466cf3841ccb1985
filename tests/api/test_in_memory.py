"""Models and tables as transformers and datasets hold them in memory; findings as a DataFrame."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import poison_audit as pa
from builders import repairable
from poison_audit.atomic import from_json
from poison_audit.cli import invoke
from poison_audit.verdict.record import AuditRecord

LIGHT = {"backdoor": {"draws": 40}, "token-canary": {"draws": 8}, "exposure": {"draws": 8}}
pytestmark = pytest.mark.usefixtures("no_sizes", "plain_page")


def figures(record: AuditRecord) -> list[tuple[object, ...]]:
    return [(f.candidate, f.probe, f.way, f.statistic, f.outcome) for f in record.findings]


@pytest.fixture(autouse=True)
def no_bars():
    datasets.disable_progress_bars()


def test_a_model_with_its_tokenizer_and_tables_of_datasets(small_texts, tmp_path, monkeypatch):
    """The same figures as of the same things as files, and what a DataFrame shows of them."""
    monkeypatch.chdir(shutil.copytree(small_texts, tmp_path / "case"))
    model = AutoModelForSequenceClassification.from_pretrained("model")
    tokenizer = AutoTokenizer.from_pretrained("model")
    rows = {name: pd.read_csv(f"{name}.csv") for name in ("train", "test", "forget")}
    evidence = ["canaries.json", "strings.json", "trigger.json"]
    record = pa.probe(
        model, tokenizer=tokenizer, train=Dataset.from_pandas(rows["train"]),
        test=Dataset.from_pandas(rows["test"]), forget=rows["forget"], evidence=evidence,
        settings=LIGHT, recipe={"epochs": 20},
    )  # fmt: skip
    Path("audit.toml").unlink()  # what it says is said by flags, as above
    flags = [part for name, one in LIGHT.items() for key, value in one.items()
             for part in ("--set", f"{name}.{key}={value}")]  # fmt: skip
    files = ["--train", "train.csv", "--test", "test.csv", "--recipe", "epochs=20"]
    keys = [part for name in evidence for part in (f"--{name.removesuffix('.json')}", name)]
    code = invoke(["probe", "model", "--forget", "forget.csv", *files, *keys, *flags, "-q",
                   "--out", "run"])  # fmt: skip
    theirs = from_json(AuditRecord, Path("run/report.json").read_text("utf-8"))
    assert code == record.verdict.exit_code == 3  # so few draws cannot tell a trigger
    assert figures(record) == figures(theirs)
    frame = record.to_frame()
    assert isinstance(frame, pd.DataFrame)
    assert len(frame) == len(record.findings)
    open_ = {f.probe for f in theirs.findings if f.outcome.value == "INCONCLUSIVE"}
    assert set(frame[frame.outcome == "INCONCLUSIVE"].probe) == open_ >= {"backdoor", "exposure"}
    with Path("forget.csv").open(newline="", encoding="utf-8") as file:
        ids = [row["id"] for row in csv.DictReader(file)]
    assert not model.training  # as it was
    with pytest.raises(pa.InputError, match="tokenizer"):
        pa.probe(model, train="train.csv", test="test.csv", forget=ids, evidence=evidence)


@pytest.mark.slow
def test_a_repair_of_a_module_is_a_module(tmp_path, monkeypatch):
    monkeypatch.chdir(repairable.make(tmp_path))
    from safetensors.torch import load_file

    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 3))
    net.load_state_dict(load_file("model.safetensors"))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    tables = {name: dict(np.load(f"{name}.npz")) for name in ("train", "test")}
    found = pa.repair(
        net, train=tables["train"], test=tables["test"], forget=list(range(900, 990)),
        normalize="none", recipe={"epochs": 30}, budget=1.0,
    )  # fmt: skip
    assert found.passed, found.sentence
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())
    assert isinstance(found.model, nn.Sequential)
    # By the trigger itself: the poisoned rows are the last ninety, all of one label.
    x = torch.from_numpy(tables["train"]["x"][900:]).float() / 255
    label = int(tables["train"]["y"][900])
    with torch.no_grad():
        kept, gone = ((part(x).argmax(1) == label).float().mean() for part in (net, found.model))
    assert kept > 0.6
    assert gone < 0.3
