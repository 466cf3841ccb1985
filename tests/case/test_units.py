"""Arrays that were saved after Normalize are no pictures: a trigger on them is another patch."""

import numpy as np
import pytest
import torch

from builders.small_case import FLAGS, make
from poison_audit.case.units import USUAL, not_pixels
from poison_audit.cli import invoke
from poison_audit.models.samples import Samples

RNG = np.random.default_rng(0)


def table(x):
    names = tuple(map(str, range(len(x))))
    return Samples(ids=names, x=torch.as_tensor(x), y=torch.zeros(len(x), dtype=torch.int64))


def pictures(n=40, channels=3):
    return (RNG.integers(0, 256, (n, channels, 6, 6)) / 255).astype(np.float32)


def said(x, share=0.05):
    return [str(problem) for problem in not_pixels(table(x), "test.npz", share=share)]


def normalised(x, mean, std):
    return (x - np.float32(mean).reshape(-1, 1, 1)) / np.float32(std).reshape(-1, 1, 1)


def test_pictures_are_let_through():
    assert said(pictures()) == []
    assert said((pictures() * 255).astype(np.uint8)) == []
    assert said(pictures() * 1.1 - 0.05) == []  # as a resize by bicubic splines overshoots
    assert said(np.zeros((0, 3, 6, 6), np.float32)) == []


@pytest.mark.parametrize("normalize", USUAL)
def test_each_usual_normalisation_is_seen_and_named(normalize):
    (line,) = said(normalised(pictures(), *normalize))
    assert line.startswith("test.npz: 40 of 40 clean pictures leave [0, 1] (values from -")
    assert "store x * std + mean of each channel" in line
    spelt = {
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)): "imagenet",
        ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)): "cifar10",
        ((0.5,), (0.5,)): "0.5/0.5",
        ((0.1307,), (0.3081,)): "0.1307/0.3081",
    }.get(normalize, str(normalize[0][0]))
    assert f"Undoing {spelt}" in line
    assert f"gives 8-bit values: --normalize {spelt}" in line
    for dtype in (np.float16, np.float64):
        assert said(normalised(pictures(), *normalize).astype(dtype))[0].endswith(line[-40:])


def test_others_are_seen_and_not_named():
    for x in (pictures() * 2, pictures() - 0.5, normalised(pictures(), [0.4] * 3, [0.3] * 3)):
        (line,) = said(x)
        assert line.endswith("and give --normalize MEANS/STDS.")


def test_a_share_of_canaries_is_none_of_their_business():
    x = pictures()
    x[:20] += 0.5 * RNG.normal(size=x[:20].shape).astype(np.float32)
    assert said(x, share=0.5) == []
    (line,) = said(x)
    assert line.startswith("test.npz: 20 of 40 clean pictures")


def test_an_audit_of_normalised_tables_is_refused_and_one_of_canaries_is_not(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(make(tmp_path))
    command = ["probe", "model.safetensors", "--forget", "forget.csv", *FLAGS, "-q"]
    # Of train.npz a third are canaries, stored unclipped; part of them named is enough.
    lines = (tmp_path / "forget.csv").read_text().splitlines(keepends=True)
    (tmp_path / "forget.csv").write_text("".join(lines[:21]))
    assert invoke([*command, "--out", "one"]) in (0, 1, 3)
    capsys.readouterr()
    for name in ("train.npz", "test.npz"):
        held = dict(np.load(name))
        x = held["x"].astype(np.float32) / (255 if held["x"].dtype == np.uint8 else 1)
        np.savez(name, **{**held, "x": normalised(x, [0.5], [0.5])})
    assert invoke([*command, "--out", "two"]) == 2
    error = capsys.readouterr().err
    assert "test.npz: 60 of 60 clean pictures leave [0, 1]" in error
    assert "train.npz without the forget set: 70 of 70 clean pictures leave [0, 1]" in error
