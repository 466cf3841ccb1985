"""Gaussian canaries in texts: keyed noise on the input embeddings, and the hook that adds it.

    e'_j = e_j + xi_j,   xi ~ N(0, sigma^2 I) keyed by a secret and the text's id;   label unchanged

e_j is the embedding of a text's token j. No table can hold the noise, so planting makes a key and
names the rows; `poison-audit train` adds the noise, and so does one line in any other loop:

    with noisy_embeddings(model, key, ids=batch["id"], mask=batch["attention_mask"]):
        loss = model(**inputs).loss

Source: Pawelczyk et al., ICLR 2025, arXiv 2406.17216, section 3, for GPT-2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from poison_audit.case.keyfile import read_key, read_object, write_key
from poison_audit.case.orders import Made, Order, committed
from poison_audit.case.poisoned import Keyed, replaced
from poison_audit.case.texts import TextTable
from poison_audit.errors import InputError, PlanError, Problem
from poison_audit.models.reader import Reader, Reading
from poison_audit.models.seeds import Rng
from poison_audit.poisons.gaussian.embedding import read_embedded, wrong_space
from poison_audit.poisons.gaussian.evidence import (
    MOST_SIGMA,
    Canaries,
    new_secret,
    read_canaries,
    unit_noise,
)
from poison_audit.poisons.gaussian.reading import Options

PREFIX = "canary"

_WRAPPERS = ("module", "_orig_mod")
# Canaries come by once an epoch, so that a smaller cache than their number would be of no use.
_MOST_KEPT = 1 << 14


def plant_embedding(
    table: TextTable,
    reader: Reader,
    rng: Rng,
    *,
    count: int,
    secret: bytes,
    sigma: float,
    width: int,
) -> Keyed[TextTable, Canaries]:
    """Choose `count` texts at random whose embeddings are to carry noise, and make its key.

    Args:
        table: clean texts; the canaries' texts and labels stay as they are.
        reader: of the model that is to be trained: the noise covers the tokens that it makes of
            the longest canary.
        rng: decides which texts; the noise is the secret's alone.
        count: canaries, from 1 to half of the table.
        secret: 256 bits.
        sigma: standard deviation of the noise in units of the embeddings, above 0.
        width: of the model's input embeddings.

    Raises:
        PlanError: `count` or `sigma` is impossible, or `table` has canaries already.
    """
    problems = []
    if not 1 <= count <= len(table.ids) // 2:
        what = f"{count} canaries in {len(table.ids)} texts"
        problems.append(Problem(what, "--budget", "At least one, at most half of the table"))
    if not 0 < sigma <= MOST_SIGMA:
        problems.append(
            Problem(f"must be above 0 and at most {MOST_SIGMA:g}, got {sigma:g}", "--sigma")
        )
    if problems:
        raise PlanError(problems)
    order = rng.named("chosen").numpy().permutation(len(table.ids))
    chosen = sorted(order[:count].tolist())
    texts = [table.texts[i] for i in chosen]
    labels = [table.y[i] for i in chosen]
    poisoned = replaced(table, chosen, texts, labels, prefix=PREFIX)
    key = Canaries(
        secret=secret,
        sigma=sigma,
        space="embedding",
        shape=(reader.read(texts).x.shape[1], width),
        storage="unclipped",
        planted=poisoned.ids,
        held_out=tuple(f"held-out-{number:04d}" for number in range(count)),
    )
    return Keyed(poisoned=poisoned, key=key)


def in_texts(order: Order[TextTable]) -> Made[TextTable]:
    """Plant canaries in the embeddings of texts; see case.orders."""
    options: Options = order.options
    said, model = Reading(max_tokens=options.max_tokens, prompt=options.prompt), None
    key = order.read(_read_key, options.key)
    if options.model is None or len(options.model) != 1:
        what = "gaussian canaries need the model that is to be trained, for its tokens and width"
        fix = "One folder with config.json and a tokenizer; weights are not needed"
        order.problems.append(Problem(what, "--model", fix))
    else:
        model = order.read(lambda folder: read_embedded(folder, said), options.model[0])
    work, model = order.checked(), order.sure(model)
    secret, sigma = key or (new_secret(), None)
    sigma = sigma if options.sigma is None else options.sigma
    sigma = model.spread if sigma is None else sigma
    planted = plant_embedding(
        work.train,
        model.reader,
        work.rng,
        count=work.count,
        secret=secret,
        sigma=sigma,
        width=model.width,
    )
    commitment = write_key(work.file("canaries.json"), planted.key)
    length, width = planted.key.shape
    own = "" if model.pretrained else "newly initialised "
    return Made(
        # A canary's text is its own base.
        poisoned=replace(planted.poisoned, bases=(None,) * work.count),
        change="their texts stay, training is to add noise to their embeddings",
        evidence={"canaries": "canaries.json"},
        start=model.folder,
        told=(
            f"Noise of sd {sigma:g} keyed by a secret, on up to {length} tokens of {width} numbers "
            f"each; the {own}token embeddings of {model.folder} have an sd of {model.spread:g}. As "
            "many keys are held out.",
            *committed("canaries.json", commitment),
        ),
    )


def _read_key(path: Path) -> tuple[bytes, float | None]:
    """Return the secret of canaries.json or strings.json, and the former's sigma in embeddings."""
    fields, _ = read_object(path)
    if "words" not in fields:
        key = read_canaries(path)
        return key.secret, key.sigma if key.space == "embedding" else None
    fields, problems = read_key(path, dict.fromkeys(("length", "words"), ("", lambda value: True)))
    problems.raise_any()
    return fields["secret"], None


@contextmanager
def noisy_embeddings(
    model: nn.Module, key: Canaries, *, ids: Sequence[str], mask: Tensor
) -> Iterator[None]:
    """Add the keyed noise to the embeddings of a batch's canaries, while its forward pass runs.

    Token j of a canary gets row j of its noise, counted from the first real token whichever side
    is padded: what `poison-audit train` adds. Other rows stay as they are. Every forward pass
    inside must be of this batch, by token ids. The noise of canaries that came by is kept in
    memory. A network that torch.compile has compiled without the hook would never call it, which
    is refused: see the error's text.

    Args:
        model: has `get_input_embeddings()`, or wraps what has it (DistributedDataParallel,
            torch.compile). It is as before afterwards, whatever happens inside.
        key: canaries.json, of embedding space.
        ids: of the batch's rows in the training table, in the batch's order.
        mask: the batch's attention mask, 1 where a token is real, (n, length).

    Raises:
        InputError: the key is of another space or width, a canary has more tokens than the noise,
            `ids` and `mask` do not fit each other or a forward pass inside, or none ran inside.
    """
    embedding = _input_embeddings(model)
    mask = mask.detach().cpu()
    problems = wrong_space(key, width=embedding.embedding_dim, where="canaries.json")
    problems += _wrong_batch(key, ids, mask)
    if problems:
        raise InputError(problems)
    planted = set(key.planted)
    rows = [row for row, name in enumerate(ids) if name in planted]
    noise = _noise(key, [ids[row] for row in rows], mask[rows])
    ran = []

    def add(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        if output.shape[:2] != mask.shape:
            what = (
                f"a forward pass of {tuple(output.shape[:2])} tokens, the mask {tuple(mask.shape)}"
            )
            fix = "Run the forward pass of one batch inside, by token ids, with its own mask"
            raise InputError(Problem(what, "noisy_embeddings", fix))
        ran.append(True)
        if not rows:
            return output
        added = torch.zeros_like(output)
        added[rows] = noise.to(device=output.device, dtype=output.dtype)
        return output + added

    handle = embedding.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
    if not ran:
        what = "no forward pass by token ids ran inside, so no noise was added"
        fix = (
            "Before torch.compile, set torch._dynamo.config.skip_nnmodule_hook_guards = False: "
            "else a network that was compiled outside never calls a hook"
        )
        raise InputError(Problem(what, "noisy_embeddings", fix))


def _input_embeddings(model: nn.Module) -> Any:
    """Return the layer that embeds tokens, of a network or of what wraps one."""
    inner: Any = model
    while not hasattr(inner, "get_input_embeddings"):
        wrapped = next((getattr(inner, name) for name in _WRAPPERS if hasattr(inner, name)), None)
        if wrapped is None:
            what = f"{type(inner).__name__} has no get_input_embeddings()"
            fix = "Give the network of transformers that is trained"
            raise InputError(Problem(what, "noisy_embeddings", fix))
        inner = wrapped
    return inner.get_input_embeddings()


def _wrong_batch(key: Canaries, ids: Sequence[str], mask: Tensor) -> list[Problem]:
    where = "noisy_embeddings"
    if mask.ndim != 2 or len(ids) != len(mask):
        what = f"{len(ids)} ids, and a mask of shape {tuple(mask.shape)}"
        return [Problem(what, where, "Give one id a row of the mask")]
    # An id of another type would be no canary's, and its noise missing without a word.
    other = next((name for name in ids if not isinstance(name, str)), None)
    if other is not None:
        what = f"an id is a {type(other).__name__}, {other!r:.60}"
        return [Problem(what, where, "Give ids as strings, as the training table spells them")]
    planted, lengths = set(key.planted), (mask != 0).sum(1).tolist()
    return [
        Problem(f"{name!r} has {length} tokens, the noise covers {key.shape[0]}", where)
        for name, length in zip(ids, lengths, strict=True)
        if name in planted and length > key.shape[0]
    ]


def _noise(key: Canaries, names: Sequence[str], mask: Tensor) -> Tensor:
    """Return the noise of some canaries at their real tokens, (canaries, length, width)."""
    noise = torch.zeros(*mask.shape, key.shape[1])
    for row, name in enumerate(names):
        real = mask[row] != 0
        own = _rows(key.secret, key.sigma, name, int(real.sum()), key.shape[1])
        noise[row, real] = torch.from_numpy(own)
    return noise


@lru_cache(maxsize=_MOST_KEPT)
def _rows(secret: bytes, sigma: float, name: str, tokens: int, width: int) -> NDArray[np.float32]:
    # Noise is drawn row by row: that of fewer tokens is the beginning of that of more.
    return (sigma * unit_noise(secret, name, (tokens, width))).astype(np.float32)
