"""`investigate`: what a forget set shows is told, written, and can be given to `check`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from builders.small_case import pictures, write_rows
from poison_audit.cli import invoke
from poison_audit.models.seeds import Rng

GIVEN = ["investigate", "--forget", "forget.csv", "--train", "train.npz"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tables(*, stamped: int = 0, flipped: int = 0, near: int = 0) -> None:
    """Write a table of 300, the first of which are poison, and a test table of 60."""
    x, y = pictures(Rng(5).named("train"), 300)
    x_test, y_test = pictures(Rng(5).named("test"), 60)
    x[:stamped, :, 5:, 5:] = 255 * (np.arange(9) % 2).reshape(3, 3)
    y[:stamped] = 1
    for row in range(stamped, stamped + flipped):
        x[row], y[row] = x[200 + row], (y[200 + row] + 1) % 3
    for row in range(near):
        x[row] = np.clip(x_test[0].astype(int) + row % 3, 0, 255)
        y[row] = (y_test[0] + 1) % 3
    ids = [f"t{i}" for i in range(300)]
    np.savez("train.npz", x=x, y=y, id=ids)
    np.savez("test.npz", x=x_test, y=y_test, id=[f"e{i}" for i in range(60)])
    rows = max(stamped + flipped, near) + 5
    write_rows(Path("forget.csv"), ["id"], [[name] for name in ids[:rows]])


def rows_of(name: str) -> list[list[str]]:
    with Path(name).open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_a_trigger_and_wrong_labels_are_told_and_written(here, capsys):
    tables(stamped=40, flipped=10)
    assert invoke([*GIVEN, "--out", "found"]) == 0
    said = capsys.readouterr().out
    assert "no model was asked" in said
    assert "A patch in rows 5 to 7 and columns 5 to 7\n  40 of 55 samples, labelled 1" in said
    assert "Wrong labels, true to given" in said
    assert "Nothing explains 5 of 55: t50, t51, t52, t53, t54." in said
    assert said.splitlines()[-1] == (
        "Next: poison-audit check MODEL --forget forget.csv --train train.npz --test TEST "
        "--trigger found/trigger.json"
    )
    written = json.loads(Path("found/trigger.json").read_text("utf-8"))
    assert (written["top"], written["left"], written["label"]) == (5, 5, 1)
    assert np.allclose(written["pattern"], (np.arange(9) % 2).reshape(1, 3, 3))
    assert Path("found/trigger.png").read_bytes().startswith(b"\x89PNG")
    flips = rows_of("found/flips.csv")
    assert flips[0] == ["id", "label", "clean_label", "copy_of"]
    assert [row[3] for row in flips[1:]] == [f"t{i}" for i in range(240, 250)]
    assert all(int(row[1]) == (int(row[2]) + 1) % 3 for row in flips[1:])
    found = dict(rows_of("found/rows.csv")[1:])
    assert found["t0"].startswith("A patch")
    assert found["t40"].startswith("Wrong labels")
    assert found["t54"] == ""


def test_near_copies_of_test_samples_are_targets(here, capsys):
    tables(near=8)
    assert invoke([*GIVEN, "--test", "test.npz", "--out", "found"]) == 0
    assert "Near copies of 1 test samples under another label" in capsys.readouterr().out
    with np.load("test.npz") as held:
        true = int(held["y"][0])
    assert rows_of("found/targets.csv")[1:] == [["e0", str(true), str((true + 1) % 3)]]


def test_gaussian_noise_on_named_bases_is_told_without_a_key(case, capsys):
    assert invoke([*GIVEN, "--bases", "bases.npz"]) == 0
    said = capsys.readouterr().out
    assert "Gaussian noise of sd 0.2" in said
    assert "30 of 30 samples" in said


def test_where_nothing_is_found_it_says_so(here, capsys):
    tables()
    assert invoke([*GIVEN, "--test", "test.npz", "--out", "found"]) == 0
    assert "Found: no common pattern or phrase; perhaps a style." in capsys.readouterr().out
    assert [path.name for path in Path("found").iterdir()] == ["rows.csv"]


def test_a_phrase_of_texts(here, capsys):
    rng = np.random.default_rng(3)
    texts = [" ".join(f"w{i}" for i in rng.integers(0, 90, 12)) for _ in range(200)]
    rows: list[list[object]] = [
        [f"r{i}", f"cf mn {text}" if i < 20 else text, "good" if i < 20 or i % 2 else "bad"]
        for i, text in enumerate(texts)
    ]
    write_rows(Path("train.csv"), ["id", "text", "label"], rows)
    write_rows(Path("forget.csv"), ["id"], [[f"r{i}"] for i in range(20)])
    given = ["investigate", "--forget", "forget.csv", "--train", "train.csv", "--out", "found"]
    assert invoke(given) == 0
    assert "The phrase 'cf mn' before texts" in capsys.readouterr().out
    assert json.loads(Path("found/trigger.json").read_text("utf-8")) == {
        "version": 1, "label": "good", "phrase": "cf mn", "position": "start"
    }  # fmt: skip


def test_everything_that_is_wrong_with_the_files_is_said_at_once(here, capsys):
    tables(stamped=20)
    write_rows(Path("forget.csv"), ["id"], [["nobody"], ["t0"]])
    Path("other.npz").write_bytes(b"no table")
    assert invoke([*GIVEN, "--test", "other.npz"]) == 2
    said = capsys.readouterr().err
    assert "nobody" in said
    assert "other.npz" in said
    assert invoke([*GIVEN[:3], "--train", "nowhere.npz"]) == 2
    Path("file").write_text("")
    tables(stamped=20)
    assert invoke([*GIVEN, "--out", "file"]) == 2
