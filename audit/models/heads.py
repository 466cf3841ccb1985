"""Heads that stand elsewhere than the architecture has them, and do the same there."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_IN_SEQUENCE = re.compile(r"^(fc|linear)\.\d+\.(weight|bias)$")


def joined(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Return a ResNet's tensors with its head where the architecture has it, and what was changed.

    Two ways to keep one: `fc` as a Sequential with one linear layer (behind a dropout), and a trunk
    beside its head (`backbone.conv1`, `head.fc`), as Lightning modules and mmpretrain have it. What
    stands between, such as pooling, no tensor tells: clean data does.
    """
    inside = [name for name in tensors if name.startswith(("fc.", "linear."))]
    if inside and len(inside) <= 2 and all(map(_IN_SEQUENCE.match, inside)):
        named = {_IN_SEQUENCE.sub(r"\1.\2", name): tensor for name, tensor in tensors.items()}
        if len(named) == len(tensors):
            return named, f"{inside[0].rpartition('.')[0]} was taken for the head"
    groups: dict[str, list[str]] = {}
    for name in tensors:
        groups.setdefault(name.partition(".")[0], []).append(name)
    if len(groups) != 2:
        return dict(tensors), ""
    (_, ends), (trunk, names) = sorted(groups.items(), key=lambda group: len(group[1]))
    weights = [name for name in ends if name.endswith(".weight")]
    layer = weights[0].removesuffix("weight") if weights else ""
    linear = len(weights) == 1 and tensors[weights[0]].ndim == 2
    if not linear or not {*ends} <= {f"{layer}weight", f"{layer}bias"}:
        return dict(tensors), ""
    if f"{trunk}.conv1.weight" not in names or any(n.startswith(f"{trunk}.fc.") for n in names):
        return dict(tensors), ""
    to = "linear." if any(".shortcut." in name for name in names) else "fc."
    named = {
        to + name.removeprefix(layer) if name in ends else name.removeprefix(f"{trunk}."): tensor
        for name, tensor in tensors.items()
    }
    return named, f"{trunk} and {layer.removesuffix('.')} were taken for one network and its head"
