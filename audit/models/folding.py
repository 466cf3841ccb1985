"""BatchNorm in eval mode as a part of the convolution before it: the same answers, in less time.

Only for asking a network what it answers. Whoever trains it, looks at its layers, or computes its
statistics anew needs it as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import torch
from torch import nn

from poison_audit.models.model import Model

_FOLLOWS = {
    "BasicBlock": (("conv1", "bn1"), ("conv2", "bn2")),
    "Bottleneck": (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")),
    "CifarResNet": (("conv1", "bn1"),),
    "ResNet": (("conv1", "bn1"),),
    "_Block": (("conv1", "bn2"), ("conv2", "bn3")),  # of PreActNet
    "_Group": (("conv2", "norm2"),),  # of SpeedNet, whose first BatchNorm follows a max-pool
    "BasicConv2d": (("conv", "bn"),),
}
"""Of classes of this package and of torchvision: which BatchNorm sees a convolution's output, and
nobody else does. In a Sequential the next layer does."""
_HOUSES = ("poison_audit.models.", "torchvision.models.")


def folded(model: Model) -> Model:
    """Return a model that answers alike, to rounding, in eval mode.

    Call in eval mode. The network shares all tensors with the given one but the convolutions'.

    Networks of other houses are returned as they are: nobody knows who else looks at a
    convolution's output there. Layers with hooks stay.
    """
    own = type(model.module).__module__.startswith(_HOUSES)
    pairs = list(_pairs(model.module)) if own else []
    if not pairs:
        return model
    new: dict[nn.Module, nn.Module] = {}
    for holder, first, second in pairs:
        convolution, norm = getattr(holder, first), getattr(holder, second)
        new[convolution], new[norm] = _together(convolution, norm), nn.Identity()
    return replace(model, module=_with(model.module, new))


def _with(module: nn.Module, new: dict[nn.Module, nn.Module]) -> nn.Module:
    """Return a module with new parts; all that holds none of them is shared."""
    if module not in new:
        parts = {name: _with(part, new) for name, part in module.named_children()}
        new[module] = module
        if any(part is not getattr(module, name) for name, part in parts.items()):
            new[module] = copy.copy(module)
            new[module]._modules = {**module._modules, **parts}
    return new[module]


def _pairs(module: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """Yield who holds a convolution and the BatchNorm after it, and the names of both."""
    for holder in module.modules():
        kind = type(holder)
        follows: tuple[tuple[str, str], ...] = ()
        if kind.forward is nn.Sequential.forward:
            names = [name for name, _ in holder.named_children()]
            follows = tuple(pairwise(names))
        elif kind.__module__.startswith(_HOUSES):
            follows = _FOLLOWS.get(kind.__name__, ())
        for first, second in follows:
            one, other = getattr(holder, first, None), getattr(holder, second, None)
            if _plain(one, nn.Conv2d) and _plain(other, nn.BatchNorm2d) and _counted(other):
                yield holder, first, second


def _plain(part: object, kind: type[nn.Module]) -> bool:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return type(part) is kind and not any(getattr(part, name) for name in hooks)


def _counted(norm: object) -> bool:
    return isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None and not norm.training


@torch.no_grad()
def _together(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    mean, var = norm.running_mean, norm.running_var
    if mean is None or var is None:
        raise ValueError("the layer stores no statistics")
    scale = (var.double() + norm.eps).rsqrt()
    shift = -mean.double()
    if convolution.bias is not None:
        shift = shift + convolution.bias.double()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = shift * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    weight = convolution.weight
    made = copy.copy(convolution)
    made._parameters = {
        "weight": nn.Parameter((weight * scale[:, None, None, None]).to(weight.dtype)),
        "bias": nn.Parameter(shift.to(weight.dtype)),
    }
    return made
