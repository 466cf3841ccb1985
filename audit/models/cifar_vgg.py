"""VGG for small pictures: convolutions by the list, one linear layer (kuangliu/pytorch-cifar)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

SIDE = 32
"""Pixels of the pictures that these networks are for: the linear layer holds what is left."""


@dataclass(frozen=True, slots=True)
class VggSpec:
    """The layers of a VGG; `M` is a max-pool."""

    layers: tuple[int | str, ...]
    plain: bool = False
    """Whether no BatchNorm follows a convolution."""

    @property
    def name(self) -> str:
        """The name that `--arch` takes, such as `cifar-vgg16` or `cifar-vgg:8-M-16-M`."""
        told = ":plain" if self.plain else ""
        for name, layers in _NAMED.items():
            if layers == self.layers:
                return f"{name}{told}"
        return f"cifar-vgg:{'-'.join(map(str, self.layers))}{told}"


def _layers(*blocks: tuple[int, int]) -> tuple[int | str, ...]:
    layers: list[int | str] = []
    for count, wide in blocks:
        layers += [wide] * count
        layers.append("M")
    return tuple(layers)


_NAMED = {
    "cifar-vgg11": _layers((1, 64), (1, 128), (2, 256), (2, 512), (2, 512)),
    "cifar-vgg13": _layers((2, 64), (2, 128), (2, 256), (2, 512), (2, 512)),
    "cifar-vgg16": _layers((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)),
    "cifar-vgg19": _layers((2, 64), (2, 128), (4, 256), (4, 512), (4, 512)),
}
VGG = tuple(_NAMED)
"""The names that stand in lists."""
_SPELT = re.compile(r"cifar-vgg:((?:\d+|M)(?:-(?:\d+|M))*)")


def vgg_spec(arch: str) -> VggSpec | None:
    """Read an architecture's name; None when it is of no such network.

    >>> vgg_spec("cifar-vgg:8-M-16-M:plain")
    VggSpec(layers=(8, 'M', 16, 'M'), plain=True)
    """
    name, plain = arch.removesuffix(":plain"), arch.endswith(":plain")
    if name in _NAMED:
        return VggSpec(_NAMED[name], plain)
    match = _SPELT.fullmatch(name)
    if match is None:
        return None
    layers = tuple(one if one == "M" else int(one) for one in match[1].split("-"))
    wide = [one for one in layers if isinstance(one, int)]
    sized = bool(wide) and min(wide) > 0 and max(wide) <= 4096 and len(layers) <= 100
    return VggSpec(layers, plain) if sized and layers.count("M") <= 5 else None


def vgg_of(tensors: Mapping[str, Tensor]) -> VggSpec | None:
    """Return the network that tensors are of; None: of none.

    Layers are numbered, so that a gap tells of a max-pool; the last one is told by what is left
    of a picture of 32x32 for the linear layer.
    """
    head, first = tensors.get("classifier.weight"), tensors.get("features.0.weight")
    if head is None or first is None or head.ndim != 2 or first.ndim != 4:
        return None
    plain = "features.1.running_mean" not in tensors
    step, places = (2 if plain else 3), []
    for name, tensor in tensors.items():
        match = re.fullmatch(r"features\.(\d+)\.weight", name)
        if match and tensor.ndim == 4:
            places.append((int(match[1]), tensor.shape[0]))
    layers: list[int | str] = []
    expected = 0
    for place, wide in sorted(places):
        if place == expected + 1 and layers:
            layers.append("M")
        elif place != expected:
            return None
        layers.append(wide)
        expected = place + step
    for end in ([], ["M"]):
        side = SIDE >> (layers.count("M") + len(end))
        if side > 0 and head.shape[1] == sorted(places)[-1][1] * side * side:
            return VggSpec((*layers, *end), plain)
    return None


class CifarVgg(nn.Module):
    """A VGG with one linear layer, by kuangliu's names."""

    def __init__(self, spec: VggSpec, *, channels: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inside = channels
        for layer in spec.layers:
            if isinstance(layer, str):
                layers.append(nn.MaxPool2d(2))
                continue
            layers.append(nn.Conv2d(inside, layer, 3, padding=1))
            if not spec.plain:
                layers.append(nn.BatchNorm2d(layer))
            layers.append(nn.ReLU())
            inside = layer
        self.features = nn.Sequential(*layers)
        side = SIDE >> spec.layers.count("M")
        self.classifier = nn.Linear(inside * side * side, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (n, channels, 32, 32) to logits (n, classes)."""
        out: Tensor = self.classifier(torch.flatten(self.features(x), 1))
        return out
