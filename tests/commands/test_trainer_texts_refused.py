"""What cannot be trained of texts is refused in words, every problem at once."""

from __future__ import annotations

import json
import shutil

import pytest

from builders import training_texts
from builders.small_text import LENGTH, WIDTH, write_rows
from builders.training_texts import (
    CANARIES,
    rows_of,
    run,
)
from poison_audit.cli import invoke
from poison_audit.models.checkpoint import load_model


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return training_texts.make(tmp_path_factory.mktemp("texts"))


@pytest.fixture
def case(made, tmp_path, monkeypatch):
    folder = tmp_path / "case"
    shutil.copytree(made, folder)
    planted = '# Written by poison-audit\n[evidence.gaussian]\ncanaries = "canaries.json"\n'
    (folder / "audit.toml").write_text(planted)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "300")
    return folder


# refusals


def test_every_problem_at_once(case, capsys):
    shutil.rmtree(case / "pretrained")
    (case / "canaries.json").write_text("{")
    (case / "m").mkdir()
    (case / "m/x").write_text("")
    given = ["--normalize", "none", "--arch", "resnet18", "--recipe", "augment=flip",
             "--device", "nowhere"]  # fmt: skip
    assert invoke(["train", "train.csv", "-o", "m", "--start", "pretrained", *given]) == 2
    err = capsys.readouterr().err
    assert "8 problems" in err
    for part in ("--normalize: is for pictures", "--arch: is for pictures", "pretrained: is no",
                 "augment=flip: is for pictures", "nowhere", "the epochs are not given",
                 "canaries.json: not JSON", "m: is there already"):  # fmt: skip
        assert part in err, part


def test_several_tables_and_flags_are_looked_at_together(case, capsys):
    write_rows(case / "bad.csv", ["text", "label"], [("", "fine"), ("so", "odd"), ("la", "dull")])
    given = ["--without", "none.csv", "--test", "none.csv", "--names", "dull,fine"]
    assert run(*given, data="bad.csv") == 2
    err = capsys.readouterr().err
    for part in ("bad.csv row 2: the text is empty", "unknown label 'odd'", "none.csv"):
        assert part in err, part


def change_config(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def remove(*names):
    def at(case):
        for name in names:
            (case / name).unlink()

    return at


def one_label(case):
    rows = [(row["text"], "fine") for row in rows_of("train.csv")]
    write_rows(case / "train.csv", ["text", "label"], rows)


def with_key(**values):
    def at(case):
        key = json.loads((case / "canaries.json").read_text())
        (case / "canaries.json").write_text(json.dumps({**key, **values}))

    return at


def pickled(case):
    (case / "pretrained/model.safetensors").rename(case / "pretrained/pytorch_model.bin")


def an_adapter(case):
    (case / "pretrained/adapter_config.json").write_text("{}")


def others_files(case):
    (case / "m").mkdir()
    (case / "m/vocab.txt").write_text("")


def nothing(case):
    pass


BROKEN = {
    "no tokenizer": (remove("pretrained/tokenizer.json"), (), "no tokenizer"),
    "no config": (remove("pretrained/config.json"), (), "holds no config.json"),
    "quantised": (
        lambda case: change_config(case / "pretrained", quantization_config={"bits": 4}),
        (), "quantised",
    ),
    "adapter": (an_adapter, (), "Merge it into its model first"),
    "pickle": (pickled, (), "holds weights, but no safetensors"),
    "one label": (one_label, (), "there is one label: 'fine'"),
    "no start": (nothing, ("--start",), "--start FOLDER"),
    "pictures' base": (
        lambda case: change_config(case / "pretrained", model_type="vit"),
        (), "classifier of texts",
    ),
    "no noise here": (
        with_key(planted=[f"x{i}" for i in range(CANARIES)]), (), "none of the 8 ids",
    ),
    "other width": (with_key(shape=[LENGTH, WIDTH + 1]), (), "17 wide"),
    "too short noise": (with_key(shape=[2, WIDTH]), (), "the noise covers 2"),
    "pixels": (with_key(space="pixel", shape=[1, 8, 8]), (), "the samples are texts"),
    "words": (nothing, ("--label-words", "bad,good,dull"), "3 words for 2 labels"),
    "too many tokens": (nothing, ("--max-tokens", "99"), "--max-tokens"),
    "the base itself": (nothing, ("-o", "pretrained", "--force"), "which stays as it is"),
    "no folder": (nothing, ("-o", "."), "no folder of the model's own"),
    "a file": (nothing, ("-o", "test.csv"), "is a file"),
    "others' files": (others_files, ("--force",), "files of another model: vocab.txt"),
    "overlap": (nothing, ("--test", "rest.csv"), "are also in rest.csv"),
    "all of it": (nothing, ("--without", "train.csv"), "every training sample is to be left out"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_trained_is_refused(case, capsys, name):
    break_it, more, said = BROKEN[name]
    break_it(case)
    start = None if more == ("--start",) else "pretrained"
    assert run(*(() if start is None else more), start=start) == 2
    err = capsys.readouterr().err
    assert said in err, err
    assert not (case / "m/model.safetensors").exists()


def test_options_of_texts_are_refused_for_pictures(case, capsys):
    write_rows(case / "pictures.csv", ["path", "label"], [("a.png", 0)])
    given = ["--prompt", "{text}", "--max-tokens", "3", "--label-words", "a,b", "--fresh",
             "--canaries", "canaries.json"]  # fmt: skip
    assert run(*given, data="pictures.csv", start=None) == 2
    assert capsys.readouterr().err.count("is for texts, and DATA holds pictures") == 5
    assert run(data="pictures.csv") == 2
    assert "the column 'text' is missing" in capsys.readouterr().err


def test_an_output_is_overwritten_only_by_force(case):
    assert run() == 0
    before = (case / "m/model.safetensors").read_bytes()
    assert run("--seed", "1") == 2
    assert (case / "m/model.safetensors").read_bytes() == before
    assert run("--seed", "1", "--force", "--names", "fine,dull") == 0
    assert (case / "m/model.safetensors").read_bytes() != before
    assert load_model(case / "m").model.labels == ("fine", "dull")
