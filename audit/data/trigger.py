"""trigger.json: the patch of a backdoor, where it is put, and the label it is to cause."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """A patch that a backdoored model answers with one label."""

    pixels: Tensor
    """(c, h, w), float32 in [0, 1]."""
    top: int
    """Row of the patch's upper edge, from 0."""
    left: int
    """Column of its left edge, from 0."""
    label: int
    """The label it is to cause."""

    def to(self, device: torch.device | str) -> Trigger:
        """Return the same trigger on `device`."""
        return replace(self, pixels=self.pixels.to(device))

    def stamp(self, x: Tensor) -> Tensor:
        """Return pictures (n, c, H, W), floating point in [0, 1], with the patch put on them."""
        height, width = self.pixels.shape[1:]
        stamped = x.clone()
        stamped[..., self.top : self.top + height, self.left : self.left + width] = self.pixels
        return stamped
