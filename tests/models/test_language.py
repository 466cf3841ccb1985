"""From a folder of transformers to a classifier of texts: what is read, and what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
import transformers as tf

from builders.small_text import LENGTH, WIDTH, tokenizer, write_decoder, write_encoder
from builders.text_folders import WORDS, ask, change, refused, save
from poison_audit.models.checkpoint import load_model
from poison_audit.models.language import BESIDE, kind_of
from poison_audit.models.reader import Reading
from poison_audit.models.seeds import Rng


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    write_decoder(folder / "decoder", classes=3)
    write_encoder(folder / "encoder")
    gpt2 = {"n_positions": LENGTH, "n_embd": WIDTH, "n_layer": 2, "n_head": 2}
    save(folder / "causal", tf.GPT2LMHeadModel, tf.GPT2Config, tokenizer(), **gpt2)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "made")


# What is read


def test_a_folder_becomes_a_model(folder):
    model = load_model(folder / "decoder").model
    assert (model.arch, model.classes, model.labels) == ("transformers:gpt2", 3, None)
    assert (model.reader.length, model.reader.prompt) == (LENGTH, "{text}")
    assert {file.name for file in model.reader.files} == {
        file.name for file in (folder / "decoder").iterdir() if file.name in BESIDE
    }
    assert ask(model).shape == (3, 3)
    assert not model.module.training


def test_labels_are_what_id2label_says(folder):
    for told, labels in (
        ({"0": "neg", "1": "neutral", "2": "pos"}, ("neg", "neutral", "pos")),
        ({"2": "c", "0": "a", "1": "b"}, ("a", "b", "c")),
        ({"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}, None),
        ({"0": "LABEL_1", "1": "LABEL_0", "2": "LABEL_2"}, ("LABEL_1", "LABEL_0", "LABEL_2")),
    ):
        change(folder / "decoder/config.json", id2label=told, label2id=None)
        assert load_model(folder / "decoder").model.labels == labels


def test_what_a_user_says_wins(folder):
    said = Reading(max_tokens=10, prompt="so {text}")
    reader = load_model(folder / "encoder", reading=said).model.reader
    assert (reader.length, reader.prompt) == (10, "so {text}")


def test_the_least_of_what_is_stated_is_the_length(folder):
    change(folder / "encoder/tokenizer_config.json", model_max_length=20)
    assert load_model(folder / "encoder").model.reader.length == 20
    change(folder / "encoder/tokenizer_config.json", model_max_length=10**30)
    assert load_model(folder / "encoder").model.reader.length == LENGTH


def test_label_words_are_the_next_token(folder):
    model = load_model(folder / "causal", reading=replace(WORDS, prompt="{text} so")).model
    assert (model.classes, model.labels) == (2, ("bad", "leran"))
    theirs = tf.GPT2LMHeadModel.from_pretrained(folder / "causal")
    words = tokenizer()
    with torch.no_grad():
        for text, ours in zip(("so bad", "x"), ask(model, ("so bad", "x")), strict=True):
            next_token = theirs(torch.tensor([words(f"{text} so")["input_ids"]])).logits[0, -1]
            expected = next_token[words.convert_tokens_to_ids(["Ġbad", "Ġleran"])]
            torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def test_of_a_longer_word_the_first_token_counts(folder):
    words = tokenizer()
    assert words.tokenize(" warm") == ["Ġwar", "m"]
    load = load_model(folder / "causal", reading=Reading(words=(" bad", " warm"))).model
    theirs = tf.GPT2LMHeadModel.from_pretrained(folder / "causal")
    with torch.no_grad():
        out = theirs(torch.tensor([words("so")["input_ids"]])).logits[0, -1]
    expected = out[words.convert_tokens_to_ids(["Ġbad", "Ġwar"])]
    torch.testing.assert_close(ask(load, ("so",))[0], expected, rtol=1e-5, atol=1e-6)


def test_shards_of_a_tied_network(folder):
    net = tf.GPT2LMHeadModel.from_pretrained(folder / "causal")
    whole = load_model(folder / "causal", reading=WORDS).model
    (folder / "causal/model.safetensors").unlink()
    net.save_pretrained(folder / "causal", max_shard_size="10KB")
    assert len(list((folder / "causal").glob("*.safetensors"))) > 2
    sharded = load_model(folder / "causal", reading=WORDS).model
    assert sharded.digest() == whole.digest()
    assert torch.equal(ask(sharded), ask(whole))


def test_a_config_without_architectures_is_what_it_can_be_made_into(folder):
    whole = load_model(folder / "decoder").model
    for names in (None, [], ["GPT2Model"], [3]):
        change(folder / "decoder/config.json", architectures=names)
        assert torch.equal(ask(load_model(folder / "decoder").model), ask(whole))
    # A causal language model has no outputs of its own for classes.
    change(folder / "causal/config.json", architectures=None)
    (said,) = refused(folder / "causal", WORDS)
    assert said.startswith("--label-words: are for causal language models, and this network has")
    assert "score.weight" in " ".join(refused(folder / "causal"))


@pytest.mark.parametrize(
    ("kind", "names", "expected"),
    [
        (tf.GPT2Config, ["GPT2ForSequenceClassification"], "sequence"),
        (tf.GPT2Config, ["GPT2LMHeadModel"], "causal"),
        (tf.LlamaConfig, ["LlamaForCausalLM"], "causal"),
        (tf.BertConfig, ["BertForMaskedLM"], "sequence"),
        (tf.BertConfig, None, "sequence"),
        (tf.ViTConfig, None, None),
        (tf.ViTConfig, ["ViTForImageClassification"], None),
        (tf.ViTConfig, "ViTForImageClassification", None),
    ],
)
def test_kinds(kind, names, expected):
    assert kind_of(kind(architectures=names)) == expected


# Training anew


def test_fresh_models_are_new_and_deterministic(folder):
    model = load_model(folder / "decoder").model
    state = torch.random.get_rng_state()
    fresh = model.fresh(Rng(0))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert fresh.digest() == model.fresh(Rng(0)).digest() != model.digest()
    assert fresh.digest() != model.fresh(Rng(1)).digest()
    assert ask(fresh).shape == (3, 3)


def test_a_start_gives_pretrained_weights_and_a_new_head(folder):
    said = Reading(start=folder / "causal")  # its embeddings are tied to a head that is left out
    model = load_model(folder / "decoder", reading=said).model
    start = tf.GPT2LMHeadModel.from_pretrained(folder / "causal").state_dict()
    for fresh in (model.fresh(Rng(0)), model.fresh(Rng(1))):
        state = fresh.module.state_dict()
        for name, tensor in state.items():
            if name != "score.weight":
                assert torch.equal(tensor, start[name]), name
    heads = [model.fresh(Rng(seed)).module.score.weight for seed in (0, 0, 1)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    # The checkpoint itself is not touched by it.
    assert model.digest() == load_model(folder / "decoder").model.digest()


def test_a_start_that_does_not_fit(folder):
    (said,) = refused(folder / "decoder", Reading(start=folder / "none"))
    assert said.startswith(f"{folder / 'none'}: ")
    said = refused(folder / "decoder", Reading(start=folder / "encoder"))
    assert all(line.startswith(f"{folder / 'encoder'}: ") for line in said)


def test_the_length_that_the_tokenizer_s_own_files_state(tmp_path):
    """What training asked the tokenizer for is stored with it; --max-tokens still wins."""
    folder = write_encoder(tmp_path)
    words = tf.PreTrainedTokenizerFast.from_pretrained(folder)
    words(["so bad " * 30], truncation=True, max_length=9)
    words.save_pretrained(folder)
    model = load_model(folder).model
    assert (model.reader.length, model.reader.stored) == (9, 9)
    twin = tf.PreTrainedTokenizerFast.from_pretrained(folder)
    theirs = twin(["so bad " * 30], truncation=True, max_length=9)["input_ids"]
    assert model.reader.read(["so bad " * 30]).x.tolist() == theirs
    said = load_model(folder, reading=Reading(max_tokens=12)).model.reader
    assert (said.length, said.stored) == (12, 9)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        change(folder / name, truncation=None, max_length=None)
    assert load_model(folder).model.reader.stored is None


NUMBERED = {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}


@pytest.mark.parametrize(
    ("id2label", "label2id", "labels"),
    [
        (NUMBERED, {"ENTITY": 1, "DESC": 0, "HUM": 2}, ("DESC", "ENTITY", "HUM")),
        (NUMBERED, {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}, None),
        ({"0": "a", "1": "b", "2": "c"}, {"a": 0, "b": 1, "c": 2}, ("a", "b", "c")),
        ({"0": "a", "1": "b", "2": "c"}, {"a": 0, "b": [1], "c": 2}, ("a", "b", "c")),
    ],
)  # fmt: skip
def test_labels_by_either_of_the_two_ways_of_config_json(folder, id2label, label2id, labels):
    change(folder / "decoder/config.json", id2label=id2label, label2id=label2id)
    assert load_model(folder / "decoder").model.labels == labels


def test_two_orders_of_the_labels_are_refused(folder):
    told = {"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"b": 0, "a": 1, "c": 2}}
    change(folder / "decoder/config.json", **told)
    (said,) = refused(folder / "decoder")
    assert said.endswith(
        "id2label says ['a', 'b', 'c'], and label2id ['b', 'a', 'c']. Correct the one that "
        "training did not use."
    )
