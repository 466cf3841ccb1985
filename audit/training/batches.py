"""Batches without end, shuffled and augmented: what training draws from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import count

import torch
from torch import Tensor
from torch.nn import functional as F

from poison_audit.models.memory import once_more
from poison_audit.models.model import Batch
from poison_audit.models.samples import Samples, sent
from poison_audit.models.seeds import Rng


def shuffled(
    samples: Samples, size: int, rng: Rng, *, augment: str = "none", start: int = 0
) -> Iterator[Batch]:
    """Yield batches of exactly `size` samples without end, each sample once an epoch.

    A batch may straddle two epochs, so that every step costs the same. `size` is capped at the
    number of samples.

    Args:
        samples: what to draw from; not empty.
        size: samples a batch, at least 1.
        rng: decides the order and the augmentation.
        augment: `none`; `flip` (left to right, by a coin); `crop-flip` (the same, and moved by up
            to 4 pixels, zeros around them); `shift-flip` (flipped in every other epoch, a coin for
            each sample decides in which, and moved by up to 2 pixels, mirrored around them;
            Jordan 2024, arXiv:2404.00498).
        start: how many batches to leave out; the others are what they are without.
    """
    size = min(size, len(samples))
    order = rng.named("order").torch()
    noise = rng.named("augment").torch()
    pending = torch.empty(0, dtype=torch.int64)
    coins = torch.empty(0, dtype=torch.int64)
    if augment == "shift-flip":
        coins = torch.randint(2, (len(samples),), generator=noise)
    for number in count():
        while len(pending) < size:
            pending = torch.cat([pending, torch.randperm(len(samples), generator=order)])
        chosen, pending = pending[:size], pending[size:]
        changes = _draw_changes(size, augment, noise)
        if len(coins):
            epochs = (number * size + torch.arange(size)) // len(samples)
            changes[0] = (coins[chosen] + epochs) % 2 == 1
        if number >= start:
            yield once_more(partial(_made, samples, chosen, changes, augment))


def joined(batches: Sequence[Batch]) -> Batch:
    """Return the samples of several batches as one, in order; texts are padded to the longest."""
    length = max(batch.x.shape[1] for batch in batches) if batches[0].mask is not None else 0

    def all_of(parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([_padded(part, length) for part in parts])

    def some_of(parts: Sequence[Tensor | None]) -> Tensor | None:
        held = [part for part in parts if part is not None]
        if not held:
            return None
        # A batch without noise among others with it: zeros of its shape.
        return all_of([
            held[0].new_zeros(*batch.x.shape, *held[0].shape[2:]) if part is None else part
            for part, batch in zip(parts, batches, strict=True)
        ])  # fmt: skip

    return Batch(
        x=all_of([batch.x for batch in batches]), y=torch.cat([batch.y for batch in batches]),
        mask=some_of([batch.mask for batch in batches]),
        noise=some_of([batch.noise for batch in batches]),
        types=some_of([batch.types for batch in batches]),
    )  # fmt: skip


def _padded(rows: Tensor, length: int) -> Tensor:
    """Return texts' rows with zeros behind them, up to this length."""
    beyond = length - rows.shape[1]
    if beyond <= 0:
        return rows
    return torch.cat([rows, rows.new_zeros(len(rows), beyond, *rows.shape[2:])], 1)


def subsample(samples: Samples, n: int, rng: Rng) -> Samples:
    """Return `n` random samples, at least one and at most all."""
    if n >= len(samples):
        return samples
    return samples.at(torch.randperm(len(samples), generator=rng.torch())[: max(1, n)])


_PAD = {"crop-flip": (4, "constant"), "shift-flip": (2, "reflect")}
"""Pixels of padding on each side before a crop, and of which kind."""


def smallest(augment: str) -> int:
    """Return the smallest side of a picture that an augmentation takes: mirrored pixels are its."""
    pad, how = _PAD.get(augment, (0, ""))
    return pad + 1 if how == "reflect" else 1


def augmented(batch: Batch, augment: str, generator: torch.Generator) -> Batch:
    """Return the pictures of a batch, each with an augmentation of its own drawn on the CPU.

    Gradients pass through. Args as `shuffled` takes them; a coin decides each flip.
    """
    return _changed(batch, _draw_changes(len(batch), augment, generator), augment)


def _draw_changes(n: int, augment: str, generator: torch.Generator) -> list[Tensor]:
    """Return, for each of `n` pictures, whether it is flipped, and where it is cropped."""
    # torchvision's transforms draw one crop for the whole batch, from the global generator.
    changes = []
    if augment != "none":
        changes.append(torch.randint(2, (n,), generator=generator).bool())
    if augment in _PAD:
        changes.append(torch.randint(2 * _PAD[augment][0] + 1, (2, n), generator=generator))
    return changes


def _made(samples: Samples, chosen: Tensor, changes: Sequence[Tensor], augment: str) -> Batch:
    return _changed(samples.batch(chosen), changes, augment)


def _changed(batch: Batch, changes: Sequence[Tensor], augment: str) -> Batch:
    if not changes:
        return batch
    n, _, height, width = batch.x.shape
    device, x = batch.x.device, batch.x
    flip, *crops = (sent(change, device) for change in changes)
    x = torch.where(flip[:, None, None, None], x.flip(3), x)
    for top, left in crops:
        rows = top[:, None] + torch.arange(height, device=device)  # (n, h)
        columns = left[:, None] + torch.arange(width, device=device)  # (n, w)
        every = torch.arange(n, device=device)[:, None, None]
        pad, how = _PAD[augment]
        padded = F.pad(x, (pad, pad, pad, pad), mode=how).permute(0, 2, 3, 1)
        x = padded[every, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
    return replace(batch, x=x)
