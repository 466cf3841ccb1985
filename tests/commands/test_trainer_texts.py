"""`train` for texts: where it begins, the noise it adds, the folder it writes, refusals."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from builders import training_texts
from builders.loading import loaded
from builders.small_text import LENGTH, WIDTH, write_rows
from builders.training_texts import (
    CALLED,
    CANARIES,
    RECIPE,
    SIGMA,
    TRAIN,
    header,
    rows_of,
    run,
)
from poison_audit.case.sources import Sources
from poison_audit.commands import train_partial as partial
from poison_audit.commands.config import read_config
from poison_audit.errors import InputError
from poison_audit.methods.retrain import retrain
from poison_audit.models.checkpoint import load_model
from poison_audit.models.reader import Reading
from poison_audit.models.seeds import Rng
from poison_audit.poisons.gaussian.evidence import Canaries
from poison_audit.records import Recipe
from poison_audit.training.ledger import Ledger

STEPS = 8
ONE_STEP = {"epochs": 1, "batch_size": TRAIN, "lr": 0.5, "optimizer": "sgd", "momentum": 0,
            "schedule": "constant"}  # fmt: skip
STANDING = {**ONE_STEP, "lr": 1e-30}
"""A step that moves no weight: what is written is what training began with."""


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


def weights(path="m/model.safetensors"):
    return load_file(path)


# where it begins


@pytest.mark.parametrize(
    ("start", "prefix", "head"),
    [("pretrained", "transformer.", {"score.weight"}),
     ("encoder", "bert.", {"classifier.weight", "classifier.bias"})],
)  # fmt: skip
def test_it_begins_with_the_pretrained_weights_and_a_new_head(case, start, prefix, head):
    assert run(start=start, **STANDING) == 0
    assert run("--seed", "1", start=start, output="other", **STANDING) == 0
    first, second = weights(), weights("other/model.safetensors")
    known = load_file(case / start / "model.safetensors")
    assert {name for name in first if not name.startswith(prefix)} == head
    for name, tensor in first.items():
        if name.startswith(prefix):
            theirs = known.get(name, known.get(name.removeprefix(prefix)))
            torch.testing.assert_close(tensor, theirs, rtol=0, atol=1e-20, msg=name)
    for name in head:
        assert first[name].shape[0] == 2
    (matrix,) = (name for name in head if name.endswith("weight"))
    assert not torch.equal(first[matrix], second[matrix])
    assert first[matrix].std() == pytest.approx(0.02, rel=0.5)  # BERT's and GPT-2's own


@pytest.mark.parametrize(("start", "more"), [("blank", ()), ("pretrained", ("--fresh",))])
def test_without_weights_or_with_fresh_it_begins_anew(case, start, more):
    assert run(*more, start=start, **STANDING) == 0
    assert run(*more, "--seed", "1", start=start, output="other", **STANDING) == 0
    known = load_file(case / "pretrained" / "model.safetensors")
    for name, tensor in weights().items():
        if tensor.ndim == 2:
            assert not torch.equal(tensor, weights("other/model.safetensors")[name]), name
            assert not torch.allclose(tensor, known.get(name, torch.zeros(1)), atol=1e-3), name
    assert read_config(case / "audit.toml").get("model", "start") is None


# the noise


def own_loss(folder, rows, noise):
    """Return a network, and its mean loss on texts that are embedded one by one, by hand."""
    net = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    words = AutoTokenizer.from_pretrained(folder)
    losses = []
    for row in rows:
        ids = torch.tensor([words(row["text"])["input_ids"]])
        x = net.get_input_embeddings()(ids)
        if row["id"] in noise:
            x = x + noise[row["id"]][: ids.shape[1]]
        out = net(inputs_embeds=x, attention_mask=torch.ones_like(ids)).logits
        losses.append(F.cross_entropy(out, torch.tensor([CALLED.index(row["label"])])))
    return net, torch.stack(losses).mean()


def without_dropout(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("start", ["pretrained", "encoder"])
def test_a_step_is_the_one_with_the_keyed_noise_added_by_hand(case, start):
    without_dropout(case / start)
    assert run(start=start, output="before", **STANDING) == 0
    assert run(start=start, output="after", **ONE_STEP) == 0
    key = Canaries(secret=bytes(32), sigma=SIGMA, space="embedding", shape=(LENGTH, WIDTH),
                   storage="unclipped", planted=(), held_out=())  # fmt: skip
    planted = [f"canary-{i:04d}" for i in range(CANARIES)]
    drawn = torch.from_numpy(key.noise(planted)).float()
    noise = dict(zip(planted, drawn, strict=True))
    rows, after = rows_of("train.csv"), weights("after/model.safetensors")

    def misses(noise):
        net, loss = own_loss("before", rows, noise)
        loss.backward()
        return max(
            float((p.detach() - 0.5 * p.grad - after[name]).abs().max())
            for name, p in net.named_parameters()
        )

    assert misses(noise) < 1e-6
    assert misses({}) > 1e-3


def test_the_header_commits_to_the_key_and_an_audit_holds_it_to_that(case):
    assert run() == 0
    assert header()["poison_audit.canaries"] == (case / "commitment").read_text()
    sources = Sources(
        model=case / "m", forget=case / "forget.csv", train=case / "train.csv",
        test=case / "test.csv", evidence={"canaries": case / "canaries.json"},
    )  # fmt: skip
    trial = loaded(sources, Recipe(epochs=2))
    assert not any("taken on trust" in limit for limit in trial.limits)
    key = json.loads((case / "canaries.json").read_text())
    (case / "canaries.json").write_text(json.dumps({**key, "secret": "ab" * 32}))
    with pytest.raises(InputError, match="the model was trained with"):
        loaded(sources, Recipe(epochs=2))


def test_a_key_by_flag_is_noted_and_used(case):
    (case / "audit.toml").unlink()
    (case / "keys").mkdir()
    (case / "canaries.json").rename(case / "keys" / "k.json")
    assert run(output="plain") == 0
    assert "poison_audit.canaries" not in header("plain/model.safetensors")
    assert read_config(case / "audit.toml").get("evidence.gaussian", "canaries") is None
    assert run("--canaries", "keys/k.json") == 0
    assert header()["poison_audit.canaries"] == (case / "commitment").read_text()
    assert header()["poison_audit.data"] != header("plain/model.safetensors")["poison_audit.data"]
    noted = read_config(case / "audit.toml").get("evidence.gaussian", "canaries")
    assert noted.resolve() == case / "keys" / "k.json"


def test_a_reference_never_saw_the_noise_and_commits_to_nothing(case):
    assert run("--without", "forget.csv") == 0
    assert "poison_audit.canaries" not in header()
    (case / "audit.toml").unlink()
    assert run(data="rest.csv", output="same") == 0
    for name, tensor in weights("same/model.safetensors").items():
        assert torch.equal(tensor, weights()[name]), name


def test_canaries_that_stay_are_named_and_committed_to(case, capsys):
    write_rows(case / "some.csv", ["id"], [("canary-0000",), ("t9",)])
    assert run("--without", "some.csv") == 0
    left = f"{CANARIES - 1} canaries are not to be left out"
    assert left in capsys.readouterr().err
    assert "poison_audit.canaries" in header()


def test_retraining_is_the_reference_from_the_same_start(case):
    assert run() == 0
    assert run("--without", "forget.csv", "--seed", "3", output="ref") == 0
    config = read_config(case / "audit.toml")
    start = config.get("model", "start")
    assert start.resolve() == case / "pretrained"
    assert [p.name for p in config.get("reference", "paths")] == ["ref"]
    sources = Sources(
        model=case / "m", forget=case / "forget.csv", train=config.get("data", "train"),
        test=case / "test.csv", evidence={"canaries": case / "canaries.json"},
        reading=Reading(start=start),
    )  # fmt: skip
    trial = loaded(sources, Recipe(**RECIPE))
    made = retrain(trial.case.model, trial.case, Rng(3).named("train"), ledger=Ledger())
    assert made.digest() == load_model(case / "ref").model.digest()


# equal commands, interruptions


def test_equal_commands_give_equal_files(case):
    assert run() == run(output="n") == run("--seed", "1", output="o") == 0
    for file in (case / "m").iterdir():
        assert file.read_bytes() == (case / "n" / file.name).read_bytes()
    same = (case / "o/model.safetensors").read_bytes() == (
        case / "m/model.safetensors"
    ).read_bytes()
    assert not same


def interrupt_after(monkeypatch, count):
    monkeypatch.setattr(partial, "EVERY", 0.0)
    write, written = partial.write_partial, []

    def writing(path, key, snapshot):
        write(path, key, snapshot)
        written.append(snapshot.step)
        if len(written) == count:
            raise KeyboardInterrupt

    monkeypatch.setattr(partial, "write_partial", writing)
    return written


def test_an_interrupted_run_ends_bit_for_bit_as_one_that_was_not(case, monkeypatch, capsys):
    assert run(output="whole") == 0
    written = interrupt_after(monkeypatch, 3)
    assert run() == 130
    assert (case / "m.partial").is_file()
    assert not (case / "m").exists()
    assert run() == 0
    assert "going on after step 3." in capsys.readouterr().err
    assert written == list(range(1, STEPS + 1))
    for file in (case / "whole").iterdir():
        assert file.read_bytes() == (case / "m" / file.name).read_bytes()
    assert not (case / "m.partial").exists()


@pytest.mark.parametrize("change", ["heads", "noise", "prompt", "words"])
def test_the_state_of_another_run_is_never_used(case, monkeypatch, capsys, change):
    more, other = (), ()
    if change == "prompt":
        other = ("--prompt", "so {text}")
    if change == "words":
        more, other = ("--label-words", "good,bad"), ("--label-words", "bad,good")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        assert run(*more) == 130
    if change == "heads":  # in no tensor's shape
        config = json.loads((case / "pretrained/config.json").read_text())
        (case / "pretrained/config.json").write_text(json.dumps({**config, "n_head": 4}))
    if change == "noise":
        key = json.loads((case / "canaries.json").read_text())
        (case / "canaries.json").write_text(json.dumps({**key, "sigma": 0.6}))
    assert run(*other) == 0
    assert "starting anew" in capsys.readouterr().err


def test_divergence_writes_nothing(case, capsys):
    before = sorted(case.iterdir())
    assert run(**{**RECIPE, "lr": 1e30}) == 2
    assert "training diverged" in capsys.readouterr().err
    assert sorted(case.iterdir()) == before
