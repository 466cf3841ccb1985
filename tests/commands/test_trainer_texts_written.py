"""What training on texts writes, and what unlearning it keeps."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2LMHeadModel,
)

from builders import training_texts
from builders.loading import loaded
from builders.small_text import tokenizer, write_rows
from builders.training_texts import (
    CALLED,
    RECIPE,
    TEST,
    TRAIN,
    header,
    rows_of,
    run,
)
from poison_audit.case.sources import Sources
from poison_audit.cli import invoke
from poison_audit.commands.config import read_config
from poison_audit.engine import unlearning
from poison_audit.engine.plan import make_plan
from poison_audit.engine.run import run as run_cells
from poison_audit.models.checkpoint import load_model
from poison_audit.models.reader import Reading
from poison_audit.records import Recipe
from poison_audit.verdict.policy import make_policy


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


# what it writes


def test_transformers_reads_the_folder_and_gives_the_same_logits(case, capsys):
    assert run("--test", "test.csv") == 0
    net = AutoModelForSequenceClassification.from_pretrained(case / "m").eval()
    assert net.config.id2label == {0: "dull", 1: "fine"}
    assert net.config.label2id == {"dull": 0, "fine": 1}
    assert net.config.architectures == ["GPT2ForSequenceClassification"]
    words = AutoTokenizer.from_pretrained(case / "m")
    texts = rows_of("test.csv")
    model = load_model(case / "m").model
    assert model.labels == CALLED
    read = model.reader.read([row["text"] for row in texts])
    right = 0
    with torch.no_grad():
        for row, x, mask in zip(texts, read.x, read.mask, strict=True):
            ids = torch.tensor([words(row["text"])["input_ids"]])
            assert x[mask.bool()].tolist() == ids[0].tolist()
            theirs = net(ids).logits
            embedded = model.module.get_input_embeddings()(ids)
            ours = model.module(inputs_embeds=embedded, attention_mask=torch.ones_like(ids))
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
            right += CALLED[int(theirs.argmax())] == row["label"]
    assert float(header()["poison_audit.test_accuracy"]) == right / TEST
    assert f"test accuracy {right / TEST:.1%} (" in capsys.readouterr().out


def test_the_config_is_the_bases_but_for_the_classes(case):
    odd = {"problem_type": "regression", "summary_type": "mean", "use_cache": True,
           "id2label": {"0": "a", "1": "b", "2": "c"},
           "label2id": {"a": 0, "b": 1, "c": 2}}  # fmt: skip
    base = json.loads((case / "pretrained/config.json").read_text()) | odd
    (case / "pretrained/config.json").write_text(json.dumps(base))
    assert run() == 0
    told = json.loads((case / "m/config.json").read_text())
    changed = {key for key in {**told, **base} if told.get(key) != base.get(key)}
    assert changed == {"architectures", "id2label", "label2id", "pad_token_id"}
    assert sorted(p.name for p in (case / "m").iterdir()) == [
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    assert json.loads((case / "pretrained/config.json").read_text()) == base  # is left alone


def test_numbered_labels_keep_their_numbers(case):
    rows = [(row["text"], 2 * CALLED.index(row["label"])) for row in rows_of("train.csv")]
    write_rows(case / "numbers.csv", ["text", "label"], rows)
    (case / "audit.toml").unlink()
    assert run(data="numbers.csv") == 0
    loaded = load_model(case / "m").model
    assert (loaded.classes, loaded.labels) == (3, None)


def test_files_lie_beside_a_named_safetensors(case):
    (case / "out").mkdir()
    assert run(output="out/m.safetensors") == run("--seed", "1", output="out/n.safetensors") == 0
    assert json.loads((case / "out/config.json").read_text())["architectures"] == [
        "GPT2ForSequenceClassification"
    ]
    assert run(output="folder") == 0
    alone = load_model(case / "folder").model.digest()
    assert load_model(case / "out/m.safetensors").model.digest() == alone


def test_a_causal_model_answers_with_label_words(case):
    assert run("--label-words", " bad, good", "--prompt", "so {text} is") == 0
    config = read_config(case / "audit.toml")
    assert config.get("model", "label_words") == [" bad", " good"]
    assert config.get("model", "prompt") == "so {text} is"
    assert config.get("data", "names") == ["dull", "fine"]
    told = json.loads((case / "m/config.json").read_text())
    assert told["architectures"] == ["GPT2LMHeadModel"]
    reading = Reading(words=(" bad", " good"), prompt="so {text} is")
    loaded = load_model(case / "m", reading=reading).model
    assert loaded.classes == 2
    assert loaded.module.lm_head.weight is loaded.module.transformer.wte.weight
    with safe_open(case / "m/model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118 - tied, as transformers stores it
    net = GPT2LMHeadModel.from_pretrained(case / "m").eval()
    words = AutoTokenizer.from_pretrained(case / "m")
    ids = torch.tensor([words("so kaleran is")["input_ids"]])
    read = loaded.reader.read(["kaleran"])
    assert read.x.tolist() == ids.tolist()
    chosen = [words(word)["input_ids"][0] for word in (" bad", " good")]
    with torch.no_grad():
        x = loaded.module.get_input_embeddings()(ids)
        ours = loaded.module(inputs_embeds=x, attention_mask=torch.ones_like(ids))[:, -1, chosen]
        torch.testing.assert_close(ours, net(ids).logits[:, -1, chosen], rtol=1e-5, atol=1e-6)


def test_what_is_given_once_is_read_from_audit_toml_the_next_time(case, capsys):
    assert run("--max-tokens", "6") == 0
    assert f"of {TRAIN} texts" in capsys.readouterr().err
    config = read_config(case / "audit.toml")
    assert config.get("model", "max_tokens") == 6
    assert config.get("data", "train").resolve() == case / "train.csv"
    assert config.get("training", "optimizer") == "adamw"
    assert invoke(["train", "train.csv", "-o", "ref", "--without", "forget.csv"]) == 0
    assert header("ref/model.safetensors")["poison_audit.recipe"] == header()["poison_audit.recipe"]
    long = sum(len(tokenizer()(row["text"])["input_ids"]) > 6 for row in rows_of("train.csv"))
    assert f"{long} of {TRAIN} texts" in capsys.readouterr().err


def test_a_start_that_is_no_more_true_is_called_out(case, capsys):
    assert run() == 0
    assert "new weights" not in capsys.readouterr().err
    assert run("--fresh", output="anew") == 0
    assert "[model] start: this model began with new weights." in capsys.readouterr().err


# unlearning what was trained, and keeping it


UNLEARN = ("unlearn", "m", "--forget", "forget.csv", "--method", "gd", "--budget", "0.5", "-o")


def test_what_is_unlearned_reads_as_a_model(case):
    assert run("--test", "test.csv") == 0
    for output in ("fixed", "alone/fixed.safetensors"):
        assert invoke([*UNLEARN, output]) == 0
        fixed = load_model(case / output)
        assert fixed.metadata["poison_audit.digest"] == fixed.model.digest()
        beside = (case / output).parent if output.endswith("s") else case / output
        for name in ("config.json", "tokenizer.json"):
            assert (beside / name).read_bytes() == (case / "m" / name).read_bytes()
    AutoModelForSequenceClassification.from_pretrained(case / "fixed")


def test_what_is_kept_reads_as_a_model(case):
    assert run("--test", "test.csv") == 0
    assert invoke([*UNLEARN, "fixed"]) == 0
    sources = Sources(
        model=case / "m", forget=case / "forget.csv", train=case / "train.csv",
        test=case / "test.csv", reading=Reading(start=case / "pretrained"),
    )  # fmt: skip
    trial = loaded(sources, Recipe(**RECIPE))
    policy = make_policy(tolerances={})
    plan = make_plan(policy=policy, methods=("gd", "retrain"), budgets=[0.5], seeds=2)
    plan = replace(plan, probes=())
    cells = run_cells(trial, plan, case / "o", key="k", keep=True)
    names = ("gd", "gd-1", "retrained", "retrained-1")
    assert sorted(p.name for p in (case / "o/models").iterdir()) == sorted(names)
    for name, cell in zip(names, cells[1:], strict=True):
        assert load_model(case / "o/models" / name).model.digest() == cell.digest
    assert cells[1].cost.gradients > 0
    # The key, which only `unlearn` was given here, changes no sample that gd descends on.
    assert cells[1].digest == load_model(case / "fixed").model.digest()


@pytest.mark.parametrize(
    ("output", "said"),
    [("vit/x.safetensors", "vit: holds files of another model: config.json"),
     ("sharded", "sharded: holds files of another model: model.safetensors.index.json"),
     ("m/config.json/x", "its folder cannot be made"), ("test.csv", "is a file")],
)  # fmt: skip
def test_unlearn_never_writes_among_the_files_of_another_model(
    case, capsys, monkeypatch, output, said
):
    assert run("--test", "test.csv") == 0
    monkeypatch.setattr(unlearning, "unlearn", None)  # would crash if it were reached
    for name, content in (("vit/config.json", '{"model_type": "vit"}'),
                          ("sharded/model.safetensors.index.json", "{}")):  # fmt: skip
        (case / name).parent.mkdir()
        (case / name).write_text(content)
    assert invoke([*UNLEARN, output]) == 2
    assert said in capsys.readouterr().err
    assert (case / "vit/config.json").read_text() == '{"model_type": "vit"}'
