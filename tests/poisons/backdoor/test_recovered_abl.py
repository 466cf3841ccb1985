"""A real incident: a network, what its authors' detector isolated, and nothing else.

Li et al., "Anti-Backdoor Learning", arXiv 2110.11571: 500 training pictures that their detector
isolated, of which 499 carry a patch of 3x3 and the label 0, and number 52 does not; a WRN-16-1
trained on them. What is true is said by the data's README, not by this project.
"""

import csv
import io
import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from poison_audit.cli import invoke

DATA = Path(__file__).parents[4] / "shared" / "data"
NET = DATA / "backdoored" / "abl_wrn16_1_label0.safetensors"
ISOLATED, CIFAR10 = NET.with_name("abl_isolated_500.npz"), DATA / "cifar10" / "cifar10-5k.npz"
RETAIN, TEST = 800, 250


def pictures(split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Decode CIFAR-10: (n, 3, 32, 32), 8 bits, and labels."""
    with np.load(CIFAR10) as held:
        ends = np.cumsum(held[f"{split}_lengths"].astype(int))[:count]
        head, scans = held["header"].tobytes(), held[f"{split}_scans"][: ends[-1]].tobytes()
        labels = held[f"{split}_labels"][:count].astype(np.int64)
    parts = [scans[a:b] for a, b in pairwise([0, *ends.tolist()])]
    shown = [_decoded(head + part) for part in parts]
    return np.stack(shown).transpose(0, 3, 1, 2), labels


def _decoded(file: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(file)) as picture:
        return np.asarray(picture)


@pytest.fixture
def incident(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if lacking := [path for path in (NET, ISOLATED, CIFAR10) if not path.exists()]:
        pytest.skip(f"needs {lacking[0]}")
    with np.load(ISOLATED) as held:
        x, y = held["x"], held["y"]
    more, labels = pictures("train", RETAIN)
    names = [*(f"isolated-{i}" for i in range(500)), *(f"train-{i}" for i in range(RETAIN))]
    np.savez(tmp_path / "train.npz", x=np.concatenate([x, more]), y=np.r_[y, labels], id=names)
    x_test, y_test = pictures("test", TEST)
    np.savez(tmp_path / "test.npz", x=x_test, y=y_test, id=[f"test-{i}" for i in range(TEST)])
    with (tmp_path / "forget.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id"], *([name] for name in names[:500])])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(NET.parent)
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    return tmp_path


@pytest.mark.slow
def test_a_model_and_a_forget_set_are_enough(incident, capsys):
    given = [
        "probe", str(NET), "--factory", "nets:wrn16_1", "--normalize", "none", "--train",
        "train.npz", "--test", "test.npz", "--forget", "forget.csv", "--out", "out", "-q",
        "--set", "backdoor.inputs=60", "--format", "json",
    ]  # fmt: skip
    assert invoke(given) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "499 of 500 samples that name no other attack carry it" in said
    assert "carry nothing that was recovered: isolated-52." in said
    record = json.loads((incident / "out" / "report.json").read_text("utf-8"))
    assert record["verdict"]["outcome"] == "RESIDUAL"
    told = record["subject"]["trigger"]
    assert (told["mode"], told["size"], told["label"]) == ("replace", [3, 3], 0)
    assert told["recovered"] == "from 499 of 500 forget samples"
    (doubt,) = record["doubts"]
    assert "(isolated-52)" in doubt["sentence"]


@pytest.mark.slow
def test_the_trigger_is_recovered_exactly(incident, capsys):
    given = ["investigate", "--forget", "forget.csv", "--train", "train.npz", "--out", "found"]
    assert invoke(given) == 0
    written = json.loads((incident / "found" / "trigger.json").read_text("utf-8"))
    with np.load(NET.with_name("triggers.npz")) as held:
        mask, pattern = (held[f"abl_wrn16_1_label0.{part}"] for part in ("mask", "pattern"))
    rows, columns = np.nonzero(mask[0])
    assert (written["top"], written["left"]) == (rows.min(), columns.min())
    box = np.s_[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert np.array_equal(np.array(written["pattern"]), pattern[box])
