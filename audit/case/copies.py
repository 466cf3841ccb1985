"""Samples whose contents are equal: between two tables, and within the test table.

Texts are equal when they are letter by letter. Pictures whose values are 8-bit values are equal
whatever type they are stored in; others are equal when they are as float32.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from poison_audit.case.near import clusters
from poison_audit.errors import Problem, some
from poison_audit.models.samples import Samples, as_pixels

GREY_SLACK = 0.1
"""Farthest that a picture stored as float16 may lie from 8-bit values, in grey levels."""
SHOWN = 5
"""Pairs that are named."""


def overlap(a: Samples, b: Samples, *, a_name: str, b_name: str) -> list[Problem]:
    """Return, as at most one problem, the samples of `a` whose contents also stand in `b`."""
    ids = dict(zip(contents(b), b.ids, strict=True))
    pairs = [
        (name, ids[content])
        for name, content in zip(a.ids, contents(a), strict=True)
        if content in ids
    ]
    if not pairs:
        return []
    what = f"{len(pairs)} samples of {a_name} are also in {b_name}: {_named(pairs)}"
    return [Problem(what, fix="Remove them from the test table.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Distinct:
    """A table in which each input stands once."""

    samples: Samples
    """The first sample of each input, in the table's order."""
    repeated: int
    """Samples that were left out."""
    relabelled: int
    """Of those, with another label than the first has."""
    near: int
    """Further samples that were left out: nearly the same as an earlier one of the same label."""

    def said(self) -> tuple[str, ...]:
        """Say what was left out of a test table; empty if nothing was."""
        said, total = [], len(self.samples) + self.repeated + self.near
        measured = f"so that {len(self.samples):,} were measured."
        if self.repeated:
            told = f"{self.repeated:,} of {total:,} test samples repeat an earlier one. Each input"
            told += f" counts once, {measured}"
            if self.relabelled:
                told += f" Of the repeats {self.relabelled:,} have another label:"
                told += " the first one counts."
            said.append(told)
        if self.near:
            said.append(
                f"{self.near:,} of {total:,} test samples are nearly the same as an earlier one: a "
                f"picture shifted, mirrored or in other light, a text with few other words. Each "
                f"such cluster counts once, {measured}"
            )
        return tuple(said)


def distinct(samples: Samples) -> Distinct:
    """Leave out every sample whose input a model cannot tell from an earlier one's.

    A sample that stands in a test table many times says no more than once, and every count and
    interval takes samples to be independent. Nor do five augmentations of one picture say five
    times as much (case.near). Of texts the tokens count: what is cut off, no model sees.
    """
    first: dict[bytes, int] = {}
    kept, relabelled = [], 0
    labels = samples.y.tolist()
    for place, key in enumerate(_inputs(samples)):
        if (before := first.setdefault(key, place)) == place:
            kept.append(place)
        else:
            relabelled += labels[before] != labels[place]
    once = samples.at(kept) if len(kept) < len(samples) else samples
    alone = [place for place, root in enumerate(clusters(once)) if place == root]
    return Distinct(
        samples=once.at(alone) if len(alone) < len(once) else once,
        repeated=len(samples) - len(kept),
        relabelled=relabelled,
        near=len(once) - len(alone),
    )


def equal_to(samples: Samples, others: Samples) -> Tensor:
    """Return which samples a model cannot tell from one of the `others`: bool, (n,)."""
    theirs = set(_inputs(others))
    return torch.tensor([key in theirs for key in _inputs(samples)], dtype=torch.bool)


def contents(samples: Samples, size: int = 256) -> Iterator[bytes]:
    """Yield for each sample the same bytes as for those that are equal to it."""
    if samples.texts is not None:
        yield from (hashlib.sha256(samples.written(at)).digest() for at in range(len(samples)))
        return
    shape = f"{tuple(samples.x.shape[1:])}".encode()
    for start in range(0, len(samples), size):
        for picture in _canonical(samples.x[start : start + size].cpu()):
            yield hashlib.sha256(shape + picture).digest()


def _inputs(samples: Samples) -> Iterator[bytes]:
    if samples.mask is None:
        yield from contents(samples)
        return
    for tokens, length in zip(samples.x.cpu(), samples.mask.sum(1).tolist(), strict=True):
        yield tokens[:length].numpy().tobytes()


def _named(pairs: list[tuple[str, str]]) -> str:
    return some([f"{mine!r} = {theirs!r}" for mine, theirs in pairs], SHOWN)


def _canonical(x: Tensor) -> list[bytes]:
    if x.dtype == torch.uint8:
        return [picture.numpy().tobytes() for picture in x.contiguous()]
    pixels = as_pixels(x).float()
    grey = (pixels * 255).round()
    near = ((pixels * 255 - grey).abs() <= GREY_SLACK) & (grey >= 0) & (grey <= 255)
    is_8_bit = near.flatten(1).all(dim=1).tolist()
    levels = grey.clamp(0, 255).to(torch.uint8)
    # Adding zero turns -0.0, which is equal but spelt otherwise, into 0.0.
    exact = pixels + 0.0
    return [
        (levels[i] if is_8_bit[i] else exact[i]).contiguous().numpy().tobytes()
        for i in range(len(x))
    ]
