"""A language model to train: from a pretrained one's folder, and noise on embeddings by a key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from poison_audit.case.csvfile import first
from poison_audit.case.texts import read_texts
from poison_audit.commands.arguments import TrainSettings
from poison_audit.commands.inputs import reading_of
from poison_audit.commands.train_job import (
    Subject,
    Tables,
    Texts,
    classes_of,
    misplaced,
    read_tables,
    wrong_labels,
)
from poison_audit.errors import InputError, Problem, Problems
from poison_audit.models import hugging_face, language
from poison_audit.models.model import Model
from poison_audit.models.reader import Reading
from poison_audit.models.samples import Samples
from poison_audit.models.text import embedding_width
from poison_audit.poisons.gaussian.embedding import carrying, too_long, wrong_space
from poison_audit.poisons.gaussian.evidence import Canaries, read_canaries

OF_PICTURES = ("normalize", "arch", "factory")
"""Options that say something of pictures only."""
WEIGHTS = ("*.safetensors*", "pytorch_model*", "tf_model*", "flax_model*")
"""What a folder with weights holds, whoever wrote them."""


def texts(settings: TrainSettings, found: Problems) -> Subject:
    """Make a classifier of a table's labels of a language model; `found` takes every problem."""
    training, where = settings.training, str(settings.training.data)
    found += misplaced(settings.given, OF_PICTURES, "is for pictures, and DATA holds texts")
    said = reading_of(settings.texts)
    base, key_path, key, described = said.start, training.canaries, None, None
    if base is None:
        what = "the language model that training begins with is not given"
        fix = "--start FOLDER, with its config.json, tokenizer and, if it is pretrained, weights."
        found.append(Problem(what, fix=fix))
    if key_path is not None:
        with found.collecting():
            key = read_canaries(key_path)
    if base is not None:
        with found.collecting():
            described = _described(base, replace(said, start=None))
    if base is None or described is None:
        nothing = Tables(train=None, test=None, forget=None, names=None)
        return Subject(tables=nothing, model=None)
    weights = False
    if not training.fresh:
        with found.collecting():
            weights = _has_weights(base)
    if not weights:
        said = replace(said, start=None)
    tables = read_tables(training, found, partial(read_texts, reader=described.reader))
    model = None
    if tables.train is not None:
        with found.collecting():
            model = _model(tables.train, where, base, said)
    if model is None or tables.train is None:
        return Subject(tables=tables, model=None)
    names = tables.train.names
    found += wrong_labels(tables, model.classes, training)
    if key is not None:
        width = embedding_width(model)
        train = _with_noise(tables.train, key, width=width, where=str(key_path), found=found)
        tables = replace(tables, train=train)
    told = _told(tables, key, described.reader.length)
    config = hugging_face.config_text(hugging_face.read_config(base), model.module)
    part = Texts(reading=said, base=base, config=config, key=key, key_path=key_path, told=told)
    if said.words is not None:
        # The config.json of a classifier names its labels; a language model's cannot.
        tables = replace(tables, names=tables.names or names)
    return Subject(tables=tables, model=model, texts=part)


def _described(base: Path, said: Reading, labels: Sequence[str] | None = None) -> language.Language:
    """Return what a folder says of itself, as a classifier of these labels."""
    where, fix = str(base), "Give a folder with config.json and tokenizer; weights are not needed."
    if not base.is_dir():
        raise InputError(Problem("is no folder", where, fix))
    if hugging_face.config_name(base) is None:
        raise InputError(Problem("holds no config.json of transformers", where, fix))
    config = hugging_face.read_config(base)
    kind: language.Kind = "sequence" if said.words is None else "causal"
    return language.read_language(base, config, kind=kind, reading=said, labels=labels)


def _has_weights(base: Path) -> bool:
    """Say whether a folder holds weights; those of another format are never taken for nothing."""
    there = {path.name for name in WEIGHTS for path in base.glob(name)}
    if there and not any(".safetensors" in name for name in there):
        what = f"holds weights, but no safetensors: {', '.join(sorted(there))}"
        fix = "Save them by save_pretrained, or begin with new ones by --fresh."
        raise InputError(Problem(what, str(base), fix))
    return bool(there)


def _model(train: Samples, where: str, base: Path, said: Reading) -> Model:
    """Return the classifier of a table's labels, with weights of no account."""
    labels: Sequence[str] | None = None
    if said.words is None:
        numbered = [f"LABEL_{number}" for number in range(classes_of(train, where))]
        labels = train.names or numbered
    elif train.names is not None and len(train.names) != len(said.words):
        what = f"{len(said.words)} words for {len(train.names)} labels: {', '.join(train.names)}"
        raise InputError(Problem(what, "--label-words", "Give one a label, in their order."))
    described = _described(base, said, labels)
    with torch.random.fork_rng(devices=[]):
        module = described.build()
    return language.as_model(described, module, where=str(base))


def _with_noise(
    train: Samples, key: Canaries, *, width: int, where: str, found: list[Problem]
) -> Samples:
    """Return the table with the keyed noise on the rows whose ids the key planted."""
    planted = set(key.planted)
    rows = [row for row, name in enumerate(train.ids) if name in planted]
    problems = wrong_space(key, width=width, where=where)
    if not rows:
        what = f"none of the {len(planted)} ids that it planted is in the table"
        fix = "Give the table of its planting, or leave it out of --canaries and of audit.toml."
        problems.append(Problem(what, where, fix))
    if not problems:
        problems = first(too_long(key, train.at(rows), where), where)
    found += problems
    return train if problems else carrying(train, key, {})


def _told(tables: Tables, key: Canaries | None, length: int) -> tuple[str, ...]:
    """Return what somebody who reads the table would not expect, in sentences."""
    train, forget, told = tables.train, tables.forget, []
    if train is None:
        return ()
    cut = 0 if train.cut is None else int(train.cut.sum())
    if cut:
        share = f"{cut:,} of {len(train):,} texts ({cut / len(train):.1%})"
        told.append(f"{share} have more than {length} tokens: the rest is not trained on.")
    if key is not None and train.noisy is not None:
        carry, planted = (train.noisy >= 0).nonzero().flatten().tolist(), len(key.planted)
        if len(carry) < planted:
            told.append(f"{len(carry)} of the {planted} planted canaries are in the table.")
        left = len(set(carry) - set(forget.positions)) if forget else 0
        if left:
            told.append(f"{left} canaries are not to be left out: their noise is trained on.")
    return tuple(told)
