"""Trials of texts that are refused, and in which words."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from safetensors.torch import save_file

from builders import text_case
from builders.small_text import LENGTH, WIDTH
from builders.text_case import KEY, load, refused, rewrite
from poison_audit.case.keyfile import write_key
from poison_audit.cli import invoke
from poison_audit.models.image import CifarResNet, CifarResNetSpec
from poison_audit.models.reader import Reading
from poison_audit.poisons.token_canary.evidence import Strings
from poison_audit.records import Recipe


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return text_case.make(tmp_path_factory.mktemp("case"))


@pytest.fixture
def case(made, tmp_path, monkeypatch):
    folder = shutil.copytree(made, tmp_path / "case")
    monkeypatch.chdir(folder)
    return folder


def pixel_table(folder, name="p.npz"):
    np.savez(folder / name, x=np.zeros((4, 1, 8, 8), np.uint8), y=np.arange(4) % 2)
    return folder / name


# What is refused


def test_keys_that_do_not_fit_the_model(case):
    write_key(case / "canaries.json", replace(KEY, shape=(LENGTH, 8)))
    said = refused(case)
    assert said[1] == (
        "canaries.json: the noise is 8 wide, the model's input embeddings 16. Is this the key of "
        "this model's planting?"
    )
    write_key(case / "canaries.json", replace(KEY, shape=(3, WIDTH)))
    said = refused(case)[1:]
    assert len(said) == 6
    assert all("tokens, the noise covers 3. Is the model read as it was trained" in s for s in said)
    write_key(case / "canaries.json", replace(KEY, space="pixel", shape=(1, 8, 8)))
    assert "space is pixel, but the samples are texts" in refused(case)[1]
    write_key(case / "canaries.json", replace(KEY, shape=(1, 8, 8)))
    (said,) = refused(case)
    assert said == "canaries.json shape: expected [length, width] of embeddings, got [1, 8, 8]."
    rewrite(case / "canaries.json", shape=[LENGTH, WIDTH], sigma=0)
    assert refused(case)[0].startswith("canaries.json sigma: expected a number above 0")


def test_what_is_for_pictures_is_refused(case):
    said = refused(case, recipe=Recipe(epochs=2, augment="flip"), bases=case / "test.csv")
    assert said == [
        "[training] augment: is flip, which is for pictures, and the samples are texts. Leave it "
        "out.",
        "test.csv: is a table of bases, and a canary's text is its own base. Leave it out.",
    ]
    (said,) = refused(case, normalize="imagenet")
    assert said == "--normalize: is for pictures, and this model reads texts. Leave it out."


@pytest.mark.parametrize("kind", ["npz", "folder", "csv"])
def test_a_table_of_pictures_for_a_model_of_texts(case, kind):
    table = pixel_table(case)
    if kind == "folder":
        table = case / "images"
        table.mkdir()
    elif kind == "csv":
        table = case / "p.csv"
        table.write_text("path,label\na.png,0\n")
    said = refused(case, train=table)
    assert said == [
        f"{table.name}: the table holds pictures, and the model reads texts. A table of texts is a "
        ".csv, .tsv, .jsonl or .parquet with text,label."
    ]


def test_a_table_of_texts_for_a_model_of_pictures(case):
    net = CifarResNet(CifarResNetSpec((1,), 4), channels=1, classes=2)
    save_file(net.state_dict(), case / "net.safetensors")
    said = refused(case, model=case / "net.safetensors", normalize="none", canaries=None)
    assert said == [
        f"{name}: the table holds texts, and the model takes pictures. Is its config.json beside "
        "the weights?"
        for name in ("train.csv", "test.csv")
    ]


def test_token_canaries_for_a_model_of_pictures(case):
    net = CifarResNet(CifarResNetSpec((1,), 4), channels=1, classes=2)
    save_file(net.state_dict(), case / "net.safetensors")
    strings = Strings(secret=bytes(32), length=3, words=("so", "bad"), planted=("a",),
                      held_out=("b",))  # fmt: skip
    write_key(case / "strings.json", strings)
    (case / "forget.csv").write_text("index\n0\n")
    said = refused(
        case, model=case / "net.safetensors", normalize="none", train=pixel_table(case),
        test=pixel_table(case, "q.npz"), strings=case / "strings.json", canaries=None,
    )  # fmt: skip
    assert "strings.json: token canaries are texts, and the samples are pictures." in said


def test_everything_that_is_wrong_is_said_at_once(case):
    (case / "train.csv").write_bytes(b"id,text,label\nc0,caf\xe9,1\n")
    (case / "test.csv").write_text("id,text,label\ne0,,1\ne1,so bad,7\ne1,bad,0\n")
    (case / "canaries.json").write_text("{}")
    said = refused(case, reading=Reading(max_tokens=10))
    assert said[0].startswith("train.csv: not UTF-8 (byte 0xe9 in line 2)")
    assert said[1:3] == [
        "test.csv row 4: the id 'e1' appears 2 times (first in test.csv row 3).",
        "test.csv row 2: the text is empty.",
    ]
    assert "canaries.json: missing key 'secret'." in said


def test_a_model_that_cannot_be_read_hides_nothing_else(case):
    (case / "model/tokenizer.json").unlink()
    (case / "canaries.json").write_text("{")
    said = refused(case)
    assert said[0].startswith("model: holds a language model but no tokenizer.")
    assert any(line.startswith("canaries.json: not JSON") for line in said)
    assert not any("train.csv" in line for line in said)  # nobody knows how to read a text


def test_labels_that_the_model_does_not_have(case):
    rewrite(case / "model/config.json", id2label={"0": "bad", "1": "good"},
            label2id={"bad": 0, "good": 1})  # fmt: skip
    load(case)  # numbers are numbers
    text = (case / "test.csv").read_text().splitlines()
    (case / "test.csv").write_text("\n".join([text[0], "e0,so bad so,nice", "e1,bad,good"]) + "\n")
    assert refused(case) == ["test.csv row 2: unknown label 'nice'. Known: bad, good."]
    (case / "test.csv").write_text("\n".join([text[0], "e0,so bad so,2", "e1,bad,0"]) + "\n")
    assert refused(case) == [
        "test.csv: the sample 'e0' has the label 2. The model has 2 classes: use 0..1."
    ]


def test_words_whose_order_nobody_says_are_asked_for(case):
    # TREC's classes are numbered by first appearance: sorted, 46% are right and a backdoor passes.
    for name in ("train.csv", "test.csv"):
        lines = (case / name).read_text().splitlines()
        words = [line[:-1] + {"0": "so", "1": "good"}[line[-1]] for line in lines[1:]]
        (case / name).write_text("\n".join([lines[0], *words]) + "\n")
    said = [line for line in refused(case) if "the labels are words" in line]
    assert [line.partition(":")[0] for line in said] == ["train.csv", "test.csv"]
    assert "Give them by --names A,B,.." in said[0]
    rewrite(case / "model/config.json", id2label={"0": "so", "1": "good"},
            label2id={"so": 0, "good": 1})  # fmt: skip
    load(case)  # forget.csv's numbers are right by this order, not by the sorted one


def test_texts_that_stand_in_both_tables(case):
    line = (case / "train.csv").read_text().splitlines()[10].split(",")
    (case / "test.csv").write_text((case / "test.csv").read_text() + f"again,{line[1]},0\n")
    (said,) = refused(case)
    assert f"1 samples of the retain set are also in test.csv: '{line[0]}' = 'again'" in said


@pytest.mark.parametrize("command", ["probe", "check"])
@pytest.mark.parametrize("what", ["tokenizer", "empty", "bytes", "tokens", "augment", "prompt"])
def test_each_ends_with_exit_code_2_and_what_to_do(case, capsys, command, what):
    more = ["--recipe", "epochs=2"]
    if what == "tokenizer":
        (case / "model/tokenizer.json").unlink()
    elif what == "empty":
        (case / "test.csv").write_text("text,label\nso,0\n'',1\n  ,1\n")
    elif what == "bytes":
        (case / "train.csv").write_bytes(b"text,label\n\xff,0\n")
    elif what == "augment":
        more += ["--recipe", "augment=flip"]
    elif what == "tokens":
        more += ["--max-tokens", "25"]
    else:
        more += ["--prompt", "no place"]
    code = invoke([command, "model", "--forget", "forget.csv", "--train", "train.csv", "--test",
                   "test.csv", "--canaries", "canaries.json", *more])  # fmt: skip
    told = capsys.readouterr().err
    assert code == 2, told
    assert "Traceback" not in told
    said = {
        "tokenizer": "Put its files beside config.json, by tokenizer.save_pretrained",
        "empty": "test.csv row 4: the text is empty.",
        "bytes": "Save it as CSV UTF-8.",
        "augment": "which is for pictures, and the samples are texts. Leave it out.",
        "tokens": "must be at least 2 and at most the 24 that the model takes, got 25.",
        "prompt": "holds {text} 0 times: 'no place'. Say once where the text is to stand.",
    }[what]
    assert said in told
