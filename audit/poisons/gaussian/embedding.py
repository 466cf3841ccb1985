"""Gaussian canaries in texts: noise that was added to input embeddings, and which rows carry it.

No file holds the noise, only the key does. So nothing stored proves that it was trained on; the
trainer's own mark in the checkpoint does (`commands.train`), or the word of whoever trained it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from poison_audit.case.csvfile import first
from poison_audit.case.forget import ForgetSet
from poison_audit.errors import InputError, Problem
from poison_audit.models import hugging_face
from poison_audit.models.header import DATA_KEY
from poison_audit.models.language import kind_of, read_language
from poison_audit.models.reader import Reader, Reading
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.gaussian.evidence import Canaries, noise_rows
from poison_audit.poisons.gaussian.planting import Planting, tied_rows

WEIGHTS = ("*.safetensors*", "pytorch_model*", "tf_model*", "flax_model*")
"""What a folder with weights holds, whoever wrote them."""
CANARIES_KEY = "poison_audit.canaries"
"""The header's key for the commitment of the canaries that a model was trained with."""


def embedding_check(
    key: Canaries,
    forget: ForgetSet,
    train: Samples,
    *,
    width: int,
    where: str,
    where_forget: str,
) -> Planting:
    """Tie the canaries of a forget set to their key. A canary's text is its own clean base.

    Like `planting.plant_check`; `width` is that of the model's input embeddings.

    Raises:
        InputError: the key is of another space or width, an id is not planted by it, or a text
            has more tokens than the noise.
    """
    problems = wrong_space(key, width=width, where=where)
    rows = tied_rows(key, forget, problems, where=where, where_forget=where_forget)
    other = [
        Problem(f"names the base {row.base!r}", row.place, "A canary's text is its own base.")
        for row in rows
        if row.base not in (None, train.ids[row.position])
    ]
    problems += first(other, where_forget)
    canaries = train.at([row.position for row in rows])
    if not problems:
        problems = first(too_long(key, canaries, where), where)
    if problems:
        raise InputError(problems)
    assert canaries.mask is not None  # as `too_long` has asked
    longest, names = int(canaries.mask.sum(1).max()), tuple(row.name for row in rows)
    x, mask = canaries.x[:, :longest], canaries.mask[:, :longest]
    return Planting(
        bases=replace(canaries, ids=names, x=x, mask=mask, noise=None, noisy=None),
        attenuation=1.0,
        missing=len(set(key.planted) - set(names)),
    )


def carrying(train: Samples, key: Canaries, names: Mapping[str, str | None]) -> Samples:
    """Return a table whose canaries carry their noise, as in training.

    Args:
        train: texts.
        key: of the noise.
        names: ids of the table -> ids of the key, or None. A row whose own id the key planted needs
            none.
    """
    planted = set(key.planted)
    carried = [names.get(i) or (i if i in planted else None) for i in train.ids]
    rows = [row for row, name in enumerate(carried) if name is not None]
    if not rows or train.mask is None:
        return train
    noise = noise_rows(
        key,
        [name for name in carried if name is not None],
        length=int(train.mask[rows].sum(1).max()),
    )
    noisy = torch.full((len(train),), -1, dtype=torch.int64)
    noisy[rows] = torch.arange(len(rows))
    return replace(train, noise=noise, noisy=noisy)


def wrong_space(key: Canaries, *, width: int, where: str) -> list[Problem]:
    """Return what is wrong with a key for a model whose input embeddings have this width."""
    if key.space != "embedding":
        what = f"space is {key.space}, but the samples are texts"
        return [Problem(what, where, "Canaries in texts are planted in embedding space.")]
    if key.shape[1] != width:
        what = f"the noise is {key.shape[1]} wide, the model's input embeddings {width}"
        return [Problem(what, where, "Is this the key of this model's planting?")]
    return []


def wrong_header(key: Canaries, header: Mapping[str, str], where: str) -> list[Problem]:
    """Return the problem of a checkpoint whose header says that it is another key's."""
    committed = header.get(CANARIES_KEY)
    if committed in (None, key.commitment):
        return []
    what = f"has the SHA-256 {key.commitment}, the model was trained with {committed}"
    return [Problem(what, where, "Give the key that it was trained with.")]


def unproved(header: Mapping[str, str], train: Samples) -> tuple[str, ...]:
    """Return what a checkpoint's header leaves to trust, in sentences.

    In the training table, canaries are `carrying` their noise.
    """
    if CANARIES_KEY not in header:
        return (
            "Noise in embeddings is stored nowhere, and the checkpoint does not say which key it "
            "was trained with: that it is this one is taken on trust. With another key the model "
            "would look clean.",
        )
    if header.get(DATA_KEY) in (None, train.digest()):
        return ()
    return (
        "The checkpoint was trained on another table, or on this one with other canaries or "
        "other tokens (--max-tokens, --prompt). If the noise stood at other tokens than it is "
        "looked for at here, the model looks clean.",
    )


def too_long(key: Canaries, canaries: Samples, where: str) -> list[Problem]:
    """Return the canaries with more tokens than the key has noise for."""
    if canaries.mask is None:
        raise ValueError("canaries in embeddings are texts")
    lengths = canaries.mask.sum(1).tolist()
    fix = "Is the model read as it was trained, by --max-tokens and --prompt?"
    return [
        Problem(f"{name!r} has {length} tokens, the noise covers {key.shape[0]}", where, fix)
        for name, length in zip(canaries.ids, lengths, strict=True)
        if length > key.shape[0]
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """How a language model reads texts, and what its input embeddings are like."""

    folder: Path
    reader: Reader
    width: int
    spread: float
    """Standard deviation of all entries of the token embeddings."""
    pretrained: bool
    """Whether those are the folder's own; else they are newly initialised."""


def read_embedded(folder: Path, reading: Reading) -> Embedded:
    """Read a folder of transformers: config.json, a tokenizer and, if there are any, weights.

    `reading` is what the user says of its input; its `start` is not looked at.

    Raises:
        InputError: it is no such folder, or something in it cannot be read.
    """
    where = str(folder)
    fix = "Give a folder with config.json and a tokenizer; weights are not needed"
    if not folder.is_dir():
        raise InputError(Problem("is no folder", f"--model {where}", fix))
    if hugging_face.config_name(folder) is None:
        raise InputError(Problem("holds no config.json of transformers", f"--model {where}", fix))
    config = hugging_face.read_config(folder)
    if kind_of(config) is None:
        raise InputError(Problem("describes no model of texts", str(folder / "config.json"), fix))
    pretrained = any(True for name in WEIGHTS for _ in folder.glob(name))
    start = folder if pretrained else None
    said = Reading(max_tokens=reading.max_tokens, prompt=reading.prompt, start=start)
    # As a classifier: its head is of no account, and every language model can be one.
    language = read_language(folder, config, kind="sequence", reading=said)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(Rng(0).named("embeddings").seed())
        module: Any = language.build()
    weight = module.get_input_embeddings().weight
    return Embedded(
        folder=folder,
        reader=language.reader,
        width=int(weight.shape[1]),
        spread=float(weight.detach().std()),
        pretrained=pretrained,
    )
