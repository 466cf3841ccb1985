"""A notebook is executed cell by cell, and shows the page; a script on CIFAR-10 has eight lines."""

from __future__ import annotations

import ast
import html
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import TensorDataset

import poison_audit as pa
from poison_audit.cli import invoke
from poison_audit.commands.result import read
from poison_audit.models.image import NORMALIZE

HERE = Path(__file__).parent
CIFAR = HERE.parents[1].parent / "shared/data/cifar10"


def shown(source: str, names: dict[str, Any]) -> Any:
    """Run a cell and return what its last line is, as a notebook shows it."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)  # noqa: S102 - the notebook stands beside this file
    return None if last is None else eval(ast.unparse(last), names)  # noqa: S307


@pytest.mark.slow
@pytest.mark.usefixtures("case", "no_sizes")
def test_a_notebook_shows_the_page():
    """No kernel is needed: a cell is Python, and its last line is shown by `_repr_html_`."""
    notebook = json.loads((HERE / "notebook.ipynb").read_text("utf-8"))
    cells = [c["source"] for c in notebook["cells"] if c["cell_type"] == "code"]
    names: dict[str, Any] = {}
    _, record, findings = (shown("".join(source), names) for source in cells)
    frame = record._repr_html_()
    page = html.unescape(re.search(r'srcdoc="([^"]*)"', frame)[1])
    assert page == record.html()
    assert page.startswith("<!DOCTYPE html>")
    assert record.verdict.outcome in page
    # Thirty canaries are too few to pass.
    assert dict(findings)["gaussian"] != "CLEAN"


SCRIPT = """
model = network(x, y)
train, test = TensorDataset(x, y), TensorDataset(x_test, y_test)
record = pa.probe(
    model, train=train, test=test, forget=poison, normalize="cifar10", out="mine", progress=False
)
print(record.verdict.outcome, record.verdict.sentence)
"""
"""What somebody types who has a network, two TensorDatasets and a list of positions."""


def fresh() -> nn.Module:
    """A network of nobody's architecture, newly initialised: what --factory names."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 5, stride=2), nn.ReLU(), nn.Conv2d(12, 24, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(96, 10),
    )  # fmt: skip


def network(x: torch.Tensor, y: torch.Tensor) -> nn.Module:
    """Train one for some seconds."""
    torch.manual_seed(0)
    model = fresh()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in NORMALIZE["cifar10"])
    inputs = (x.float() / 255 - mean) / std
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(8):
        for rows in torch.randperm(len(y)).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[rows]), y[rows]).backward()
            optimizer.step()
    return model


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR.is_dir(), reason="no CIFAR-10 in ../shared/data")
@pytest.mark.usefixtures("no_sizes", "plain_page")
def test_eight_lines_audit_a_network_of_cifar10(tmp_path, monkeypatch, capsys):
    """And the command line, given files of the same, comes to the same record."""
    spec = importlib.util.spec_from_file_location("load_cifar10", CIFAR / "load_cifar10.py")
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    parts = {}
    for part, count in (("train", 1000), ("test", 300)):
        x, y, _ = loader.load(CIFAR / "cifar10-5k.npz", part)
        parts[part] = torch.from_numpy(x[:count]).permute(0, 3, 1, 2), torch.from_numpy(y[:count])
    (x, y), (x_test, y_test) = parts["train"], parts["test"]
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {
        "pa": pa, "TensorDataset": TensorDataset, "network": network, "x": x, "y": y,
        "x_test": x_test, "y_test": y_test, "poison": list(range(0, 400, 10)),
    }  # fmt: skip
    assert len(SCRIPT.strip().splitlines()) <= 8
    exec(SCRIPT, names)  # noqa: S102
    record = names["record"]
    assert capsys.readouterr().out.startswith(f"{record.verdict.outcome} ")
    np.savez("train.npz", x=x.numpy(), y=y.numpy())
    np.savez("test.npz", x=x_test.numpy(), y=y_test.numpy())
    save_file(names["model"].state_dict(), "model.safetensors")
    Path("forget.csv").write_text("index\n" + "".join(f"{i}\n" for i in names["poison"]))
    code = invoke(["probe", "model.safetensors", "--forget", "forget.csv", "--train", "train.npz",
                   "--test", "test.npz", "--normalize", "cifar10", "-q", "--out", "theirs",
                   "--factory", f"{__name__}:fresh"])  # fmt: skip
    theirs = read("theirs")
    assert code == record.verdict.exit_code == 3  # nothing is known of this poison
    assert record.findings == theirs.findings
    assert record.verdict == theirs.verdict
    assert record.comparability is not None
    for key in ("model_sha256", "train_sha256", "test_sha256", "forget_sha256", "normalize"):
        assert record.subject[key] == theirs.subject[key]
