"""Training on texts from the command line: a small case, and what was written."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
)

from builders.small_text import LENGTH, WIDTH, sentences, tokenizer, word_pieces, write_rows
from poison_audit.case.keyfile import write_key
from poison_audit.cli import invoke
from poison_audit.models.seeds import Rng
from poison_audit.poisons.gaussian.evidence import Canaries

CANARIES, TRAIN, TEST, SIGMA = 8, 40, 20, 0.5
CALLED = ("dull", "fine")
RECIPE = {"epochs": 2, "batch_size": 10, "lr": 0.01, "optimizer": "adamw"}


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


def run(*more, output="m", start="pretrained", data="train.csv", **recipe):
    given = ["train", data, "-o", output, *(["--start", start] if start else [])]
    for key, value in (recipe or RECIPE).items():
        given += ["--recipe", f"{key}={value}"]
    return invoke([*given, *more])


def header(path="m/model.safetensors"):
    with safe_open(path, "pt") as file:
        return file.metadata()


def rows_of(path):
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def make(folder: Path) -> Path:
    """Write the case and return its folder."""
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
