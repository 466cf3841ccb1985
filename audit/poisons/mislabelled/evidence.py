"""Forget samples whose true label is known: the column clean_label of forget.csv."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from poison_audit.case.copies import contents
from poison_audit.models.samples import Samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Flips:
    """Training samples with a wrong label."""

    samples: Samples
    """With the label that each was trained with."""
    clean: Tensor
    """The true label of each, another one: int64, (n,)."""
    chance: bool
    """Whether chance alone decided which samples were given a wrong label."""

    def __len__(self) -> int:
        return len(self.samples)

    def at(self, places: Sequence[int]) -> Flips:
        """Return the samples at these places."""
        return replace(self, samples=self.samples.at(places), clean=self.clean[places])

    def once(self) -> Flips:
        """Return the samples without those that show what an earlier one with its labels shows."""
        first: dict[tuple[bytes, int, int], int] = {}
        labels = zip(self.samples.y.tolist(), self.clean.tolist(), strict=True)
        for place, (shown, pair) in enumerate(zip(contents(self.samples), labels, strict=True)):
            first.setdefault((shown, *pair), place)
        return self.at(list(first.values()))

    def to(self, device: torch.device | str) -> Flips:
        """Return the same samples on `device`."""
        return replace(self, samples=self.samples.to(device), clean=self.clean.to(device))
