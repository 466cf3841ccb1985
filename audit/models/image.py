"""Image classifiers: the adapter, and the CIFAR-stem ResNets that torchvision does not build."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poison_audit.models.constants import constant
from poison_audit.models.model import Batch, Model, blocks_of
from poison_audit.models.residual import BasicBlock, Bottleneck

NORMALIZE: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "none": ((0.0,), (1.0,)),
}
"""Channel means and standard deviations, in [0, 1] pixels, by name."""


def image_classifier(
    module: nn.Module,
    *,
    build: Callable[[], nn.Module],
    arch: str,
    classes: int,
    normalize: tuple[Sequence[float], Sequence[float]] = NORMALIZE["none"],
    channels_last: bool = False,
    labels: Sequence[str] | None = None,
) -> Model:
    """Wrap a network that maps normalised pictures to logits.

    Args:
        module: the network, (n, c, h, w) -> (n, classes).
        normalize: channel means and standard deviations in [0, 1] pixels; one value serves all
            channels. Normalisation is part of the adapter: every x is in [0, 1].
        channels_last: whether to lay pictures and weights out in memory channel by channel within
            a pixel, which convolutions are faster with. A network that calls `view` may refuse it.
            One that would damage memory so is laid out plainly.
        labels: what the model itself calls its classes.
    """
    channels_last = channels_last and not _overruns(module)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    mean, std = (tuple(map(float, values)) for values in normalize)

    def laid_out() -> nn.Module:
        return build().to(memory_format=layout)

    def logits(module: nn.Module, batch: Batch) -> Tensor:
        x = batch.x
        shift, scale = (constant(part, x.dtype, x.device).view(1, -1, 1, 1) for part in (mean, std))
        out: Tensor = module(((x - shift) / scale).contiguous(memory_format=layout))
        return out

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(logits(module, batch), batch.y, reduction="none")

    return Model(
        module=module.to(memory_format=layout), logits=logits, loss=loss,
        blocks=blocks_of(module), build=laid_out, arch=arch,
        classes=classes, normalize=(mean, std),
        labels=None if labels is None else tuple(labels),
    )  # fmt: skip


def _overruns(module: nn.Module) -> bool:
    """Return whether a network has layers that write beyond their memory, channels last."""
    # Seen in torch 2.14 on a CPU: the backward pass of strided 1x1 convolutions of 4 channels.
    return any(
        isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1) and part.stride != (1, 1)
        and part.in_channels < 8
        for part in module.modules()
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class CifarResNetSpec:
    """The shape of a CIFAR-stem ResNet."""

    depths: tuple[int, ...]
    """Blocks in each stage."""
    width: int = 64
    """Channels of the first stage; each further stage doubles them."""
    bottleneck: bool = False
    shortcut: str = ""
    """`padded` and `padded-end`: option A, every second pixel of the input and new channels of
    zeros, on both sides (akamaster's) or after them; else option B, a convolution."""
    pool: bool = False
    """Whether a max-pool follows the stem. No tensor tells."""

    @property
    def name(self) -> str:
        """The name that `--arch` takes, such as `cifar-resnet18` or `cifar-resnet:1-1-1-1:w16`."""
        bare = replace(self, pool=False)
        depths = "-".join(map(str, self.depths))
        told = [f"cifar-resnet:{depths}:w{self.width}", "bottleneck" if self.bottleneck else "",
                self.shortcut]  # fmt: skip
        spelt = ":".join(part for part in told if part)
        named = next((name for name, spec in _NAMED.items() if spec == bare), spelt)
        return f"{named}:pool" if self.pool else named

    @property
    def others(self) -> tuple[str, ...]:
        """The names of what else has the same tensors."""
        found = [replace(self, pool=not self.pool)]
        if self.shortcut:
            other = "padded-end" if self.shortcut == "padded" else "padded"
            found.append(replace(self, shortcut=other))
        return tuple(spec.name for spec in found)


_NAMED = {
    **{
        f"cifar-resnet{6 * blocks + 2}": CifarResNetSpec((blocks,) * 3, 16, shortcut="padded")
        for blocks in (3, 5, 7, 9, 18)
    },
    "cifar-resnet18": CifarResNetSpec((2, 2, 2, 2)),
    "cifar-resnet34": CifarResNetSpec((3, 4, 6, 3)),
    "cifar-resnet50": CifarResNetSpec((3, 4, 6, 3), bottleneck=True),
    "cifar-resnet101": CifarResNetSpec((3, 4, 23, 3), bottleneck=True),
    "cifar-resnet152": CifarResNetSpec((3, 8, 36, 3), bottleneck=True),
}
CIFAR_RESNETS = tuple(_NAMED)
"""The names that stand in lists."""
_SPELT = re.compile(r"cifar-resnet:(\d+(?:-\d+)*):w(\d+)(:bottleneck)?(?::(padded|padded-end))?")


def cifar_resnet_spec(arch: str) -> CifarResNetSpec | None:
    """Read an architecture name; None when it is not a CIFAR-stem ResNet.

    >>> cifar_resnet_spec("cifar-resnet:1-1-1:w8")
    CifarResNetSpec(depths=(1, 1, 1), width=8, bottleneck=False, shortcut='', pool=False)
    """
    if arch.endswith(":pool"):
        spec = cifar_resnet_spec(arch.removesuffix(":pool"))
        return spec and (None if spec.pool else replace(spec, pool=True))
    if arch in _NAMED:
        return _NAMED[arch]
    if match := _SPELT.fullmatch(arch):
        depths, width = tuple(map(int, match[1].split("-"))), int(match[2])
        # A header may name any size: one that no machine could build is none.
        if min(depths) > 0 and sum(depths) <= 500 and len(depths) <= 8 and 0 < width <= 1024:
            return CifarResNetSpec(depths, width, match[3] is not None, match[4] or "")
    return None


class _Padded(nn.Module):
    """The shortcut without weights (He et al. 2016, option A)."""

    def __init__(self, channels: int, stride: int, *, both: bool) -> None:
        super().__init__()
        before = channels // 2 if both else 0
        self._stride, self._pad = stride, (0, 0, 0, 0, before, channels - before)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self._stride, :: self._stride], self._pad)


class CifarResNet(nn.Module):
    """A ResNet for small pictures: a 3x3 stem, no max-pool (He et al. 2016, section 4.2).

    It has torchvision's blocks and tensor names, so that a checkpoint of either reads the same.
    """

    def __init__(self, spec: CifarResNetSpec, *, channels: int, classes: int) -> None:
        super().__init__()
        block = Bottleneck if spec.bottleneck else BasicBlock
        width = spec.width
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1) if spec.pool else nn.Identity()
        self._inplanes = width
        for stage, depth in enumerate(spec.depths):
            stride = 1 if stage == 0 else 2
            layer = self._stage(block, width << stage, depth, stride=stride, spec=spec)
            self.add_module(f"layer{stage + 1}", layer)
        self._stages = len(spec.depths)
        self.fc = nn.Linear(self._inplanes, classes)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def _stage(
        self, block: type[BasicBlock] | type[Bottleneck], planes: int, depth: int, *, stride: int,
        spec: CifarResNetSpec,
    ) -> nn.Sequential:  # fmt: skip
        blocks: list[nn.Module] = []
        for step in (stride, *[1] * (depth - 1)):
            out = planes * block.expansion
            shortcut: nn.Module | None = None
            if step != 1 and spec.shortcut:
                shortcut = _Padded(out - self._inplanes, step, both=spec.shortcut == "padded")
            elif step != 1 or self._inplanes != out:
                shortcut = nn.Sequential(
                    nn.Conv2d(self._inplanes, out, 1, stride=step, bias=False), nn.BatchNorm2d(out)
                )
            # torchvision's blocks fix their base width at 64 only for grouped convolutions.
            blocks.append(block(self._inplanes, planes, step, shortcut))
            self._inplanes = out
        return nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (n, channels, h, w) to logits (n, classes)."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for stage in range(1, self._stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        out: Tensor = self.fc(x.mean(dim=(2, 3)))
        return out
