"""Architectures by name, and which of them a checkpoint's tensors fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from poison_audit.errors import InputError, Problem, did_you_mean
from poison_audit.models.cifar_vgg import VGG, CifarVgg, vgg_of, vgg_spec
from poison_audit.models.image import (
    CIFAR_RESNETS,
    CifarResNet,
    CifarResNetSpec,
    cifar_resnet_spec,
)
from poison_audit.models.preact import PREACT, PreActNet, preact_names, preact_of, preact_spec
from poison_audit.models.speed import SPEED, SpeedNet, speed_of, speed_spec
from poison_audit.models.timm import of_vision_transformer, vision_transformer_names

_OWN = (*CIFAR_RESNETS, *PREACT, *VGG, *SPEED)
NO_POOL = ":no-pool"
"""What the name of a torchvision ResNet ends with that lost the max-pool of its stem."""


class _Family(NamedTuple):
    mark: str
    """A tensor that every member has, and few others."""
    head: str
    """The last layer's weight: its first dimension is the number of classes."""
    stem: str
    """The first layer's weight: its second dimension is the number of channels."""


# By torchvision's module. The marks only save building what cannot fit.
_FAMILIES = {
    "alexnet": _Family("classifier.4.weight", "classifier.6.weight", "features.0.weight"),
    "convnext": _Family("features.1.0.layer_scale", "classifier.2.weight", "features.0.0.weight"),
    "densenet": _Family("features.conv0.weight", "classifier.weight", "features.conv0.weight"),
    "efficientnet": _Family(
        "features.1.0.block.0.0.weight", "classifier.1.weight", "features.0.0.weight"
    ),
    "googlenet": _Family("inception3a.branch1.conv.weight", "fc.weight", "conv1.conv.weight"),
    "inception": _Family("Conv2d_1a_3x3.conv.weight", "fc.weight", "Conv2d_1a_3x3.conv.weight"),
    "maxvit": _Family("stem.0.0.weight", "classifier.5.weight", "stem.0.0.weight"),
    "mnasnet": _Family("layers.0.weight", "classifier.1.weight", "layers.0.weight"),
    "mobilenetv2": _Family(
        "features.1.conv.0.0.weight", "classifier.1.weight", "features.0.0.weight"
    ),
    "mobilenetv3": _Family(
        "features.1.block.0.0.weight", "classifier.3.weight", "features.0.0.weight"
    ),
    "regnet": _Family("stem.0.weight", "fc.weight", "stem.0.weight"),
    "resnet": _Family("layer4.0.conv1.weight", "fc.weight", "conv1.weight"),
    "shufflenetv2": _Family("conv1.0.weight", "fc.weight", "conv1.0.weight"),
    "squeezenet": _Family("features.3.squeeze.weight", "classifier.1.weight", "features.0.weight"),
    "swin_transformer": _Family("features.0.2.weight", "head.weight", "features.0.0.weight"),
    "vgg": _Family("classifier.6.weight", "classifier.6.weight", "features.0.weight"),
    "vision_transformer": _Family("class_token", "heads.head.weight", "conv_proj.weight"),
}
_WITH_AUXILIARY = ("googlenet", "inception")
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """An architecture, of the size that a checkpoint's tensors ask for, and what builds it."""

    build: Callable[[], nn.Module]
    """A newly initialised network."""
    arch: str
    classes: int
    channels: int | None
    """Channels of a picture; None when it has no convolution to tell."""
    labels: tuple[str, ...] | None = None
    """What config.json calls the classes, in the order of the outputs."""


def _torchvision() -> Any:
    # It takes long to import, and most checkpoints of small pictures are of our own builders.
    from torchvision import models

    return models


def architectures() -> tuple[str, ...]:
    """Return the names that `--arch` takes, but for the spelt-out `cifar-resnet:...`."""
    torchvision_models = _torchvision()
    listed = torchvision_models.list_models(module=torchvision_models)
    return (*_OWN, *(name for name in listed if _family(name) in _FAMILIES))


def alternatives(arch: str) -> tuple[str, ...]:
    """Return the names of the architectures that have the very tensors of another.

    >>> alternatives("resnet18"), alternatives("cifar-resnet20")
    (('resnet18:no-pool',), ('cifar-resnet20:pool', 'cifar-resnet:3-3-3:w16:padded-end'))
    """
    if spec := cifar_resnet_spec(arch):
        return spec.others
    bare = arch.removesuffix(NO_POOL)
    if bare in _OWN or not bare.isidentifier():  # factories, configurations, spelt-out names
        return ()
    if bare not in architectures() or _family(bare) != "resnet":
        return ()
    return (bare,) if arch.endswith(NO_POOL) else (arch + NO_POOL,)


def architecture(name: str, tensors: Mapping[str, Tensor], *, where: str = "--arch") -> Network:
    """Return the architecture of this name, with the tensors' classes, channels and picture size.

    What no tensor tells keeps torchvision's default: GoogLeNet and Inception do not transform
    their input again, so state what they expect as the normalisation.

    Args:
        name: one of `architectures()`, or `cifar-resnet:DEPTHS:wWIDTH[:bottleneck]`.
        tensors: a checkpoint's tensors, by `canonical` name.

    Raises:
        InputError: no architecture has this name.
    """
    if own := _own(name, tensors):
        return own
    bare, known = name.removesuffix(NO_POOL), architectures()
    if bare not in known or (bare != name and _family(bare) != "resnet"):
        hint = did_you_mean(name, known)
        raise InputError(Problem(f"unknown architecture {name!r}", where, hint))
    arch, name = name, bare
    family = _family(name)
    options: dict[str, Any] = {}
    if family in _WITH_AUXILIARY:
        options = {"aux_logits": False, "init_weights": True}
    if family == "vision_transformer" and (side := _picture_side(name, tensors)):
        options = {"image_size": side}
    classes = _size(tensors, _FAMILIES[family].head, 0, default=1000)
    builder = _torchvision().get_model_builder(name)
    build = partial(builder, weights=None, num_classes=classes, **options)
    build = build if arch == name else partial(_without_pool, build)
    channels = _size(tensors, _FAMILIES[family].stem, 1, default=3)
    build = build if channels == 3 else partial(_of_channels, build, channels)
    return Network(arch=arch, build=build, classes=classes, channels=channels)


def _own(name: str, tensors: Mapping[str, Tensor]) -> Network | None:
    """Return the network of a name that is none of torchvision's."""
    channels = _size(tensors, "conv1.weight", 1, default=3)
    classes = _size(tensors, "fc.weight", 0, default=10)
    build: Callable[[], nn.Module]
    if spec := cifar_resnet_spec(name):
        build = partial(CifarResNet, spec, channels=channels, classes=classes)
    elif pre := preact_spec(name):
        build = partial(PreActNet, pre, channels=channels, classes=classes)
    elif vgg := vgg_spec(name):
        channels = _size(tensors, "features.0.weight", 1, default=3)
        classes = _size(tensors, "classifier.weight", 0, default=10)
        build = partial(CifarVgg, vgg, channels=channels, classes=classes)
    elif speed := speed_spec(name):
        channels = _size(tensors, "stem.weight", 1, default=3)
        classes = _size(tensors, "head.weight", 0, default=10)
        build = partial(SpeedNet, speed, channels=channels, classes=classes)
    else:
        return None
    return Network(arch=name, build=build, classes=classes, channels=channels)


def _of_channels(build: Callable[[], nn.Module], channels: int) -> nn.Module:
    """Build a network whose first convolution takes other channels, as for grey pictures."""
    network = build()
    name, old = next(
        (name, part) for name, part in network.named_modules() if isinstance(part, nn.Conv2d)
    )
    size: Any = old.kernel_size
    stride: Any = old.stride
    padding: Any = old.padding
    bias = old.bias is not None
    new = nn.Conv2d(channels, old.out_channels, size, stride, padding, bias=bias)
    holder, _, last = name.rpartition(".")
    setattr(network.get_submodule(holder), last, new)
    return network


def _without_pool(build: Callable[[], nn.Module]) -> nn.Module:
    network = build()
    network.maxpool = nn.Identity()
    return network


def identify(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the architectures whose tensors have these names and shapes.

    Only names and shapes are read, so tensors on the meta device will do. A fit is not a proof:
    a stem's max-pool, strides and activations have no tensor.
    """
    tensors = canonical(tensors)
    # What our own builders fit, no network of torchvision's does: those need not be built.
    ours = [name for name in _own_relatives(tensors) if _fits(name, tensors)]
    return ours or [name for name in _others(tensors) if _fits(name, tensors)]


def relatives(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the architectures that tensors, by `canonical` name, may be of."""
    return _own_relatives(tensors) + _others(tensors)


def _own_relatives(tensors: Mapping[str, Tensor]) -> list[str]:
    specs = (_cifar_spec(tensors), preact_of(tensors), vgg_of(tensors), speed_of(tensors))
    return [spec.name for spec in specs if spec]


def _others(tensors: Mapping[str, Tensor]) -> list[str]:
    if "class_token" in tensors:
        return of_vision_transformer(tensors)
    # No family is asked about its members that has no mark here.
    if not any(family.mark in tensors for family in _FAMILIES.values()):
        return []
    others = (name for name in architectures() if name not in _OWN)
    return [name for name in others if _FAMILIES[_family(name)].mark in tensors]


def canonical(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors by torchvision's names or ours, without the auxiliary heads of training.

    CIFAR-stem ResNets are often trained with kuangliu's names (`shortcut`, `linear`), Wide ResNets
    with those of several repositories, vision transformers with timm's.
    """
    if (named := preact_names(tensors) or vision_transformer_names(tensors)) is not None:
        return named
    stem = tensors.get("conv1.weight")
    if stem is not None and tuple(stem.shape[2:]) == (3, 3) and "fc.weight" not in tensors:
        return {_torchvision_name(name): tensor for name, tensor in tensors.items()}
    if any(_FAMILIES[family].mark in tensors for family in _WITH_AUXILIARY):
        return {name: t for name, t in tensors.items() if not name.startswith(_AUXILIARY)}
    return dict(tensors)


def _torchvision_name(name: str) -> str:
    if name.startswith("linear."):
        return name.replace("linear.", "fc.", 1)
    return name.replace(".shortcut.", ".downsample.")


def _family(name: str) -> str:
    module: str = _torchvision().get_model_builder(name).__module__
    return module.rpartition(".")[2]


def _size(tensors: Mapping[str, Tensor], name: str, dimension: int, *, default: int) -> int:
    # Where the tensor is absent the default stands, and the strict load names what is missing.
    tensor = tensors.get(name)
    if tensor is None or tensor.ndim <= dimension:
        return default
    return max(1, tensor.shape[dimension])


def _picture_side(name: str, tensors: Mapping[str, Tensor]) -> int:
    # The positions are one for the class and one for each square patch of the picture.
    patches = _size(tensors, "encoder.pos_embedding", 1, default=1) - 1
    return math.isqrt(patches) * int(name.rpartition("_")[2])


def _cifar_spec(tensors: Mapping[str, Tensor]) -> CifarResNetSpec | None:
    stem = tensors.get("conv1.weight")
    if stem is None or tuple(stem.shape[2:]) != (3, 3) or stem.shape[0] == 0:
        return None
    depths: list[int] = []
    while f"layer{len(depths) + 1}.0.conv1.weight" in tensors:
        depth = 1
        while f"layer{len(depths) + 1}.{depth}.conv1.weight" in tensors:
            depth += 1
        depths.append(depth)
    if not depths:
        return None
    bottleneck = "layer1.0.conv3.weight" in tensors
    padded = len(depths) > 1 and "layer2.0.downsample.0.weight" not in tensors
    return CifarResNetSpec(
        tuple(depths), stem.shape[0], bottleneck, shortcut="padded" if padded else ""
    )


def expected_of(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that an architecture of the classes of `tensors` has, without memory."""
    with _EmptyOnMeta():
        expected: dict[str, Tensor] = architecture(name, tensors).build().state_dict()
    return expected


def _fits(name: str, tensors: Mapping[str, Tensor]) -> bool:
    expected = expected_of(name, tensors)
    absent = [key for key in expected if key not in tensors]
    return (
        all(key.endswith("num_batches_tracked") for key in absent)
        and all(key in expected for key in tensors)
        and all(tensors[key].shape == expected[key].shape for key in expected if key in tensors)
    )


class _EmptyOnMeta(TorchFunctionMode):
    """Make layers allocate their weights on the meta device: names and shapes, no memory.

    `torch.device("meta")` would also move the small tensors from which RegNets compute sizes.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        meta = {"device": "meta"} if func is torch.empty else {}
        return func(*args, **{**(kwargs or {}), **meta})
