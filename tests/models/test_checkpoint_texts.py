"""Saving and looking at language models: tied tensors, shards, what lies beside the weights."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from builders.small_text import LENGTH, WIDTH, tokenizer, write_decoder, write_encoder
from poison_audit.errors import InputError
from poison_audit.models.beside import files_beside, weights_file, write_beside, wrong_company
from poison_audit.models.checkpoint import load_like, load_model, peek
from poison_audit.models.model import Batch
from poison_audit.models.reader import Reading
from poison_audit.models.saving import save_model

WORDS = Reading(words=(" bad", " good"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """decoder/ and encoder/ classify; causal/ is a GPT-2 with tied embeddings."""
    folder = tmp_path_factory.mktemp("texts")
    write_decoder(folder / "decoder", classes=3)
    write_encoder(folder / "encoder")
    words = tokenizer()
    config = GPT2Config(vocab_size=len(words), n_positions=LENGTH, n_embd=WIDTH, n_layer=2,
                        n_head=2, bos_token_id=0, eos_token_id=0)  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)
        GPT2LMHeadModel(config).save_pretrained(folder / "causal")
    words.save_pretrained(folder / "causal")
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "texts")


def answers(model, texts=("a good ran", "kadol so bad lebis")):
    read = model.reader.read(list(texts))
    batch = Batch(read.x, torch.zeros(len(texts), dtype=torch.int64), mask=read.mask)
    with torch.no_grad():
        return model.logits(model.module, batch)


def save(model, folder, **more):
    folder.mkdir(exist_ok=True)
    save_model(model, folder / "model.safetensors", **more)
    return folder


# Saving


@pytest.mark.parametrize("name", ["decoder", "encoder", "causal"])
def test_a_saved_folder_reads_as_the_same_model(folder, tmp_path, name):
    reading = WORDS if name == "causal" else Reading()
    model = load_model(folder / name, reading=reading).model
    again = load_model(save(model, tmp_path / "out"), reading=reading)
    assert again.arch_source == "header"
    assert again.model.digest() == model.digest()
    assert torch.equal(answers(again.model), answers(model))
    beside = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert beside == sorted(path.name for path in (folder / name).iterdir())
    for file in beside:
        if file != "model.safetensors":
            assert (tmp_path / "out" / file).read_bytes() == (folder / name / file).read_bytes()


def test_tied_embeddings_are_stored_as_transformers_stores_them(folder, tmp_path):
    model = load_model(folder / "causal", reading=WORDS).model
    save(model, tmp_path / "out")
    ours, theirs = (
        load_file(p / "model.safetensors") for p in (tmp_path / "out", folder / "causal")
    )
    assert set(ours) == set(theirs)
    assert "transformer.wte.weight" in ours
    again = load_model(tmp_path / "out", reading=WORDS).model.module
    assert again.lm_head.weight is again.transformer.wte.weight


def test_equal_models_give_equal_folders(folder, tmp_path):
    for name in "ab":
        save(load_model(folder / "decoder").model, tmp_path / name, extra={"k": "1", "a": "2"})
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_what_lay_beside_the_weights_is_written_over(folder, tmp_path):
    save(load_model(folder / "encoder").model, tmp_path / "out")
    model = load_model(folder / "decoder").model
    save(model, tmp_path / "out")
    again = load_model(tmp_path / "out").model
    assert torch.equal(answers(again), answers(model))
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_a_config_of_its_own_wins(folder, tmp_path):
    config = json.loads((folder / "decoder/config.json").read_text())
    config["id2label"] = {"0": "a", "1": "b", "2": "c"}
    text = json.dumps(config)
    save(load_model(folder / "decoder").model, tmp_path / "out", config=text)
    assert (tmp_path / "out/config.json").read_text() == text
    assert load_model(tmp_path / "out").model.labels == ("a", "b", "c")


def test_a_tokenizer_that_is_gone_is_said(folder, tmp_path):
    model = load_model(folder / "decoder").model
    shutil.rmtree(folder / "decoder")
    with pytest.raises(InputError, match=r"decoder/\S+\.json: cannot be read"):
        save(model, tmp_path / "out")


def test_pictures_take_nothing_with_them(tmp_path):
    class Picture:
        reader = None

    assert files_beside(Picture()) == {}
    assert weights_file(tmp_path / "fixed", texts=False) == tmp_path / "fixed"
    assert wrong_company(tmp_path / "x.safetensors", {}) == []


# Where it may be written


MINE = {"config.json": b"{}", "tokenizer.json": b"[]"}


@pytest.mark.parametrize(
    ("there", "file", "strange"),
    [
        ({}, "model.safetensors", None),
        ({"config.json": b"other", "model.safetensors": b""}, "model.safetensors", None),
        ({"notes.txt": b"", "train.csv": b""}, "model.safetensors", None),
        ({"vocab.txt": b""}, "model.safetensors", "vocab.txt"),
        ({"adapter_config.json": b""}, "model.safetensors", "adapter_config.json"),
        ({"b.safetensors": b"", "merges.txt": b""}, "model.safetensors",
         "b.safetensors, merges.txt"),
        ({"model.safetensors.index.json": b""}, "model.safetensors",
         "model.safetensors.index.json"),
        (MINE, "b.safetensors", None),
        ({**MINE, "a.safetensors": b""}, "b.safetensors", None),
        ({**MINE, "config.json": b"other"}, "b.safetensors", "config.json"),
        ({"vocab.txt": b""}, "b.safetensors", "vocab.txt"),
    ],
)  # fmt: skip
def test_files_of_another_model_are_in_the_way(tmp_path, there, file, strange):
    write_beside(tmp_path, there)
    found = [str(problem) for problem in wrong_company(tmp_path / file, MINE)]
    said = f"{tmp_path}: holds files of another model: {strange}. Choose another folder, or remove"
    assert (found == []) if strange is None else (len(found) == 1 and found[0].startswith(said))


def test_a_folder_that_is_not_there_is_empty(tmp_path):
    assert wrong_company(tmp_path / "new/model.safetensors", MINE) == []


# Reading


def test_shards_read_as_one(folder, tmp_path):
    model = load_model(folder / "decoder").model
    model.module.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / "decoder" / name, tmp_path / "shards")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    loaded = load_model(tmp_path / "shards")
    assert loaded.model.digest() == model.digest()
    assert torch.equal(answers(loaded.model), answers(model))
    assert load_like(model, tmp_path / "shards")[0].digest() == model.digest()
    # What is saved of it is one file.
    again = load_model(save(loaded.model, tmp_path / "one"))
    assert again.model.digest() == model.digest()


def test_an_adapter_is_no_whole_network(folder):
    (folder / "decoder/adapter_config.json").write_text("{}")
    for look in (load_model, peek):
        with pytest.raises(InputError, match="holds an adapter and a whole checkpoint"):
            look(folder / "decoder")
    (folder / "decoder/model.safetensors").unlink()
    with pytest.raises(InputError, match=r"but no adapter_model\.safetensors"):
        load_model(folder / "decoder")


# Looking without loading


def test_peek_at_a_classifier(folder):
    known = {"arch": ["transformers:gpt2"], "classes": 3, "max_tokens": LENGTH}
    assert peek(folder / "decoder") == known
    assert peek(folder / "encoder") == {**known, "arch": ["transformers:bert"], "classes": 2}


def test_peek_at_a_causal_model(folder):
    nothing = {"arch": ["transformers:gpt2"], "classes": None, "max_tokens": None}
    assert peek(folder / "causal") == nothing


def test_peek_without_a_tokenizer(folder):
    (folder / "decoder/tokenizer.json").unlink()
    assert peek(folder / "decoder")["max_tokens"] is None


def test_a_header_names_its_network(folder, tmp_path):
    save(load_model(folder / "decoder").model, tmp_path / "out")
    with safe_open(tmp_path / "out/model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "poison_audit.arch": "transformers:gpt2"}
