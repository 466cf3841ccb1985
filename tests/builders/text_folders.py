"""A small folder of a language model, and what is said of it."""

from __future__ import annotations

import json

import pytest
import torch

from poison_audit.errors import InputError
from poison_audit.models.checkpoint import load_model
from poison_audit.models.model import Batch
from poison_audit.models.reader import Reading

WORDS = Reading(words=(" bad", " leran"))


def save(folder, network, config, words, **more):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network(config(vocab_size=len(words), **more)).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def change(file, **more):
    """Change a JSON file; None takes a key out."""
    told = {**json.loads(file.read_text()), **more}
    file.write_text(json.dumps({key: value for key, value in told.items() if value is not None}))


def refused(folder, said=Reading(), **more):  # noqa: B008
    with pytest.raises(InputError) as caught:
        load_model(folder, reading=said, **more)
    return [str(problem) for problem in caught.value.problems]


def ask(model, texts=("so bad", "a long film of kafen leran midol", "x")):
    read = model.reader.read(texts)
    batch = Batch(read.x, torch.zeros(len(texts), dtype=torch.int64), mask=read.mask)
    with torch.no_grad():
        return model.logits(model.module, batch)
