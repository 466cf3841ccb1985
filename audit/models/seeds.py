"""Named random generators, all derived from one root seed.

A stream is addressed by its name, never by the order of the calls, so that adding or leaving out
a method changes no other method's numbers.

>>> Rng(0).named("gd").seed() == Rng(0).named("gd").seed() != Rng(0).named("ga").seed()
True
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Rng:
    """A root seed and the path of names that leads to one stream."""

    root: int
    path: tuple[str, ...] = ()

    def named(self, *names: object) -> Rng:
        """Return the sub-stream of these names."""
        return Rng(self.root, (*self.path, *map(str, names)))

    def seed(self) -> int:
        """Return this stream's seed, in [0, 2**63)."""
        text = "\0".join((str(self.root), *self.path))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1

    def numpy(self) -> np.random.Generator:
        """Return a fresh NumPy generator at the start of this stream."""
        return np.random.Generator(np.random.Philox(self.seed()))

    def torch(self, device: torch.device | str = "cpu") -> torch.Generator:
        """Return a fresh torch generator on `device` at the start of this stream."""
        import torch

        return torch.Generator(device).manual_seed(self.seed())
