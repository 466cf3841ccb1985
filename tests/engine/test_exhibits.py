"""What a report shows of the poison: the very pixels, a few of each, never much."""

import base64
import csv
import io
import json
import shutil
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from builders.small_case import CLASSES, FLAGS, SPEC, write_rows
from poison_audit.atomic import from_json
from poison_audit.case.exhibits import as_png
from poison_audit.cli import invoke
from poison_audit.models.image import CifarResNet
from poison_audit.reports.page.html import render_html
from poison_audit.reports.view.exhibits import png_size, walls
from poison_audit.reports.view.view import view
from poison_audit.verdict.record import AuditRecord


def decoded(text: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(text))) as picture:
        return np.asarray(picture)


@pytest.mark.parametrize("shape", [(1, 5, 7), (3, 8, 6)])
def test_a_picture_is_its_pixels(shape):
    grey = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    shown = decoded(as_png(torch.from_numpy(grey).float() / 255))
    expected = grey[0] if shape[0] == 1 else grey.transpose(1, 2, 0)
    assert np.array_equal(shown, expected)


def test_what_is_too_dark_or_too_bright_is_black_or_white_and_large_ones_are_small():
    assert decoded(as_png(torch.tensor([[[-3.0, 0.5, 2.0]]]))).tolist() == [[0, 128, 255]]
    assert as_png(torch.zeros(4, 8, 8)) is None
    assert png_size(as_png(torch.rand(3, 300, 200))) == (64, 96)


@pytest.mark.parametrize("text", ["", "x", "iVBORw0KGgo=", "'onerror=", "iVBORw0KGgo" * 9000])
def test_what_is_no_picture_is_not_shown(text):
    assert png_size(text) is None


@cache
def small_net(path):
    """The small case's model as torch alone reads it."""
    net = CifarResNet(SPEC, channels=1, classes=CLASSES)
    net.load_state_dict(load_file(path))
    return net.eval()


@torch.no_grad()
def chances(path, picture):
    """What the model makes of one picture, in [0, 1] pixels."""
    x = torch.from_numpy(np.asarray(picture, dtype=np.float32))[None]
    return small_net(path)(x).double().softmax(1)[0].tolist()


def audited(case, *given):
    command = ["probe", "model.safetensors", "--forget", "forget.csv", *FLAGS, *given]
    assert invoke([*command, "--out", "o", "-q"]) < 4
    return from_json(AuditRecord, (case / "o/report.json").read_text("utf-8"))


def test_the_exhibits_of_an_audit(case):
    trigger = {"version": 1, "label": 0, "top": 0, "left": 0, "pixels": [[[1.0, 0.0], [0.0, 1.0]]]}
    (case / "trigger.json").write_text(json.dumps(trigger), encoding="utf-8")
    train, test = np.load("train.npz"), np.load("test.npz")
    wrong = [(y + 1) % 3 for y in test["y"][:3]]
    rows = "".join(f"e{i},{label}\n" for i, label in enumerate(wrong))
    (case / "targets.csv").write_text(f"id,adversarial\n{rows}", encoding="utf-8")
    flips = {f"t{i}": (i, int(train["y"][i]), (int(train["y"][i]) + 1) % 3) for i in range(30, 50)}
    header, *canaries = csv.reader((case / "forget.csv").read_text("utf-8").splitlines())
    more = [[name, own, "mislabelled", "", true] for name, (_, own, true) in flips.items()]
    rows = [[*row, ""] for row in canaries]
    write_rows(case / "forget.csv", [*header, "clean_label"], [*rows, *more])
    record = audited(case, "--trigger", "trigger.json", "--targets", "targets.csv")
    by_role = {}
    for each in record.exhibits:
        by_role.setdefault(each.role, []).append(each)
    assert {role: len(shown) for role, shown in by_role.items()} == {
        "trigger": 5, "target": 3, "flip": 12, "forget": 6
    }  # fmt: skip
    for i, shown in enumerate(by_role["target"]):
        assert shown.name == f"e{i}"
        assert shown.label == str(test["y"][i])
        assert np.array_equal(decoded(shown.png), test["x"][i][0])
        assert shown.wanted == str(wrong[i])
    alone, *stamped = by_role["trigger"]
    assert alone.name == "the trigger alone, on grey"
    for shown in stamped:
        place = int(shown.name[1:])
        assert (shown.label, shown.wanted) == (str(test["y"][place]), "0")
        assert test["y"][place] != 0
        bare = test["x"][place] / 255
        with_it = bare.copy()
        with_it[0, :2, :2] = [[1, 0], [0, 1]]
        assert np.array_equal(decoded(shown.bare), test["x"][place][0])
        assert np.array_equal(decoded(shown.png), np.round(255 * with_it[0]))
        given = [np.argmax(chances("model.safetensors", each)) for each in (with_it, bare)]
        assert [shown.answer, shown.without] == list(map(str, given))
    # The odds of the wrong label against the likeliest other, one picture after another.
    odds = {}
    for name, (place, own, true) in flips.items():
        seen = chances("model.safetensors", train["x"][place])
        rest = max(p for label, p in enumerate(seen) if label != own)
        odds[name] = (seen[own] / rest, str(own), str(true), str(np.argmax(seen)))
    worst = sorted(odds, key=lambda name: -odds[name][0])[:12]
    assert [each.name for each in by_role["flip"]] == worst
    for shown in by_role["flip"]:
        assert (shown.label, shown.true, shown.answer) == odds[shown.name][1:]
    page = render_html(record)
    assert [wall.title for wall in walls(record)] == [
        "The trigger on clean test samples", "Targets of the attack", "Wrong labels",
        "Forget samples, gaussian",
    ]  # fmt: skip
    assert page.count("<img src=") == 30
    assert f'<img src="data:image/png;base64,{stamped[0].png}"' in page
    assert f'alt="{stamped[0].name} without the trigger"' in page
    (deployed,) = (cell for cell in record.cells if cell.kind == "deployed")
    (hits,) = (seen.evidence for seen in deployed.measurements if seen.probe == "targeted")
    answers = [int(np.argmax(chances("model.safetensors", x / 255))) for x in test["x"][:3]]
    assert list(hits["answers"]) == answers
    assert [each.answer for each in view(record).evidence.targets] == list(map(str, answers))
    shutil.rmtree(case)


def test_a_model_that_is_not_asked_has_no_answers(case):
    (case / "trigger.json").write_text(
        json.dumps({"version": 1, "label": 0, "top": 0, "left": 0, "pixels": [[[1.0]]]}), "utf-8"
    )
    # Without the labels' order nothing is measured: at best it guesses.
    test = dict(np.load("test.npz"))
    np.savez("test.npz", **{**test, "y": (test["y"] + 1) % 3})
    record = audited(case, "--trigger", "trigger.json")
    assert not record.cells
    shown = [each for each in record.exhibits if each.role == "trigger"]
    assert len(shown) == 5
    assert {(each.answer, each.without) for each in shown} == {(None, None)}
