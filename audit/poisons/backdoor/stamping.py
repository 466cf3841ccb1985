"""Puts a trigger on samples that go on being samples: what a case offers as `stamp`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from poison_audit.models.reader import Reader
from poison_audit.models.samples import Samples, as_pixels
from poison_audit.poisons.backdoor.evidence import Trigger
from poison_audit.poisons.backdoor.phrase import Phrase

SIZE = 1024
"""Pictures that are stamped at once."""


def stamper(trigger: Trigger | Phrase, reader: Reader | None) -> Callable[[Samples], Samples]:
    """Return what puts the trigger on samples; their ids and labels stay."""
    return partial(stamped, trigger, reader)


def stamped(trigger: Trigger | Phrase, reader: Reader | None, samples: Samples) -> Samples:
    """Return samples with the trigger put on them, stored as they were: 8-bit pictures stay so.

    Noise that some texts carry on their embeddings is left out: their tokens are others now.
    """
    if isinstance(trigger, Trigger):
        x = torch.empty_like(samples.x)
        for start in range(0, len(samples), SIZE):
            rows = slice(start, start + SIZE)
            new = trigger.stamp(as_pixels(samples.x[rows].to(trigger.keep.device)))
            x[rows] = (new * 255).round() if x.dtype == torch.uint8 else new
        return replace(samples, x=x)
    if reader is None or samples.texts is None:
        raise ValueError("a phrase is put on texts, a patch on pictures")
    texts = tuple(trigger.on(text) for text in samples.texts)
    read = reader.read(texts, samples.pairs)
    return replace(
        samples, texts=texts, x=read.x.to(samples.x.device), mask=read.mask, cut=read.cut,
        types=read.types, noise=None, noisy=None,
    )  # fmt: skip
