"""A network for pictures of 32 pixels that learns in few epochs: Jordan 2024, arXiv:2404.00498.

Its shape is airbench94's: a stem of 2x2, three groups of two convolutions with the max-pool between
them, GELU. It departs from it in what does not fit a network that is built from a seed and read
from tensors: the stem is trained and starts as other convolutions do, not as the whitening of some
pictures' patches; BatchNorm is torch's own, its scale trained.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STEM = 24
"""Channels after the stem."""
SCALE = 1 / 9
"""Of what the head sees, so that its logits begin small."""


@dataclass(frozen=True, slots=True)
class SpeedSpec:
    """The widths of its groups."""

    widths: tuple[int, ...] = (64, 256, 256)

    @property
    def name(self) -> str:
        """The name that `--arch` takes, such as `cifar-speed` or `cifar-speed:w8-16-16`."""
        told = "" if self == SpeedSpec() else f":w{'-'.join(map(str, self.widths))}"
        return f"cifar-speed{told}"


SPEED = (SpeedSpec().name,)
"""The names that stand in lists."""
_SPELT = re.compile(r"cifar-speed(?::w(\d+(?:-\d+)*))?")


def speed_spec(arch: str) -> SpeedSpec | None:
    """Read an architecture's name; None when it is of no such network.

    >>> speed_spec("cifar-speed:w8-16")
    SpeedSpec(widths=(8, 16))
    """
    match = _SPELT.fullmatch(arch)
    if match is None or match[1] is None:
        return SpeedSpec() if match else None
    widths = tuple(map(int, match[1].split("-")))
    # A header may name any size: one that no machine could build is none.
    sized = min(widths) > 0 and max(widths) <= 4096 and len(widths) <= 8
    return SpeedSpec(widths) if sized else None


def speed_of(tensors: Mapping[str, Tensor]) -> SpeedSpec | None:
    """Return the network that tensors are of; None: of none."""
    widths: list[int] = []
    while (first := tensors.get(f"groups.{len(widths)}.conv1.weight")) is not None:
        if first.ndim != 4 or first.shape[0] == 0:
            return None
        widths.append(first.shape[0])
    return SpeedSpec(tuple(widths)) if widths and "stem.weight" in tensors else None


class _Group(nn.Module):
    """A convolution, a max-pool that halves the picture, and a convolution more."""

    def __init__(self, inside: int, planes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, planes, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(planes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class SpeedNet(nn.Module):
    """The network; pictures are of at least 2 ** groups + 1 pixels a side."""

    def __init__(self, spec: SpeedSpec, *, channels: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, STEM, 2)
        inside = [STEM, *spec.widths]
        self.groups = nn.ModuleList(map(_Group, inside, spec.widths))
        self.head = nn.Linear(inside[-1], classes, bias=False)
        for part in self.groups.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (n, channels, h, w) to logits (n, classes)."""
        x = F.gelu(self.stem(x))
        for group in self.groups:
            x = group(x)
        out: Tensor = self.head(torch.amax(x, dim=(2, 3)) * SCALE)
        return out
