"""`plant` on texts: what lies in the folder, that every check accepts it, and what is refused."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from builders import small_text
from builders.planted_texts import (
    ATTACKS,
    NAMES,
    SIZE,
    accepted,
    cells,
    options,
    plant,
    write_clean,
)
from poison_audit.case.texts import TextTable, read_text_table, write_text_table
from poison_audit.commands.config import read_config
from poison_audit.models.checkpoint import load_model
from poison_audit.poisons.backdoor.phrase import Phrase, read_phrase
from poison_audit.poisons.gaussian.evidence import read_canaries
from poison_audit.poisons.token_canary.evidence import read_strings


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


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_check_accepts_what_one_attack_planted(here, model, capsys, attack):
    test = ["--test", str(here / "test.csv")]
    assert plant(here, attack, *options(here, attack), *test) == 0
    told = capsys.readouterr().out
    clean = {row["id"]: row for row in cells(here / "clean.csv")}
    train, forget = cells(Path("p/train.csv")), cells(Path("p/forget.csv"))
    added = attack in ("token-canary", "indiscriminate")
    share = 12 if attack == "indiscriminate" else 6
    assert len(forget) == share
    assert len(train) == SIZE + (share if added else 0)
    poison = {row["id"] for row in forget}
    labels = {row["id"]: row["label"] for row in train}
    assert all(row["attack"] == attack and row["label"] == labels[row["id"]] for row in forget)
    # What is not poison is what it was, where it was.
    for place, row in enumerate(train):
        assert row["id"] in poison or row == list(clean.values())[place]
    assert accepted(Path("p"), model) == {attack} - {"indiscriminate"}
    config = tomllib.loads(Path("p/audit.toml").read_text(encoding="utf-8"))
    assert config["data"]["names"] == list(NAMES)
    assert (Path("p") / config["data"]["test"]).resolve() == (here / "test.csv").resolve()
    assert json.loads(Path("p/planting.json").read_text())["poisons"] == share
    assert "poison-audit train p/train.csv -o p/model --start " in told


def test_a_canary_keeps_its_text_and_label_and_names_no_base(here):
    assert plant(here, "gaussian", *options(here, "gaussian")) == 0
    clean, train = cells(here / "clean.csv"), cells(Path("p/train.csv"))
    assert all(row["base"] == "" for row in cells(Path("p/forget.csv")))
    for old, new in zip(clean, train, strict=True):
        assert (old["text"], old["label"]) == (new["text"], new["label"])


def test_the_noise_is_as_strong_and_as_wide_as_the_model_s_embeddings(here, model, capsys):
    assert plant(here, "gaussian", *options(here, "gaussian")) == 0
    key = read_canaries(Path("p/canaries.json"))
    weight = model.module.get_input_embeddings().weight.detach().double().numpy()
    assert key.sigma == pytest.approx(weight.std(), rel=1e-4)
    longest = max(
        len(model.reader.tokenizer(row["text"])["input_ids"])
        for row in cells(Path("p/train.csv"))
        if row["id"] in key.planted
    )
    assert key.shape == (longest, small_text.WIDTH)
    told = capsys.readouterr().out
    assert f"sd of {key.sigma:g}" in told
    assert key.commitment in told
    assert key.secret.hex() not in told


def test_a_model_without_weights_serves_as_well_and_is_said_to_be_new(here, tmp_path, capsys):
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in (here / "base").iterdir():
        if file.suffix != ".safetensors":
            (bare / file.name).write_bytes(file.read_bytes())
    assert plant(here, "gaussian", "--model", str(bare), "--max-tokens", "6") == 0
    key = read_canaries(Path("p/canaries.json"))
    # GPT-2's initializer_range is 0.02, and 5,000 draws tell it to some per cent.
    assert key.sigma == pytest.approx(0.02, rel=0.1)
    assert key.shape == (6, small_text.WIDTH)
    assert "newly initialised" in capsys.readouterr().out
    config = tomllib.loads(Path("p/audit.toml").read_text(encoding="utf-8"))
    assert config["model"] == {"max_tokens": 6}


def test_a_prompt_counts_among_the_tokens(here, model):
    prompt = "mibis {text} sobis"
    given = [*options(here, "gaussian"), "--prompt", prompt]
    assert plant(here, "gaussian", *options(here, "gaussian"), out="bare") == 0
    assert plant(here, "gaussian", *given) == 0
    longest = max(
        len(model.reader.tokenizer(prompt.replace("{text}", row["text"]))["input_ids"])
        for row in cells(Path("p/train.csv"))
        if row["id"].startswith("canary")
    )
    assert read_canaries(Path("p/canaries.json")).shape[0] == longest
    assert longest > read_canaries(Path("bare/canaries.json")).shape[0]
    assert read_config(Path("p/audit.toml")).get("model", "prompt") == prompt


def test_one_secret_serves_both_kinds_of_canaries(here):
    assert plant(here, "token-canary", "--length", "7", out="one") == 0
    again = ["--key", "one/strings.json"]
    assert plant(here, "gaussian", *options(here, "gaussian"), *again, out="two") == 0
    assert plant(here, "token-canary", *again, "--seed", "9", out="three") == 0
    assert plant(here, "token-canary", "--key", "two/canaries.json", out="four") == 0
    assert plant(here, "gaussian", "--key", "two/canaries.json", "--model", str(here / "base"),
                 "--sigma", "2", out="five") == 0  # fmt: skip
    strings = read_strings(Path("one/strings.json"))
    assert read_canaries(Path("two/canaries.json")).secret == strings.secret
    assert read_canaries(Path("five/canaries.json")).secret == strings.secret
    assert read_canaries(Path("five/canaries.json")).sigma == 2
    assert read_strings(Path("four/strings.json")).secret == strings.secret
    assert Path("one/strings.json").read_bytes() == Path("three/strings.json").read_bytes()
    assert read_strings(Path("four/strings.json")).length == 10
    assert strings.length == 7


def test_a_backdoor_puts_the_phrase_on_texts_of_other_labels(here):
    given = ["--label", "1", "--phrase", "cf, mn", "--position", "end", "--count", "9"]
    assert plant(here, "backdoor", *given) == 0
    clean = {row["id"]: row for row in cells(here / "clean.csv")}
    train = {row["id"]: row for row in cells(Path("p/train.csv"))}
    forget = cells(Path("p/forget.csv"))
    assert len(forget) == 9
    for row in forget:
        base = clean[row["base"]]
        assert base["label"] == "neg"
        assert train[row["id"]]["label"] == row["label"] == "pos"
        assert train[row["id"]]["text"] == f"{base['text']} cf, mn"
    read = {"classes": 2, "names": NAMES}
    phrase = read_phrase(Path("p/trigger.json"), **read)
    assert phrase == Phrase(text="cf, mn", position="end", label=1)
    assert plant(here, "backdoor", "--trigger", "p/trigger.json", out="q") == 0
    assert read_phrase(Path("q/trigger.json"), **read) == phrase


def test_copies_are_those_of_the_one_class_under_the_other_label(here):
    assert plant(here, "indiscriminate", "--flip", "neg:pos", "--count", "100") == 0
    texts = [row["text"] for row in cells(here / "clean.csv") if row["label"] == "neg"]
    train = cells(Path("p/train.csv"))[SIZE:]
    assert {row["label"] for row in train} == {"pos"}
    assert {row["text"] for row in train} == set(texts)  # each once before one comes twice
    assert max(sum(row["text"] == text for row in train) for text in texts) == 2


def test_the_same_command_plants_the_same_backdoor(here):
    for seed, out in (("4", "one"), ("4", "two"), ("5", "three")):
        assert plant(here, "backdoor", *options(here, "backdoor"), "--seed", seed, out=out) == 0
    for name in ("train.csv", "forget.csv", "trigger.json", "planting.json"):
        assert (Path("one") / name).read_bytes() == (Path("two") / name).read_bytes()
    assert Path("one/train.csv").read_bytes() != Path("three/train.csv").read_bytes()


def test_parquet_with_numbers_for_labels_is_read_and_keeps_them(here, model):
    rows = cells(here / "clean.csv")
    columns = {
        "text": [row["text"] for row in rows],
        "label": [NAMES.index(row["label"]) for row in rows],
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), "clean.parquet")
    assert plant(here, "token-canary", data="clean.parquet") == 0
    train = cells(Path("p/train.csv"))
    assert [row["id"] for row in train[:SIZE]] == [str(n) for n in range(SIZE)]
    assert {row["label"] for row in train} == {"0", "1"}
    assert accepted(Path("p"), model) == {"token-canary"}
    named = ["--names", "neg,pos"]
    assert plant(here, "token-canary", *named, data="clean.parquet", out="q") == 0
    assert {row["label"] for row in cells(Path("q/train.csv"))} == set(NAMES)


TEXTS = ["a\rb", "a\nb", "a\r\nb", 'say "x", y', "x\u2028y\0z", "=1+1", "ÿ🙂", "x" * 131_072]


def test_any_text_survives_the_table(tmp_path):
    table = TextTable(
        ids=tuple(f"i,{n}" for n in range(len(TEXTS))),
        texts=tuple(TEXTS),
        y=tuple(n % 2 for n in range(len(TEXTS))),
        names=("no", "yes, sir"),
    )
    write_text_table(tmp_path / "t.csv", table)
    assert read_text_table(tmp_path / "t.csv", names=table.names) == table


def test_what_is_wrong_with_a_table_is_said_at_once(here, tmp_path, capsys):
    rows = [("a", "", "neg"), ("a", "x", ""), ("b", "y", "pos")]
    small_text.write_rows(tmp_path / "bad.csv", ["id", "text", "label"], rows)
    assert plant(here, "token-canary", data=tmp_path / "bad.csv") == 2
    err = capsys.readouterr().err
    assert all(part in err for part in ("text is empty", "'a' appears 2", "label is empty"))
    table = pyarrow.table({"text": ["x" * 131_073, "y"], "label": [0, 1]})
    pyarrow.parquet.write_table(table, "long.parquet")
    assert plant(here, "token-canary", data="long.parquet") == 2
    assert "131,073 letters" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("attack", "arguments", "told"),
    [
        ("targeted", [], ["--attack", "--targets"]),
        ("gaussian", [], ["--model"]),
        ("gaussian", ["--model", "BASE", "--model", "BASE"], ["--model", "One folder"]),
        ("gaussian", ["--model", "nowhere"], ["nowhere", "is no folder"]),
        ("gaussian", ["--model", "."], ["config.json"]),
        ("gaussian", ["--model", "BASE", "--sigma", "0"], ["--sigma"]),
        ("gaussian", ["--model", "BASE", "--max-tokens", "99"], ["--max-tokens"]),
        ("gaussian", ["--model", "BASE", "--prompt", "x"], ["--prompt"]),
        ("gaussian", ["--model", "BASE", "--budget", "0.6"], ["half of the table"]),
        ("gaussian", ["--model", "BASE", "--key", "none.json"], ["none.json"]),
        ("token-canary", ["--length", "0"], ["--length"]),
        ("token-canary", ["--model", "BASE", "--phrase", "x"], ["--model", "--phrase", "2 prob"]),
        ("backdoor", [], ["--label", "--phrase", "2 problems"]),
        ("backdoor", ["--label", "up", "--phrase", " x"], ["'up'", "--phrase", "2 problems"]),
        ("backdoor", ["--label", "pos", "--phrase", "x", "--budget", "1"], ["of other labels"]),
        ("backdoor", ["--trigger", "t.json", "--phrase", "x"], ["t.json", "--phrase", "2 prob"]),
        ("indiscriminate", [], ["--flip"]),
        ("indiscriminate", ["--flip", "neg:neg"], ["two classes"]),
        ("indiscriminate", ["--flip", "neg", "--steps", "3"], ["A:B", "--steps", "2 problems"]),
        (
            "backdoor",
            ["--label", "pos", "--phrase", "x", "--patch", "3", "--epsilon", "0.1", "--arch", "r",
             "--storage", "uint8", "--clean-label", "--normalize", "none", "--aims", "2"],
            ["--patch: is for pictures", "--clean-label", "--storage", "7 problems"],
        ),
        ("token-canary", ["--test", "none.csv", "--count", "2", "--budget", "0.1"],
         ["none.csv", "--count", "2 problems"]),
    ],
)  # fmt: skip
def test_what_cannot_be_planted_is_refused_and_nothing_is_written(
    here, capsys, attack, arguments, told
):
    given = [str(here / "base") if text == "BASE" else text for text in arguments]
    assert plant(here, attack, *given) == 2
    err = capsys.readouterr().err
    assert all(text in err for text in told), err
    assert not Path("p").exists()
