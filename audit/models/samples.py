"""Samples in memory: what a table becomes once it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from poison_audit.models.model import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A row of a table that is no sample: its text is empty, or no token is left of it."""

    position: int
    """In the table, from 0."""
    id: str
    where: str
    """The file and the row, for messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """A set of labelled samples in memory, which give batches on the device of their labels.

    What the length of a batch depends on (`mask`, `noisy`) stays in main memory, so that no
    training step waits for the device. So may pictures that the device has no room for.
    """

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
    pairs: tuple[str, ...] | None = None
    """Of pairs of texts: the second of each."""
    mask: Tensor | None = None
    """Of texts: 1 where a token is real, int64, (n, length)."""
    cut: Tensor | None = None
    """Of texts: whether each was too long for the model and lost a part: bool, (n,)."""
    paths: tuple[str, ...] | None = None
    """Of pictures that are files: where each lies in `folder`, `/` between; None: in no folder."""
    folder: Path | None = None
    doubted_order: str = ""
    """Why positions in the table may be counted otherwise elsewhere; empty: they are not."""
    types: Tensor | None = None
    """Of pairs: which of the two texts a token is of, int64, (n, length); None: all the same."""
    left_out: tuple[LeftOut, ...] = ()
    """Of a whole table: rows that are no samples, in its order."""
    noise: Tensor | None = None
    """What was added to the embeddings of some texts in training: float32, (m, length, width)."""
    noisy: Tensor | None = None
    """Which row of `noise` each text carries, -1 = none: int64, (n,)."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def rows(self) -> int:
        """Rows of the whole table, those that are no samples among them."""
        return len(self) + len(self.left_out)

    def to(self, device: torch.device | str, *, streamed: bool = False) -> Samples:
        """Return samples whose batches are on `device`.

        Args:
            device: where the labels go, and with them every batch.
            streamed: whether inputs stay where they are, and go there a batch at a time.
        """
        noise = None if self.noise is None else self.noise.to(device)
        x = self.x if streamed else self.x.to(device)
        return replace(self, x=x, y=self.y.to(device), noise=noise)

    def at(self, positions: Sequence[int] | Tensor) -> Samples:
        """Return the samples at these positions, in this order."""
        where = torch.as_tensor(positions, dtype=torch.int64)
        chosen = where.tolist()
        rows: dict[str, Any] = {
            name: None if (part := getattr(self, name)) is None else part[where.to(part.device)]
            for name in _ROWS
        }
        texts = None if self.texts is None else tuple(self.texts[i] for i in chosen)
        paths = None if self.paths is None else tuple(self.paths[i] for i in chosen)
        pairs = None if self.pairs is None else tuple(self.pairs[i] for i in chosen)
        rows |= {"texts": texts, "pairs": pairs, "paths": paths, "left_out": ()}
        return replace(self, ids=tuple(self.ids[i] for i in chosen), **rows)

    def joined(self, other: Samples) -> Samples:
        """Return these samples and then those of `other`, parts of the same table."""
        rows: dict[str, Any] = {
            name: None if (mine := getattr(self, name)) is None
            else torch.cat([mine, getattr(other, name).to(mine.device)])
            for name in _ROWS
        }  # fmt: skip
        texts = None if self.texts is None else self.texts + (other.texts or ())
        pairs = None if self.pairs is None else self.pairs + (other.pairs or ())
        return replace(self, ids=self.ids + other.ids, texts=texts, pairs=pairs, paths=None, **rows)

    def written(self, position: int) -> bytes:
        """Return one text in UTF-8, of a pair with a zero byte between; empty for a picture."""
        texts = [every[position] for every in (self.texts, self.pairs) if every is not None]
        return "\0".join(texts).encode("utf-8", "surrogatepass")

    def select(self, ids: Sequence[str]) -> Samples:
        """Return the samples of these ids, in this order; KeyError for one that is not here."""
        places = {name: place for place, name in enumerate(self.ids)}
        return self.at([places[name] for name in ids])

    def batch(self, positions: Tensor | slice = slice(None)) -> Batch:
        """Return the samples at these positions (int64, in main memory) as a batch.

        Pictures become float32 in [0, 1] pixels; texts are cut to the longest of them.
        """
        device = self.y.device
        here = positions if isinstance(positions, slice) else sent(positions, device)
        y = self.y[here]
        x = self.x[here] if self.x.device == device else sent(self.x[positions], device)
        if self.mask is None:
            return Batch(x=as_pixels(x), y=y)
        mask = self.mask[positions]
        longest = max(1, int(mask.sum(1).max()))
        noise = self._noise_of(positions, longest)
        mask = sent(mask[:, :longest], device)
        types = None if self.types is None else sent(self.types[positions][:, :longest], device)
        return Batch(x=x[:, :longest], y=y, mask=mask, noise=noise, types=types)

    def _noise_of(self, positions: Tensor | slice, length: int) -> Tensor | None:
        if self.noise is None or self.noisy is None:
            return None
        which = self.noisy[positions]
        carries = torch.nonzero(which >= 0).squeeze(1)
        if len(carries) == 0:
            return None
        device = self.noise.device
        own = self.noise[sent(which[carries], device), :length]  # (canaries, at most length, width)
        noise = own.new_zeros(len(which), length, own.shape[2])
        noise[sent(carries, device), : own.shape[1]] = own
        return noise

    def in_order(self, size: int) -> Iterator[Batch]:
        """Yield every sample once, in order, at most `size` a batch."""
        for start in range(0, len(self), size):
            yield self.batch(slice(start, start + size))

    def digest(self) -> str:
        """Return the SHA-256 over ids, labels and contents."""
        digest = hashlib.sha256("\0".join(self.ids).encode("utf-8", "surrogatepass"))
        digest.update(f"{self.x.dtype}{tuple(self.x.shape)}".encode())
        texts = "\0".join((*(self.texts or ()), *(self.pairs or ())))
        digest.update(texts.encode("utf-8", "surrogatepass"))
        for tensor in (self.y, self.x, self.noisy, self.noise):
            if tensor is not None:
                digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


_ROWS = ("x", "y", "mask", "cut", "types", "noisy")


def sent(x: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of main memory on `device`, which it reaches without anybody's waiting."""
    if device.type == "cuda" and x.device.type == "cpu":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


def as_pixels(x: Tensor) -> Tensor:
    """Return pictures as float32 or float64, dividing 8-bit values by 255."""
    if x.dtype == torch.uint8:
        return x.float() / 255
    return x if x.dtype == torch.float64 else x.float()
