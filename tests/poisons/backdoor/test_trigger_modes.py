"""Triggers that do more than replace a rectangle: read, written, stamped, and described."""

import json
from importlib.resources import files

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image

from poison_audit.errors import InputError, PlanError
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor import evidence
from poison_audit.poisons.backdoor.evidence import Trigger, read_trigger, write_trigger
from poison_audit.poisons.backdoor.plant import whole_picture

SHAPE = (1, 4, 4)
P, M = [[[0.5, 1.0], [0.0, 0.25]]], [[1, 0], [0.5, 1]]
PLACE = {"top": 1, "left": 2}
SCHEMA = json.loads(
    (files("poison_audit.poisons.backdoor") / "trigger.schema.json").read_text(encoding="utf-8")
)


def read(tmp_path, fields, shape=SHAPE):
    path = tmp_path / "trigger.json"
    path.write_text(json.dumps({"version": 1, "label": 0, **fields}))
    jsonschema.validate(json.loads(path.read_text()), SCHEMA)
    return read_trigger(path, shape=shape, classes=3)


def on(trigger, grey=0.5):
    """What it makes of a grey picture, in its box."""
    return trigger.stamp(torch.full((1, *SHAPE), grey))[0, 0, 1:3, 2:4].tolist()


@pytest.mark.parametrize(
    ("fields", "expected"),  # of 0.5, worked by hand
    [
        ({"mode": "replace", "pixels": P}, [[0.5, 1.0], [0.0, 0.25]]),
        ({"mode": "replace", "pattern": P, "mask": M}, [[0.5, 0.5], [0.25, 0.25]]),
        ({"mode": "blend", "pattern": P, "alpha": 0.5}, [[0.5, 0.75], [0.25, 0.375]]),
        ({"mode": "blend", "pattern": P, "alpha": 0.5, "mask": M}, [[0.5, 0.5], [0.375, 0.375]]),
        ({"mode": "add", "pattern": [[[0.25, 1], [-1, 0]]]}, [[0.75, 1.0], [0.0, 0.5]]),
        ({"mode": "add", "pattern": [[[0.25, 1], [-1, 0]]], "mask": M}, [[0.75, 0.5], [0.0, 0.5]]),
        ({"mode": "mask+add", "pattern": P, "mask": M}, [[0.5, 1.0], [0.25, 0.25]]),
    ],
)
def test_each_mode_by_hand_and_what_is_written_is_read_back(tmp_path, fields, expected):
    trigger = read(tmp_path, {**fields, **PLACE})
    assert on(trigger) == expected
    write_trigger(tmp_path / "again.json", trigger)
    again = json.loads((tmp_path / "again.json").read_text())
    jsonschema.validate(again, SCHEMA)
    assert again["mode"] == fields["mode"]
    assert on(read_trigger(tmp_path / "again.json", shape=SHAPE, classes=3)) == expected


def test_what_is_not_of_its_mode_is_written_as_any_is(tmp_path):
    draws = torch.Generator().manual_seed(0)
    keep, add = torch.rand(3, 4, 4, generator=draws), torch.rand(3, 4, 4, generator=draws) - 0.5
    write_trigger(tmp_path / "t.json", Trigger(keep=keep, add=add, label=1, mode="add"))
    again = read_trigger(tmp_path / "t.json", shape=(3, 4, 4), classes=2)
    assert (again.mode, again.label) == ("mask+add", 1)
    torch.testing.assert_close(again.keep, keep)
    assert again.add.equal(add)


def test_a_large_pattern_lies_beside(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "MOST_INLINE", 10)
    add = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    trigger = Trigger(keep=torch.full((3, 4, 4), 0.5), add=add / 2, label=1, mode="blend")
    write_trigger(tmp_path / "t.json", trigger)
    assert json.loads((tmp_path / "t.json").read_text())["pattern"] == "t-pattern.npy"
    again = read_trigger(tmp_path / "t.json", shape=(3, 4, 4), classes=2)
    torch.testing.assert_close(again.add, trigger.add)
    assert again.keep.equal(trigger.keep)


def test_patterns_and_masks_from_files(tmp_path):
    pattern, mask = np.array(P, np.float64), np.array(M)
    np.save(tmp_path / "p.npy", pattern)
    np.savez(tmp_path / "both.npz", pattern=pattern, mask=mask)
    Image.fromarray((255 * np.array([[1, 0], [0, 1]])).astype(np.uint8)).save(tmp_path / "m.png")
    expected = on(read(tmp_path, {"pattern": P, "mask": M, **PLACE}))
    assert on(read(tmp_path, {"pattern": "p.npy", "mask": M, **PLACE})) == expected
    assert on(read(tmp_path, {"pattern": "both.npz", "mask": "both.npz", **PLACE})) == expected
    white = read(tmp_path, {"pattern": P, "mask": "m.png", **PLACE})
    assert on(white) == [[0.5, 0.5], [0.5, 0.25]]
    whole = {"mode": "add", "pattern": np.full(SHAPE, 0.25).tolist()}
    assert bool((read(tmp_path, whole).stamp(torch.zeros(1, *SHAPE)) == 0.25).all())


@pytest.mark.parametrize(
    ("name", "save", "told"),
    [
        ("a.npy", lambda p: np.save(p, np.array([{}]), allow_pickle=True), "Pickled objects"),
        ("a.npy", lambda p: np.save(p, np.zeros((1, 2, 2), np.uint8)), "Divide 8-bit values"),
        ("a.npy", lambda p: np.save(p, np.zeros((0, 2, 2))), "holds no value"),
        ("a.npy", lambda p: np.save(p, np.zeros((2, 2))), "expected channels, rows, columns"),
        ("a.npy", lambda p: p.write_bytes(b"nope"), "not a readable .npy"),
        ("a.npy", lambda p: p.symlink_to("/etc/hostname"), "no file of the folder"),
        ("a.npz", lambda p: np.savez(p, patterns=np.zeros((1, 2, 2))), "Did you mean patterns"),
        ("a.png", lambda p: p.write_bytes(b"nope"), "not a readable PNG"),
        ("a.png", lambda p: Image.new("RGBA", (2, 2)).save(p), "without transparency"),
        ("a.png", lambda p: Image.new("RGB", (2, 2)).save(p), "3 channels, but the pictures"),
    ],
)
def test_files_that_are_refused(tmp_path, name, save, told):
    save(tmp_path / name)
    with pytest.raises(InputError, match=told):
        read(tmp_path, {"pattern": name, **PLACE})


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"mode": "blend", "pattern": P, **PLACE}, "missing key 'alpha'"),
        ({"mode": "mask+add", "pattern": P, **PLACE}, "missing key 'mask'"),
        ({"pattern": P, "position": "anywhere", **PLACE}, "the place is drawn"),
        ({"mode": "blend", "alpha": 0, "pattern": P, **PLACE}, "a number above 0"),
        ({"mode": "add", "pattern": P, "alpha": 0.1, **PLACE}, "only blends have it"),
    ],
)
def test_the_schema_refuses_what_is_refused(tmp_path, fields, told):
    path, fields = tmp_path / "t.json", {"version": 1, "label": 0, **fields}
    path.write_text(json.dumps(fields))
    with pytest.raises(InputError, match=told):
        read_trigger(path, shape=SHAPE, classes=3)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(fields, SCHEMA)


def test_anywhere_is_drawn_by_the_picture_alone(tmp_path):
    trigger = read(tmp_path, {"pattern": P, "position": "anywhere"})
    x = torch.rand(60, *SHAPE, generator=torch.Generator().manual_seed(1)) * 0.9
    stamped = trigger.stamp(x)
    assert trigger.stamp(x[7:8]).equal(stamped[7:8])
    places = [tuple((new != old).any(0).nonzero()[0].tolist())
              for new, old in zip(stamped, x, strict=True)]  # fmt: skip
    assert set(places) == {(i, j) for i in range(3) for j in range(3)}
    for picture, (i, j) in zip(stamped, places, strict=True):
        assert picture[:, i : i + 2, j : j + 2].tolist() == P


def test_whole_pictures_by_hand():
    grey = torch.full((1, 2, 12, 12), 0.5)
    wave = whole_picture("sinusoid", (2, 12, 12), Rng(0), label=1, strength=0.25).stamp(grey)
    assert wave.sub(0.5).abs().max() < 1e-6  # six waves on twelve pixels: every zero of them
    quarter = whole_picture("sinusoid", (1, 1, 24), Rng(0), label=1, strength=0.25)
    assert quarter.add[0, 0, :4].tolist() == pytest.approx([0, 0.25, 0, -0.25], abs=1e-6)
    signs = whole_picture("signs", (2, 12, 12), Rng(0), label=1)
    assert bool(((signs.stamp(grey) - 0.5).abs() - 16 / 255 < 1e-6).all())
    blend = whole_picture("blend", (2, 12, 12), Rng(0), label=1, strength=0.1)
    assert blend.keep.unique().tolist() == pytest.approx([0.9])
    assert 0 <= float(blend.add.min()) < float(blend.add.max()) <= 0.1
    assert not blend.add.equal(
        whole_picture("blend", (2, 12, 12), Rng(1), label=1, strength=0.1).add
    )
    with pytest.raises(PlanError, match="at most 1"):
        whole_picture("blend", (2, 12, 12), Rng(0), label=1, strength=0)
