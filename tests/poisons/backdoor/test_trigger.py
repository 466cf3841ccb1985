import json

import pytest
import torch

from poison_audit.errors import InputError
from poison_audit.poisons.backdoor.evidence import patch, read_trigger, write_trigger
from poison_audit.poisons.backdoor.values import MOST_BYTES

GOOD = {"version": 1, "label": 2, "top": 3, "left": 1, "pixels": [[[0, 0.5, 1], [1, 0.25, 0]]]}
NAMES = ("cat", "dog", "frog")


def read(tmp_path, fields, names=NAMES):
    path = tmp_path / "trigger.json"
    path.write_text(fields if isinstance(fields, str) else json.dumps(fields))
    return read_trigger(path, shape=(1, 5, 4), classes=3, names=names)


def problems(tmp_path, fields, names=NAMES):
    with pytest.raises(InputError) as caught:
        read(tmp_path, fields, names)
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in caught.value.problems]


@pytest.mark.parametrize("label", [2, "frog"])
def test_a_trigger_is_read_and_stamped(tmp_path, label):
    trigger = read(tmp_path, {**GOOD, "label": label})
    assert trigger.label == 2
    assert trigger.mode == "replace"
    x = torch.full((2, 1, 5, 4), 0.75)
    stamped = trigger.stamp(x)
    assert stamped[1, 0].tolist() == [
        [0.75] * 4, [0.75] * 4, [0.75] * 4, [0.75, 0, 0.5, 1], [0.75, 1, 0.25, 0]
    ]  # fmt: skip
    assert bool((x == 0.75).all())


def test_a_number_beside_names_that_are_other_numbers_is_asked_about(tmp_path):
    # ImageFolder sorts folders as text: output 2 is the folder 10, and the folder 2 is output 3.
    path, names = tmp_path / "trigger.json", ("0", "1", "10", "2")
    path.write_text(json.dumps({**GOOD, "label": "10"}))
    assert read_trigger(path, shape=(1, 5, 4), classes=4, names=names).label == 2
    path.write_text(json.dumps(GOOD))
    with pytest.raises(InputError, match="2 may be the class's number, or the name of class 3"):
        read_trigger(path, shape=(1, 5, 4), classes=4, names=names)
    assert read_trigger(path, shape=(1, 5, 4), classes=4, names=tuple("0123")).label == 2


def test_what_is_written_is_read_back(tmp_path):
    pixels = torch.rand(3, 2, 2, generator=torch.Generator().manual_seed(0))
    trigger = patch(pixels, (3, 6, 6), top=0, left=4, label=7)
    write_trigger(tmp_path / "t.json", trigger)
    again = read_trigger(tmp_path / "t.json", shape=(3, 6, 6), classes=8)
    assert (again.box, again.label, again.mode) == ((0, 4, 2, 2), 7, "replace")
    assert again.add.equal(trigger.add)
    assert again.keep.equal(trigger.keep)


def test_all_problems_at_once(tmp_path):
    fields = {"version": 2, "label": "frgo", "top": -1, "lfet": 0, "pixels": [[[2.0]]]}
    assert problems(tmp_path, fields) == [
        "trigger.json: unknown key 'lfet'. Did you mean left?",
        "trigger.json version: expected 1, got 2.",
        "trigger.json label: unknown label 'frgo'. Did you mean frog?",
        "trigger.json top: expected an integer from 0, got -1.",
        "trigger.json pixels: expected values from 0 to 1, got 2.0. "
        "Divide 8-bit values by 255; undo a normalisation: x * std + mean.",
        "trigger.json: missing key 'left'.",
    ]


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("version", True, "expected 1, got True"),
        ("label", 3, "unknown label 3"),
        ("label", -1, "unknown label -1"),
        ("label", True, "unknown label True"),
        ("label", None, "unknown label None"),
        ("top", 4, "a patch of 2 rows from 4 leaves the picture, which has 5"),
        ("left", 2, "a patch of 3 columns from 2 leaves the picture, which has 4"),
        ("left", 1.0, "expected an integer from 0, got 1.0"),
        ("top", 10**30, "leaves the picture"),
        ("pixels", [], "not empty"),
        ("pixels", [[]], "not empty"),
        ("pixels", [[[]]], "not empty"),
        ("pixels", [[0.5]], "three levels"),
        ("pixels", [[["0.5"]]], "three levels"),
        ("pixels", [[[True]]], "three levels"),
        ("pixels", [[[[0.5]]]], "three levels"),
        ("pixels", "x", "three levels"),
        ("pixels", [[[0.5], [0.5, 0.5]]], "different sizes"),
        ("pixels", [[[0.5]], []], "different sizes"),
        ("pixels", [[[0.5], 0.5]], "different sizes"),
        ("pixels", [[[float("nan")]]], "got nan"),
        ("pixels", [[[float("inf")]]], "got inf"),
        ("pixels", [[[-0.1]]], "got -0.1"),
        ("pixels", [[[10**400]]], "different sizes"),
        ("pixels", [[[0.5]], [[0.5]]], "2 channels, but the pictures have 1"),
        ("mode", "warp", "expected replace, blend, add or mask+add"),
        ("alpha", 0.5, "only blends have it"),
        ("position", "start", 'expected "anywhere"'),
        ("pattern", [[[0.5]]], "give one of them"),
        ("mask", [[1]], "the mask is 1x1, the pattern 2x3"),
        ("mask", [[0, 0, 0], [0, 0, 0]], "it changes no pixel"),
        ("pixels", "../up.npy", "no file of the folder"),
        ("pixels", "/etc/up.png", "no file of the folder"),
        ("pixels", "none.npy", "cannot be read"),
        ("pixels", [[[0.5] * 5]], "larger than the pictures, 5x4"),
    ],
)
def test_each_problem(tmp_path, key, value, told):
    (problem,) = problems(tmp_path, {**GOOD, key: value})
    assert told in problem


def test_a_name_needs_names(tmp_path):
    assert "Classes are 0 to 2" in problems(tmp_path, {**GOOD, "label": "frog"}, None)[0]


@pytest.mark.parametrize("text", ["", "{", "[" * 200_000, "\ud800"[:0] + "nope"])
def test_what_is_not_json(tmp_path, text):
    assert "not JSON" in problems(tmp_path, text)[0]


def test_deep_pixels_and_lists_are_refused(tmp_path):
    assert "expected a JSON object" in problems(tmp_path, "[1]")[0]
    deep = '{"version":1,"label":0,"top":0,"left":0,"pixels":' + "[" * 500 + "1" + "]" * 500 + "}"
    assert "three levels" in problems(tmp_path, deep)[0]


def test_a_huge_file_is_not_read(tmp_path):
    assert "larger than 16 MiB" in problems(tmp_path, " " * (MOST_BYTES + 1))[0]


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_trigger(tmp_path / "none.json", shape=(1, 5, 4), classes=3)
