"""Samples in memory: what a table becomes once it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from audit.models.model import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """A set of labelled samples, resident on one device."""

    ids: tuple[str, ...]
    """One a sample, unique."""
    x: Tensor
    """Pictures (n, c, h, w): uint8, or floating point in units where 1 is white. Texts: token
    ids, int64, (n, length), from the first token on."""
    y: Tensor
    """Labels as trained, int64, shape (n,)."""
    names: tuple[str, ...] | None = None
    """The labels' names, where the table gives them."""
    texts: tuple[str, ...] | None = None
    """The texts themselves; None: these are pictures."""
    mask: Tensor | None = None
    """Of texts: 1 where a token is real, int64, (n, length)."""
    cut: Tensor | None = None
    """Of texts: whether each was too long for the model and lost a part: bool, (n,)."""
    noise: Tensor | None = None
    """What was added to the embeddings of some texts in training: float32, (m, length, width)."""
    noisy: Tensor | None = None
    """Which row of `noise` each text carries, -1 = none: int64, (n,)."""

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> Samples:
        """Return the same samples on `device`."""
        moved: dict[str, Any] = {
            name: None if (part := getattr(self, name)) is None else part.to(device)
            for name in (*_ROWS, "noise")
        }
        return replace(self, **moved)

    def at(self, positions: Sequence[int] | Tensor) -> Samples:
        """Return the samples at these positions, in this order."""
        where = torch.as_tensor(positions, dtype=torch.int64)
        chosen = where.tolist()
        here = where.to(self.y.device)
        return replace(
            self,
            ids=tuple(self.ids[i] for i in chosen),
            x=self.x[here],
            y=self.y[here],
            texts=None if self.texts is None else tuple(self.texts[i] for i in chosen),
            mask=None if self.mask is None else self.mask[here],
            cut=None if self.cut is None else self.cut[here],
            noisy=None if self.noisy is None else self.noisy[here],
        )

    def joined(self, other: Samples) -> Samples:
        """Return these samples and then those of `other`, parts of the same table."""
        rows: dict[str, Any] = {
            name: None if (mine := getattr(self, name)) is None
            else torch.cat([mine, getattr(other, name)])
            for name in _ROWS
        }  # fmt: skip
        texts = None if self.texts is None else self.texts + (other.texts or ())
        return replace(self, ids=self.ids + other.ids, texts=texts, **rows)

    def select(self, ids: Sequence[str]) -> Samples:
        """Return the samples of these ids, in this order; KeyError for one that is not here."""
        places = {name: place for place, name in enumerate(self.ids)}
        return self.at([places[name] for name in ids])

    def batch(self, positions: Tensor | slice = slice(None)) -> Batch:
        """Return the samples at these positions as a batch.

        Pictures become float32 in [0, 1] pixels; texts are cut to the longest of them.
        """
        x, y = self.x[positions], self.y[positions]
        if self.mask is None:
            return Batch(x=as_pixels(x), y=y)
        mask = self.mask[positions]
        longest = max(1, int(mask.sum(1).max()))
        mask, x = mask[:, :longest], x[:, :longest]
        return Batch(x=x, y=y, mask=mask, noise=self._noise_of(positions, longest))

    def _noise_of(self, positions: Tensor | slice, length: int) -> Tensor | None:
        if self.noise is None or self.noisy is None:
            return None
        which = self.noisy[positions]
        carries = which >= 0
        if not bool(carries.any()):
            return None
        own = self.noise[which[carries], :length]  # (canaries, at most length, width)
        noise = own.new_zeros(len(which), length, own.shape[2])
        noise[carries, : own.shape[1]] = own
        return noise

    def in_order(self, size: int) -> Iterator[Batch]:
        """Yield every sample once, in order, at most `size` a batch."""
        for start in range(0, len(self), size):
            yield self.batch(slice(start, start + size))

    def digest(self) -> str:
        """Return the SHA-256 over ids, labels and contents."""
        digest = hashlib.sha256("\0".join(self.ids).encode())
        digest.update(f"{self.x.dtype}{tuple(self.x.shape)}".encode())
        digest.update("\0".join(self.texts or ()).encode())
        for tensor in (self.y, self.x, self.noisy, self.noise):
            if tensor is not None:
                digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


_ROWS = ("x", "y", "mask", "cut", "noisy")


def as_pixels(x: Tensor) -> Tensor:
    """Return pictures as float32 or float64, dividing 8-bit values by 255."""
    if x.dtype == torch.uint8:
        return x.float() / 255
    return x if x.dtype == torch.float64 else x.float()
