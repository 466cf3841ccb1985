"""What a report shows of the poison: the very pixels, a few of each, never much."""

import base64
import io
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from builders.small_case import FLAGS
from poison_audit.atomic import from_json
from poison_audit.case.exhibits import as_png
from poison_audit.cli import invoke
from poison_audit.reports.page.html import render_html
from poison_audit.reports.view.exhibits import png_size, walls
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


def test_the_exhibits_of_an_audit(case):
    trigger = {"version": 1, "label": 0, "top": 0, "left": 0, "pixels": [[[1.0, 0.0], [0.0, 1.0]]]}
    (case / "trigger.json").write_text(json.dumps(trigger), encoding="utf-8")
    (case / "targets.csv").write_text("id,adversarial\ne0,1\ne1,0\ne2,0\n", encoding="utf-8")
    test = np.load("test.npz")
    wrong = [(y + 1) % 3 for y in test["y"][:3]]
    rows = "".join(f"e{i},{label}\n" for i, label in enumerate(wrong))
    (case / "targets.csv").write_text(f"id,adversarial\n{rows}", encoding="utf-8")
    given = ["--trigger", "trigger.json", "--targets", "targets.csv", "--out", "o", "-q"]
    assert invoke(["probe", "model.safetensors", "--forget", "forget.csv", *FLAGS, *given]) < 4
    record = from_json(AuditRecord, (case / "o/report.json").read_text("utf-8"))
    by_role = {}
    for each in record.exhibits:
        by_role.setdefault(each.role, []).append(each)
    assert {role: len(shown) for role, shown in by_role.items()} == {
        "target": 3, "forget": 6, "trigger": 4
    }  # fmt: skip
    for i, shown in enumerate(by_role["target"]):
        assert shown.name == f"e{i}"
        assert shown.label == str(test["y"][i])
        assert np.array_equal(decoded(shown.png), test["x"][i][0])
    alone, stamped = by_role["trigger"][:2]
    assert alone.name == "the trigger alone, on grey"
    place = int(stamped.name[1:])
    assert test["y"][place] != 0
    expected = test["x"][place][0].copy()
    expected[:2, :2] = [[255, 0], [0, 255]]
    assert np.array_equal(decoded(stamped.png), expected)
    page = render_html(record)
    assert [wall.title for wall in walls(record)] == [
        "Targets of the attack", "Forget samples, gaussian", "The trigger on clean test samples"
    ]  # fmt: skip
    assert page.count("<img src=") == 13
    assert f'<img src="data:image/png;base64,{stamped.png}"' in page
    shutil.rmtree(case)
