"""Texts that two were joined into, where the model would rather read two."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from poison_audit.case.exhibits import spread
from poison_audit.errors import Problem
from poison_audit.models.model import Model
from poison_audit.models.reader import Reader
from poison_audit.models.samples import Samples

ASKED = 200
"""Texts on which both readings are tried, at most."""
FEWEST = 20
SURE = 3.0
"""Standard deviations by which pairs must win the texts on which the readings differ."""
SIZE = 64
"""Texts a forward pass."""


def separators(reader: Reader) -> list[str]:
    """Return what a tokenizer itself puts before, between and after texts."""
    tokenizer = reader.tokenizer
    held = (tokenizer.sep_token, tokenizer.cls_token, tokenizer.eos_token)
    return sorted({mark for mark in held if mark})


def split(text: str, marks: Sequence[str]) -> tuple[str, str] | None:
    """Return the two texts that stand before and after the first separator; None: there are none.

    >>> split("so bad </s></s> a film", ["</s>"]), split("so bad", ["</s>"])
    (('so bad', 'a film'), None)
    """
    found = [(text.index(mark), mark) for mark in marks if mark in text]
    if not found:
        return None
    at, mark = min(found)
    first, second = text[:at], text[at + len(mark) :]
    for each in marks:
        second = second.replace(each, " ")
    return first.strip(), second.strip()


def better_as_pairs(model: Model, samples: Samples, where: str) -> list[Problem]:
    """Return the problem of joined texts that a model answers better as pairs, by an exact sign.

    Both readings are tried on the same texts; those on which just one is answered rightly are fair
    coins where it makes no difference (McNemar).
    """
    if model.reader is None or samples.texts is None or samples.pairs is not None:
        return []
    marks = separators(model.reader)
    parts = {at: two for at, text in enumerate(samples.texts) if (two := split(text, marks))}
    rows = spread([at for at, two in parts.items() if all(two)], ASKED)
    if len(rows) < FEWEST:
        return []
    joined = samples.at(rows)
    firsts, seconds = zip(*(parts[at] for at in rows), strict=True)
    read = model.reader.read(firsts, seconds)
    pairs = Samples(ids=joined.ids, x=read.x, y=joined.y, mask=read.mask, types=read.types)
    as_one, as_two = _right(model, joined), _right(model, pairs)
    won, lost = int((as_two & ~as_one).sum()), int((as_one & ~as_two).sum())
    if won - lost <= SURE * math.sqrt(won + lost):
        return []
    what = (
        f"read as pairs, {int(as_two.sum())} of {len(rows)} texts are answered rightly, and as one "
        f"text each, their separators spelt out, {int(as_one.sum())}"
    )
    fix = "Give the two texts in columns of their own, text and text_pair."
    return [Problem(what, where, fix)]


@torch.no_grad()
def _right(model: Model, samples: Samples) -> Tensor:
    module = model.module.eval()
    found = [model.logits(module, batch).argmax(1) == batch.y for batch in samples.in_order(SIZE)]
    return torch.cat(found)
