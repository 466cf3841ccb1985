"""`train` for texts: where it begins, the noise it adds, the folder it writes, refusals."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
)

from builders.loading import loaded
from builders.small_text import LENGTH, WIDTH, sentences, tokenizer, word_pieces, write_rows
from poison_audit.case.keyfile import write_key
from poison_audit.case.sources import Sources
from poison_audit.cli import invoke
from poison_audit.commands import train_partial as partial
from poison_audit.commands.config import read_config
from poison_audit.engine import unlearning
from poison_audit.engine.plan import make_plan
from poison_audit.engine.run import run as run_cells
from poison_audit.errors import InputError
from poison_audit.methods.retrain import retrain
from poison_audit.models.checkpoint import load_model
from poison_audit.models.reader import Reading
from poison_audit.models.seeds import Rng
from poison_audit.poisons.gaussian.evidence import Canaries
from poison_audit.records import Recipe
from poison_audit.training.ledger import Ledger
from poison_audit.verdict.policy import make_policy

CANARIES, TRAIN, TEST, SIGMA = 8, 40, 20, 0.5
CALLED = ("dull", "fine")
RECIPE = {"epochs": 2, "batch_size": 10, "lr": 0.01, "optimizer": "adamw"}
STEPS = 8
ONE_STEP = {"epochs": 1, "batch_size": TRAIN, "lr": 0.5, "optimizer": "sgd", "momentum": 0,
            "schedule": "constant"}  # fmt: skip
STANDING = {**ONE_STEP, "lr": 1e-30}
"""A step that moves no weight: what is written is what training began with."""


def write_pretrained(folder: Path) -> None:
    """Write pretrained/ (a causal GPT-2), encoder/ (a bare BERT) and blank/ (no weights)."""
    torch.manual_seed(5)
    words, pieces = tokenizer(), word_pieces()
    gpt2 = GPT2Config(vocab_size=len(words), n_positions=LENGTH, n_embd=WIDTH, n_layer=2, n_head=2,
                      bos_token_id=0, eos_token_id=0)  # fmt: skip
    bert = BertConfig(vocab_size=len(pieces), hidden_size=WIDTH, intermediate_size=32,
                      num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=LENGTH,
                      hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)  # fmt: skip
    GPT2LMHeadModel(gpt2).save_pretrained(folder / "pretrained")
    BertModel(bert).save_pretrained(folder / "encoder")
    gpt2.save_pretrained(folder / "blank")
    for name, made in (("pretrained", words), ("blank", words), ("encoder", pieces)):
        made.save_pretrained(folder / name)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    with torch.random.fork_rng():
        write_pretrained(folder)
    texts, labels = sentences(Rng(3), TRAIN + TEST)
    ids = [f"canary-{i:04d}" if i < CANARIES else f"t{i}" for i in range(TRAIN)]
    ids += [f"e{i}" for i in range(TEST)]
    rows = [(i, text, CALLED[y]) for i, text, y in zip(ids, texts, labels, strict=True)]
    write_rows(folder / "train.csv", ["id", "text", "label"], rows[:TRAIN])
    write_rows(folder / "rest.csv", ["id", "text", "label"], rows[CANARIES:TRAIN])
    write_rows(folder / "test.csv", ["id", "text", "label"], rows[TRAIN:])
    write_rows(folder / "forget.csv", ["id", "attack"], [(i, "gaussian") for i in ids[:CANARIES]])
    key = Canaries(secret=bytes(32), sigma=SIGMA, space="embedding", shape=(LENGTH, WIDTH),
                   storage="unclipped", planted=tuple(ids[:CANARIES]),
                   held_out=tuple(f"h{i}" for i in range(CANARIES)))  # fmt: skip
    commitment = write_key(folder / "canaries.json", key)
    (folder / "commitment").write_text(commitment)
    return folder


@pytest.fixture
def case(made, tmp_path, monkeypatch):
    folder = tmp_path / "case"
    shutil.copytree(made, folder)
    planted = '# Written by poison-audit\n[evidence.gaussian]\ncanaries = "canaries.json"\n'
    (folder / "audit.toml").write_text(planted)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "300")
    return folder


def run(*more, output="m", start="pretrained", data="train.csv", **recipe):
    given = ["train", data, "-o", output, *(["--start", start] if start else [])]
    for key, value in (recipe or RECIPE).items():
        given += ["--recipe", f"{key}={value}"]
    return invoke([*given, *more])


def header(path="m/model.safetensors"):
    with safe_open(path, "pt") as file:
        return file.metadata()


def weights(path="m/model.safetensors"):
    return load_file(path)


def rows_of(path):
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


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
