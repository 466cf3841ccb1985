"""Text classifiers: the adapter, from token ids through input embeddings to logits.

Whoever holds the model sees rows that begin with their first token. What a network wants is
settled here: decoders answer at the last token of a row, so their rows are moved to the right and
positions are counted from the first real token; encoders answer at the first. Which of the two a
network is, is not looked up but tried (`padding_side`), so that no batch changes an answer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audit.errors import InputError, Problem
from audit.models.model import Batch, Model, blocks_of, evaluating
from audit.models.reader import Reader

Side = Literal["left", "right"]

CLOSE = 1e-3
"""Largest difference between two ways to the same logits, relative to the largest logit."""


def text_classifier(
    module: nn.Module,
    *,
    build: Callable[[], nn.Module],
    arch: str,
    reader: Reader,
    side: Side,
    words: Sequence[int] | None = None,
    labels: Sequence[str] | None = None,
) -> Model:
    """Wrap a transformers network that answers texts with logits.

    Args:
        module: takes `inputs_embeds` and `attention_mask`; returns logits, (n, classes), or
            with `words` those of the next token, (n, length, vocabulary).
        build: makes the same network with new weights.
        arch: the architecture's name.
        reader: how it reads texts.
        side: where its rows are padded, as `padding_side` finds out.
        words: of a causal language model: the token that stands for each class.
        labels: what the classes are called.
    """
    chosen = None if words is None else torch.tensor(words)

    def inputs(module: nn.Module, batch: Batch) -> Batch:
        if batch.x.is_floating_point():
            return batch
        embedding: Any = module
        x = embedding.get_input_embeddings()(batch.x)  # (n, length, width)
        if batch.noise is not None:
            x = x + batch.noise.to(x.dtype)
        return replace(batch, x=x, noise=None)

    def logits(module: nn.Module, batch: Batch) -> Tensor:
        embedded = inputs(module, batch)
        if embedded.mask is None:
            raise ValueError("a batch of texts has a mask")
        out = answers(module, embedded.x, embedded.mask, side=side)
        return out if chosen is None else out[:, -1, chosen.to(out.device)]

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(logits(module, batch), batch.y, reduction="none")

    return Model(
        module=module,
        logits=logits,
        loss=loss,
        inputs=inputs,
        blocks=blocks_of(module),
        build=build,
        arch=arch,
        classes=len(words) if words is not None else int(getattr(module, "num_labels", 0)),
        reader=reader,
        labels=None if labels is None else tuple(labels),
    )


def embedding_width(model: Model) -> int:
    """Return the width of a text classifier's input embeddings."""
    module: Any = model.module
    return int(module.get_input_embeddings().embedding_dim)


def answers(module: nn.Module, x: Tensor, mask: Tensor, *, side: Side) -> Tensor:
    """Return what a network answers to embeddings, whatever the padding.

    Args:
        module: the network.
        x: input embeddings, (n, length, width), each row beginning with its first token.
        mask: 1 where a token is real, (n, length).
        side: where the network's own rows are padded.
    """
    more: dict[str, Any] = {}
    takes = inspect.signature(module.forward).parameters
    if side == "left":
        x, mask = moved_right(x, mask)
        if "position_ids" in takes:
            more["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
        if "logits_to_keep" in takes:
            more["logits_to_keep"] = 1
    out: Tensor = module(inputs_embeds=x, attention_mask=mask, **more)
    return out


def moved_right(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows that end with their last token, and their mask; padding moves to the left.

    >>> x, mask = moved_right(torch.tensor([[[7.0], [8.0], [0.0]]]), torch.tensor([[1, 1, 0]]))
    >>> mask.tolist(), x[0, 1:, 0].tolist()
    ([[0, 1, 1]], [7.0, 8.0])
    """
    length = mask.shape[1]
    from_start = torch.arange(length, device=mask.device) - (length - mask.sum(1, keepdim=True))
    places = from_start.clamp(min=0)[:, :, None].expand_as(x)
    return x.gather(1, places), (from_start >= 0).to(mask.dtype)


@torch.no_grad()
def padding_side(module: nn.Module, reader: Reader, *, where: str) -> Side:
    """Find out on which side a network's rows are padded, by trying.

    Two rows of unlike length are answered one by one, by token ids as transformers does it, and
    together, padded on either side. An input of the full length is tried as well.

    Raises:
        InputError: neither side gives the same answers, or the full length is too much.
    """
    lengths = [min(3, reader.length), min(8, reader.length)]
    rows = [_harmless(reader, length) for length in lengths]
    embedding: Any = module
    with evaluating(module):
        if problem := _too_long(module, reader, where):
            raise InputError(problem)
        alone = [_last(module(input_ids=row[None])) for row in rows]
        x = torch.zeros(2, lengths[1], dtype=torch.int64)
        mask = torch.zeros_like(x)
        for place, row in enumerate(rows):
            x[place, : len(row)], mask[place, : len(row)] = row, 1
        embedded = embedding.get_input_embeddings()(x)
        sides: tuple[Side, ...] = ("left", "right")
        for side in sides:
            try:
                together = _last(answers(module, embedded, mask, side=side))
            except (TypeError, ValueError, AttributeError, NotImplementedError) as error:
                what = f"does not take input embeddings ({type(error).__name__}: {error!s:.200})"
                fix = "This kind of network is not supported."
                raise InputError(Problem(what, where, fix)) from error
            if all(_near(a, b) for a, b in zip(alone, together, strict=True)):
                return side
    what = "answers a text otherwise when it stands in a batch, whichever side is padded"
    raise InputError(Problem(what, where, "This kind of network is not supported."))


def _too_long(module: nn.Module, reader: Reader, where: str) -> Problem | None:
    try:
        module(input_ids=_harmless(reader, reader.length)[None])
    except (IndexError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        what = f"does not take an input of {reader.length} tokens ({reason[:200]})"
        return Problem(what, where, "Give fewer by --max-tokens or [model] max_tokens.")
    return None


def _harmless(reader: Reader, length: int) -> Tensor:
    """Return token ids that are no special tokens, which networks may treat in their own way."""
    special = set(reader.tokenizer.all_special_ids)
    ordinary = [i for i in range(len(reader.tokenizer)) if i not in special] or [0]
    return torch.tensor([ordinary[(7 * place + 3) % len(ordinary)] for place in range(length)])


def _last(out: Tensor) -> Tensor:
    return out[:, -1] if out.ndim == 3 else out


def _near(alone: Tensor, together: Tensor) -> bool:
    return bool((alone[0] - together).abs().max() <= CLOSE * alone.abs().max())
