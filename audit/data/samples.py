"""Samples in memory: what a table becomes once it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from audit.models.model import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """A set of labelled samples, resident on one device."""

    ids: tuple[str, ...]
    """One a sample, unique."""
    x: Tensor
    """Pictures (n, c, h, w): uint8, or floating point in units where 1 is white."""
    y: Tensor
    """Labels as trained, int64, shape (n,)."""
    names: tuple[str, ...] | None = None
    """The labels' names, where the table gives them."""

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> Samples:
        """Return the same samples on `device`."""
        return replace(self, x=self.x.to(device), y=self.y.to(device))

    def at(self, positions: Sequence[int] | Tensor) -> Samples:
        """Return the samples at these positions, in this order."""
        where = torch.as_tensor(positions, dtype=torch.int64)
        ids = tuple(self.ids[i] for i in where.tolist())
        here = where.to(self.y.device)
        return replace(self, ids=ids, x=self.x[here], y=self.y[here])

    def joined(self, other: Samples) -> Samples:
        """Return these samples and then those of `other`, of the same shape, type and names."""
        x, y = torch.cat([self.x, other.x]), torch.cat([self.y, other.y])
        return replace(self, ids=self.ids + other.ids, x=x, y=y)

    def select(self, ids: Sequence[str]) -> Samples:
        """Return the samples of these ids, in this order; KeyError for one that is not here."""
        places = {name: place for place, name in enumerate(self.ids)}
        return self.at([places[name] for name in ids])

    def batch(self, positions: Tensor | slice = slice(None)) -> Batch:
        """Return the samples at these positions as a float32 batch in [0, 1] pixels."""
        return Batch(x=as_pixels(self.x[positions]), y=self.y[positions])

    def in_order(self, size: int) -> Iterator[Batch]:
        """Yield every sample once, in order, at most `size` a batch."""
        for start in range(0, len(self), size):
            yield self.batch(slice(start, start + size))

    def digest(self) -> str:
        """Return the SHA-256 over ids, labels and contents."""
        digest = hashlib.sha256("\0".join(self.ids).encode())
        digest.update(f"{self.x.dtype}{tuple(self.x.shape)}".encode())
        for tensor in (self.y, self.x):
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def as_pixels(x: Tensor) -> Tensor:
    """Return pictures as float32 or float64, dividing 8-bit values by 255."""
    if x.dtype == torch.uint8:
        return x.float() / 255
    return x if x.dtype == torch.float64 else x.float()
