"""`plant` in texts that were planted in before: the earlier poison stays as it is."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import pytest

from builders.planted_texts import ATTACKS, accepted, cells, chain, options, plant, write_clean
from poison_audit.cli import invoke
from poison_audit.commands.config import read_config
from poison_audit.models.checkpoint import load_model


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_clean(tmp_path_factory.mktemp("clean"))


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Path(os.path.relpath(made, tmp_path))


@pytest.fixture(scope="module")
def model(made):
    return load_model(made / "base").model


ORDERS = [ATTACKS, ATTACKS[::-1], ("backdoor", "gaussian", "token-canary")]


@pytest.mark.parametrize("attacks", ORDERS, ids=["forth", "back", "three"])
def test_several_attacks_in_one_table_leave_each_other_alone(here, model, capsys, attacks):
    folder = chain(here, attacks)
    assert accepted(folder, model) == set(attacks) - {"indiscriminate"}
    forget = cells(folder / "forget.csv")
    assert list(dict.fromkeys(row["attack"] for row in forget)) == list(attacks)
    last = {row["id"]: row for row in cells(folder / "train.csv")}
    for number, attack in enumerate(attacks):
        step = Path(f"p{number}")
        own = [row for row in cells(step / "forget.csv") if row["attack"] == attack]
        assert [row for row in forget if row["attack"] == attack] == own
        rows = {row["id"]: row for row in cells(step / "train.csv")}
        assert all(last[row["id"]] == rows[row["id"]] for row in own)
    # The rows of the clean table stand where they stood, those that were added follow.
    poison = {row["id"] for row in forget}
    clean = cells(here / "clean.csv")
    for old, new in zip(clean, cells(folder / "train.csv"), strict=False):
        assert old == new or new["id"] in poison
    config = tomllib.loads((folder / "audit.toml").read_text(encoding="utf-8"))
    assert (folder / config["data"]["test"]).resolve() == (here / "test.csv").resolve()
    assert f"poisoned before ({', '.join(attacks[:-1])})" in capsys.readouterr().out


def test_the_evidence_of_an_earlier_planting_is_the_same_file(here):
    folder = chain(here, ("gaussian", "token-canary", "backdoor"))
    assert (folder / "canaries.json").read_bytes() == Path("p0/canaries.json").read_bytes()
    assert (folder / "strings.json").read_bytes() == Path("p1/strings.json").read_bytes()


def test_what_was_said_of_the_model_s_input_is_kept(here):
    given = [*options(here, "gaussian"), "--max-tokens", "9"]
    assert plant(here, "gaussian", *given) == 0
    assert plant(here, "token-canary", data="p/train.csv", out="q") == 0
    assert read_config(Path("q/audit.toml")).get("model", "max_tokens") == 9


def test_the_same_attack_is_not_planted_twice(here, capsys):
    chain(here, ("backdoor", "gaussian"))
    again = options(here, "backdoor")
    assert plant(here, "backdoor", *again, data="p1/train.csv", out="p1") == 2
    err = capsys.readouterr().err
    assert "poisoned already, by backdoor" in err
    assert "folder of the earlier planting" in err
    assert plant(here, "token-canary", "--names", "pos,neg", data="p1/train.csv", out="q") == 2
    assert "labels are neg,pos" in capsys.readouterr().err
    assert not Path("q").exists()


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("forget.csv", lambda text: text + "r9,pos,,,\n", "forget.csv: is not the one"),
        ("planting.json", lambda text: text.replace("120", "119"), "is not the table"),
        ("planting.json", lambda _: "[]", "expected a JSON object"),
        ("planting.json", lambda _: "{", "not JSON"),
        ("audit.toml", lambda text: text.replace("trigger.json", "gone.json"), "gone.json"),
        ("audit.toml", lambda _: "[", "not valid TOML"),
    ],
)
def test_an_earlier_planting_that_was_changed_is_refused(here, capsys, name, change, told):
    chain(here, ("backdoor",))
    path = Path("p0") / name
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    assert plant(here, "token-canary", data="p0/train.csv", out="q") == 2
    assert told in capsys.readouterr().err
    assert not Path("q").exists()


def test_a_clean_table_beside_a_planting_is_a_clean_table(here):
    data = Path("clean.csv")
    data.write_bytes((here / "clean.csv").read_bytes())
    for _ in range(2):
        given = [*options(here, "backdoor"), "--force"]
        assert plant(here, "backdoor", *given, data=data, out=".") == 0
    assert len(cells(Path("forget.csv"))) == 6


def test_plant_train_probe(here):
    folder = chain(here, ("backdoor", "gaussian", "token-canary"))
    train = ["train", str(folder / "train.csv"), "--start", str(here / "base"), "-q",
             "--recipe", "epochs=2", "--recipe", "lr=0.01"]  # fmt: skip
    assert invoke([*train, "-o", str(folder / "model")]) == 0
    probe = ["probe", str(folder / "model"), "--forget", str(folder / "forget.csv")]
    light = ["--set", "backdoor.draws=20", "--set", "token-canary.draws=8"]
    assert invoke([*probe, *light, "--out", "o", "-q"]) in (1, 3)
    subject = json.loads(Path("o/report.json").read_text(encoding="utf-8"))["subject"]
    assert subject["trigger"]["phrase"] == "zorp quell"
    assert subject["canaries"]["space"] == "embedding"
    assert subject["strings"]["in_forget_set"] == 6
