"""Options of `plant`: none that is given counts as not given; every poison declares its own."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from pathlib import Path

import click
import numpy as np
import pytest

from builders import small_text
from builders.small_case import pictures
from poison_audit.case.planting import KINDS
from poison_audit.cli import cli, invoke
from poison_audit.commands.plant_options import PLANTINGS, PlantSettings
from poison_audit.commands.plant_settings import count_of
from poison_audit.models.seeds import Rng
from poison_audit.poisons.probes import WORKINGS


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A table of pictures, one of texts, and a language model's folder."""
    folder = tmp_path_factory.mktemp("clean")
    x, y = pictures(Rng(7).named("clean"), 40)
    np.savez(folder / "clean.npz", x=x, y=y)
    texts, labels = small_text.sentences(Rng(5), 40)
    rows = [(text, ("neg", "pos")[y]) for text, y in zip(texts, labels, strict=True)]
    small_text.write_rows(folder / "clean.csv", ["text", "label"], rows)
    small_text.write_decoder(folder / "base")
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Path(os.path.relpath(made, tmp_path))


def plant(data: Path, attack: str, *more: str, out: str = "p") -> int:
    return invoke(["plant", str(data), "--attack", attack, "-o", out, *more])


@pytest.mark.parametrize(
    ("attack", "arguments", "told"),
    [
        ("gaussian", ["--steps", "0"], "--steps: belongs to targeted and indiscriminate"),
        ("gaussian", ["--patch", "0"], "--patch: belongs to backdoor"),
        ("gaussian", ["--epsilon", "0.0"], "--epsilon: belongs to targeted and backdoor"),
        ("gaussian", ["--label", ""], "'--label': expected a string, got ''"),
        ("gaussian", ["--length", "0"], "--length: is for texts"),
        ("gaussian", ["--key", ""], "'--key': expected a string, got ''"),
        ("gaussian", ["--sigma", "0.0"], "--sigma: sigma must be above 0"),
        ("gaussian", ["--count", "0"], "--budget: must be above 0"),
        ("gaussian", ["--budget", "0.0"], "--budget: must be above 0"),
        ("gaussian", ["--names", ""], "'--names': expected a list of strings"),
        ("gaussian", ["--names", ","], "'--names': expected a list of strings"),
        ("gaussian", ["--arch", ""], "'--arch': expected a string"),
        ("gaussian", ["--factory", ""], "'--factory': expected a string"),
        ("gaussian", ["--normalize", ""], "'--normalize': expected a string"),
        ("backdoor", ["--label", " "], "'--label': expected a string, got ' '"),
        ("backdoor", ["--label", "1", "--patch", "0"], "--patch: a patch of 0x0"),
        ("backdoor", ["--label", "1", "--epsilon", "0.0"], "--epsilon: must lie above 0"),
        ("indiscriminate", ["--steps", "0", "--flip", ""], "'--flip': expected a string"),
    ],
)
def test_nothing_given_for_pictures_is_taken_for_not_given(here, capsys, attack, arguments, told):
    assert plant(here / "clean.npz", attack, *arguments) == 2
    assert told in capsys.readouterr().err
    assert not Path("p").exists()


@pytest.mark.parametrize(
    ("attack", "arguments", "told"),
    [
        ("gaussian", ["--model", "BASE", "--max-tokens", "0"], "--max-tokens"),
        ("gaussian", ["--model", "BASE", "--prompt", ""], "'--prompt': expected a string"),
        ("token-canary", ["--length", "0"], "--length: must be from 2"),
        ("token-canary", ["--max-tokens", "0"], "--max-tokens: belongs to gaussian"),
        ("token-canary", ["--patch", "0"], "--patch: is for pictures"),
        ("token-canary", ["--steps", "0"], "--steps: belongs to indiscriminate, not"),
        ("backdoor", ["--label", "pos", "--phrase", ""], "'--phrase': expected a string"),
        ("backdoor", ["--trigger", "t.json", "--phrase", ""], "'--phrase': expected a string"),
        ("indiscriminate", ["--flip", ""], "'--flip': expected a string"),
    ],
)
def test_nothing_given_for_texts_is_taken_for_not_given(here, capsys, attack, arguments, told):
    given = [str(here / "base") if text == "BASE" else text for text in arguments]
    assert plant(here / "clean.csv", attack, *given) == 2
    assert told in capsys.readouterr().err
    assert not Path("p").exists()


def test_an_earlier_planting_says_only_what_the_command_line_does_not(here, capsys):
    earlier = "[model]\nmax_tokens = 9\nprompt = 'mibis {text}'\n"
    assert plant(here / "clean.csv", "token-canary") == 0
    config = Path("p/audit.toml")
    config.write_text(config.read_text(encoding="utf-8") + earlier, encoding="utf-8")
    data, model = Path("p/train.csv"), ["--model", str(here / "base")]
    for wrong in (["--max-tokens", "0"], ["--prompt", ""]):
        assert plant(data, "gaussian", *model, *wrong, out="q") == 2
        assert wrong[0] in capsys.readouterr().err
    for out, more, expected in (
        ("q", [], {"max_tokens": 9, "prompt": "mibis {text}"}),
        ("r", ["--max-tokens", "8"], {"max_tokens": 8, "prompt": "mibis {text}"}),
    ):
        assert plant(data, "gaussian", *model, *more, out=out) == 0
        written = tomllib.loads(Path(out, "audit.toml").read_text(encoding="utf-8"))
        assert written["model"] == expected


@pytest.mark.parametrize("poison", WORKINGS)
def test_a_poison_is_planted_in_everything_that_it_does_not_refuse(poison):
    planters, planting = WORKINGS[poison].planters, PLANTINGS[poison]
    assert {*planters, *planting.refuses} == set(KINDS)
    assert not {*planters} & {*planting.refuses}
    assert dataclasses.is_dataclass(planting.options)
    for need in planting.needs:
        assert need.option == "test" or need.option in planting.takes()


def test_help_lists_each_option_once_under_its_heading(capsys):
    command = cli.commands["plant"]
    names = [name for option in command.params for name in option.opts]
    assert len(set(names)) == len(names)
    assert invoke(["plant", "--help"]) == 0
    told = capsys.readouterr().out
    places = [told.index(f"\n{heading}:\n") for heading in ("Data", "The attack's own", "Output")]
    assert places == sorted(places)
    own = told[places[1] : places[2]]
    for planting in PLANTINGS.values():
        for name in planting.takes():
            assert own.count(f"\n  --{name.replace('_', '-')} ") == 1
    assert " ".join(own.split()).count("[default: 0.063]") == 1
    # Nothing is there to be mistaken for what somebody gave.
    own_names = {name for planting in PLANTINGS.values() for name in planting.takes()}
    shown = click.Context(command, info_name="plant")
    given = command.make_context("plant", ["x.npz", "--attack", "gaussian", "-o", "p"], shown)
    assert {given.params[name] for name in own_names - {"clean_label"}} == {None}
    assert given.params["clean_label"] is False


def settings(**given):
    paths = {"data": Path("data.npz"), "output": Path("out")}
    none = dict.fromkeys(field.name for field in dataclasses.fields(PlantSettings))
    return PlantSettings(**{**none, **paths, **given})


def test_as_many_are_planted_as_let_a_clean_model_pass():
    def asked(attack="gaussian", **given):
        return count_of(settings(attack=attack, **given), 3000)

    # (1.6449 + 1.6449)^2 / 0.25^2 = 173 for the mean alone; with the scatter 217 (test_squares.py).
    count, told = asked()
    assert (count, "150 a clean model would not pass" in told) == (217, True)
    count, told = asked(count=100)
    assert count == 100
    assert "hardly pass" in told
    assert "--count 217" in told
    assert asked(budget=0.1) == (300, "")
    assert asked("backdoor") == (150, "")
    # 217 of 600 samples are no small part of a table: what is asked for is planted.
    small, told = count_of(settings(attack="gaussian"), 600)
    assert (small, "--count 217" in told) == (30, True)
    # Of 400, at most half can be canaries.
    small, told = count_of(settings(attack="gaussian"), 400)
    assert (small, "--count" in told, "the table needs 434 samples" in told) == (20, False, True)
