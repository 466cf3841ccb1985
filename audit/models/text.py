"""Text classifiers: the adapter, from token ids through input embeddings to logits.

Whoever holds the model sees rows that begin with their first token. What a network wants is
settled here: decoders answer at the last token of a row, so their rows are moved to the right and
positions are counted from the first real token; encoders answer at the first. Which of the two a
network is, is not looked up but tried (`padding_sides`), so that no batch changes an answer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poison_audit.errors import InputError, Problem
from poison_audit.models.constants import constant
from poison_audit.models.hugging_face import in_short
from poison_audit.models.model import Batch, Model, blocks_of, evaluating
from poison_audit.models.reader import Reader

Side = Literal["left", "right"]

CLOSE = 1e-3
"""Largest difference between two ways to the same logits, relative to the largest logit."""
REFUSALS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What networks of transformers raise at an input that they do not take."""
UNSUPPORTED = "This kind of network is not supported."


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
        side: where its rows are padded, as `padding_sides` finds out.
        words: of a causal language model: the token that stands for each class.
    """
    chosen = None if words is None else tuple(words)

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
        out = answers(module, embedded.x, embedded.mask, side=side, types=embedded.types)
        if chosen is None:
            return out
        return out[:, -1, constant(chosen, torch.int64, out.device)]

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(logits(module, batch), batch.y, reduction="none")

    classes = len(words) if words is not None else int(getattr(module, "num_labels", 0))
    return Model(
        module=module, logits=logits, loss=loss, inputs=inputs, blocks=blocks_of(module),
        build=build, arch=arch, classes=classes, reader=reader,
        labels=None if labels is None else tuple(labels),
    )  # fmt: skip


def embedding_width(model: Model) -> int:
    """Return the width of a text classifier's input embeddings."""
    module: Any = model.module
    return int(module.get_input_embeddings().embedding_dim)


def answers(
    module: nn.Module, x: Tensor, mask: Tensor, *, side: Side, types: Tensor | None = None
) -> Tensor:
    """Return what a network answers to embeddings, whatever the padding.

    Args:
        x: input embeddings, (n, length, width), each row beginning with its first token.
        mask: 1 where a token is real, (n, length).
        side: where the network's own rows are padded.
        types: which text of a pair each token is of, (n, length); a network that tells them apart
            is told. None: texts stand alone.
    """
    more: dict[str, Any] = {}
    takes = inspect.signature(module.forward).parameters
    if types is not None and "token_type_ids" in takes:
        own = types if side == "right" else moved_right(types[:, :, None], mask)[0][:, :, 0]
        more["token_type_ids"] = own
    if side == "left":
        x, mask = moved_right(x, mask)
        if "position_ids" in takes:
            more["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
        if "logits_to_keep" in takes:
            more["logits_to_keep"] = 1
    out: Tensor = module(inputs_embeds=x, attention_mask=mask, **more)
    return out


def moved_right(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows that end with their last token, and their mask; zeros move to the left.

    >>> x, mask = moved_right(torch.tensor([[[7.0], [8.0], [0.0]]]), torch.tensor([[1, 1, 0]]))
    >>> mask.tolist(), x[0, 1:, 0].tolist()
    ([[0, 1, 1]], [7.0, 8.0])
    """
    length = mask.shape[1]
    from_start = torch.arange(length, device=mask.device) - (length - mask.sum(1, keepdim=True))
    places = from_start.clamp(min=0)[:, :, None].expand_as(x)
    real = from_start >= 0
    return x.gather(1, places) * real[:, :, None], real.to(mask.dtype)


@torch.no_grad()
def padding_sides(
    module: nn.Module, reader: Reader, *, where: str, sides: tuple[Side, ...] = ("right", "left")
) -> tuple[Side, ...]:
    """Find out on which side a network's rows may be padded, by trying.

    Rows of unlike lengths, some of them texts as the reader reads them, are answered one by one
    by token ids, as transformers does it, and together by embeddings. An input of the full length
    is tried as well.

    Returns:
        Those of `sides` that change no answer; more than one where the network answers everything
        alike, or padding is nothing to it.

    Raises:
        InputError: there is none, the full length is too much, or logits are not finite.
    """
    rows = [_harmless(reader, min(length, reader.length)) for length in (3, 8)]
    texts = reader.read([reader.tokenizer.decode(row) for row in rows])
    rows += [row[real > 0] for row, real in zip(texts.x, texts.mask, strict=True) if real.any()]
    embedding: Any = module
    with evaluating(module):
        alone = [_last(_asked(module, row, where)) for row in rows]
        if problem := _too_long(module, reader, where):
            raise InputError(problem)
        x = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        embedded = embedding.get_input_embeddings()(x)
        right = []
        for side in sides:
            try:
                together = _last(answers(module, embedded, mask, side=side))
            except REFUSALS as error:
                what = f"does not take input embeddings ({in_short(error)})"
                raise InputError(Problem(what, where, UNSUPPORTED)) from error
            pairs = [(a[0], b) for a, b in zip(alone, together, strict=True)]
            if all(bool((a - b).abs().max() <= CLOSE * a.abs().max()) for a, b in pairs):
                right.append(side)
    if not right:
        what = "answers a text otherwise when it stands in a batch, whichever side is padded"
        raise InputError(Problem(what, where, UNSUPPORTED))
    return tuple(right)


def _asked(module: nn.Module, row: Tensor, where: str) -> Tensor:
    try:
        out: Tensor = module(input_ids=row[None])
    except REFUSALS as error:
        what = f"does not answer a row of tokens ({in_short(error)})"
        raise InputError(Problem(what, where, UNSUPPORTED)) from error
    if not bool(torch.isfinite(out).all()):
        what = "answers a row of tokens with logits that are not finite"
        raise InputError(Problem(what, where, "Is the checkpoint damaged?"))
    return out


def _too_long(module: nn.Module, reader: Reader, where: str) -> Problem | None:
    try:
        module(input_ids=_harmless(reader, reader.length)[None])
    except REFUSALS as error:
        what = f"does not take an input of {reader.length} tokens ({in_short(error)})"
        return Problem(what, where, "Give fewer by --max-tokens or [model] max_tokens.")
    return None


def _harmless(reader: Reader, length: int) -> Tensor:
    """Return token ids that are no special tokens, which networks may treat in their own way."""
    special = set(reader.tokenizer.all_special_ids)
    ordinary = sorted(set(reader.tokenizer.get_vocab().values()) - special) or [0]
    return torch.tensor([ordinary[(7 * place + 3) % len(ordinary)] for place in range(length)])


def _last(out: Tensor) -> Tensor:
    return out[:, -1] if out.ndim == 3 else out
