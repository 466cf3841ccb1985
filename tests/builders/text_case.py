"""A case of texts on disk, and what reads it: 20 training texts, 6 of them canaries of a key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builders.loading import loaded
from builders.small_text import LENGTH, SIGMA, WIDTH, sentences, write_decoder, write_rows
from poison_audit.case.keyfile import write_key
from poison_audit.case.sources import Sources
from poison_audit.case.texts import read_texts
from poison_audit.errors import InputError
from poison_audit.models.checkpoint import load_model
from poison_audit.models.header import DATA_KEY
from poison_audit.models.saving import save_model
from poison_audit.models.seeds import Rng
from poison_audit.poisons.gaussian.embedding import CANARIES_KEY, carrying
from poison_audit.poisons.gaussian.evidence import Canaries
from poison_audit.records import Recipe

PLANTED = tuple(f"c{i}" for i in range(6))
KEY = Canaries(
    secret=bytes(32), sigma=SIGMA, space="embedding", shape=(LENGTH, WIDTH), storage="unclipped",
    planted=PLANTED, held_out=tuple(f"h{i}" for i in range(6)),
)  # fmt: skip
RECIPE = Recipe(epochs=2)


def make(folder: Path) -> Path:
    """Write the case; model/ says of itself which key and table it was trained with."""
    write_decoder(folder / "base")
    texts, labels = sentences(Rng(3), 30)
    ids = [*PLANTED, *(f"t{i}" for i in range(24))]
    rows = list(zip(ids, texts, labels, strict=True))
    write_rows(folder / "train.csv", ["id", "text", "label"], rows[:20])
    write_rows(folder / "test.csv", ["id", "text", "label"], rows[20:])
    forget = [(i, y, "gaussian") for i, _, y in rows[:6]] + [("t0", labels[6], "")]
    write_rows(folder / "forget.csv", ["id", "label", "attack"], forget)
    commitment = write_key(folder / "canaries.json", KEY)
    model = load_model(folder / "base").model
    train = carrying(read_texts(folder / "train.csv", reader=model.reader), KEY, {})
    (folder / "model").mkdir()
    save_model(model, folder / "model/model.safetensors",
               extra={CANARIES_KEY: commitment, DATA_KEY: train.digest()})  # fmt: skip
    return folder


EVIDENCE = {"canaries", "bases", "strings"}


def sources(folder, **more):
    said = {
        "model": folder / "model", "forget": folder / "forget.csv", "train": folder / "train.csv",
        "test": folder / "test.csv",
    }  # fmt: skip
    evidence = {"canaries": folder / "canaries.json"}
    evidence |= {name: more.pop(name) for name in EVIDENCE & set(more)}
    there = {name: path for name, path in evidence.items() if path is not None}
    return Sources(**{**said, "evidence": there, **more})


def load(folder, recipe=RECIPE, **more):
    return loaded(sources(folder, **more), recipe)


def refused(folder, recipe=RECIPE, **more):
    with pytest.raises(InputError) as caught:
        load(folder, recipe, **more)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def rewrite(file, **more):
    file.write_text(json.dumps({**json.loads(file.read_text()), **more}))
