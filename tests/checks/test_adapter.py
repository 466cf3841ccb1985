"""A model that is read otherwise than in training never passes, and the better reading is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from builders.small_case import FLAGS, read_rows, write_rows
from poison_audit.cli import invoke

PROBE = ["probe", "model.safetensors", "--forget", "forget.csv", *FLAGS, "--out", "out", "-q"]


def record(out: str = "out") -> dict:
    return json.loads(Path(out, "report.json").read_text("utf-8"))


def test_a_model_that_is_read_rightly_is_not_doubted(case, capsys):
    assert invoke(PROBE) in (1, 3)
    assert record()["doubts"] == []
    assert record()["cells"]
    assert "Nobody said what it should be (--expect-accuracy)" in capsys.readouterr().out.replace(
        "\n", " "
    ).replace("  ", " ")


@pytest.mark.parametrize("normalize", ["0/2", "0.25/1", "0.5/0.5"])
def test_a_wrong_normalisation_ends_inconclusive_with_the_right_one_named(case, capsys, normalize):
    assert invoke([*PROBE, "--normalize", normalize]) == 3
    (doubt,) = record()["doubts"]
    assert doubt["about"] == "adapter"
    assert "--normalize none" in doubt["sentence"]
    assert doubt["step"].startswith("Give --normalize none ")
    assert record()["cells"] == []  # nothing was measured in a model that is read wrongly
    assert doubt["sentence"] in capsys.readouterr().out.splitlines()[-1]


def test_labels_in_another_order_end_inconclusive_with_the_right_one_named(case):
    words = np.array(["b", "c", "a"])
    for name in ("train", "test", "bases"):
        table = dict(np.load(f"{name}.npz"))
        np.savez(f"{name}.npz", **{**table, "y": words[table["y"]]})
    head, *rows = read_rows(Path("forget.csv"))
    write_rows(Path("forget.csv"), head, [[i, words[int(y)], *rest] for i, y, *rest in rows])
    assert invoke([*PROBE, "--names", "b,c,a"]) in (1, 3)
    assert record()["doubts"] == []
    assert invoke([*PROBE, "--names", "a,b,c", "--out", "other"]) == 3
    found = record("other")
    assert "labels seem to be mixed up" in found["verdict"]["sentence"]
    assert "Give --names b,c,a " in found["verdict"]["next_step"]


def test_an_accuracy_below_what_was_stated_ends_inconclusive(case, capsys):
    assert invoke([*PROBE, "--expect-accuracy", "0.5"]) in (1, 3)
    assert record()["doubts"] == []
    assert "Expected: 50.0%" in " ".join(capsys.readouterr().out.split())
    total, correct = record()["sanity"]["total"], record()["sanity"]["correct"]
    table = dict(np.load("test.npz"))
    table["y"][:20] = (table["y"][:20] + 1) % 3  # a third of the test labels are wrong
    np.savez("test.npz", **table)
    toml = "[model]\nexpect_accuracy = 0.95\nexpect_tolerance = '2%'\n"
    Path("audit.toml").write_text(toml, "utf-8")
    assert invoke([*PROBE, "--out", "other"]) == 3
    found = record("other")
    assert found["sanity"]["expected"] == 0.95
    assert found["sanity"]["tolerated"] == 0.02
    assert found["sanity"]["total"] == total
    assert found["sanity"]["correct"] < correct
    assert "95.0% was expected" in found["verdict"]["sentence"]


@pytest.mark.parametrize("said", ["95", "1.2", "-0.1", "high", "120%"])
def test_what_is_no_share_is_refused(case, capsys, said):
    assert invoke([*PROBE, "--expect-accuracy", said]) == 2
    assert "expected a share such as 0.93 or 93%" in capsys.readouterr().err
