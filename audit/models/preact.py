"""Networks for small pictures that normalise before they convolve: PreAct ResNets, Wide ResNets.

He et al. 2016 (arXiv 1603.05027) and Zagoruyko and Komodakis 2016 (arXiv 1605.07146), as the
repositories build them that most checkpoints are from: kuangliu/pytorch-cifar,
xternalz/WideResNet-pytorch, szagoruyko/wide-residual-networks, meliketoy/wide-resnet.pytorch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class PreActSpec:
    """The shape of a pre-activation ResNet."""

    depths: tuple[int, ...]
    """Blocks in each stage."""
    stem: int
    """Channels after the first convolution."""
    width: int
    """Channels of the first stage; each further stage doubles them."""
    bottleneck: bool = False
    final: bool = False
    """Whether a BatchNorm and a ReLU follow the last stage."""
    biased: bool = False
    """As meliketoy has it: convolutions with biases, the stride in a block's second one, and
    shortcuts of what no BatchNorm has seen."""

    @property
    def name(self) -> str:
        """The name that `--arch` takes, such as `wrn-16-1` or `cifar-preact-resnet18`."""
        for name, spec in _NAMED.items():
            if spec == self:
                return name
        wide = self.width // 16
        if self == wide_spec(self.depths[0], wide, biased=self.biased):
            return f"wrn-{6 * self.depths[0] + 4}-{wide}{':biased' if self.biased else ''}"
        told = "".join(f":{one}" for one in ("bottleneck", "final", "biased") if getattr(self, one))
        return f"cifar-preact:{'-'.join(map(str, self.depths))}:s{self.stem}:w{self.width}{told}"


def wide_spec(blocks: int, wide: int, *, biased: bool = False) -> PreActSpec:
    """Return a Wide ResNet of three stages with `blocks` each, `wide` times as wide as a ResNet."""
    return PreActSpec((blocks,) * 3, stem=16, width=16 * wide, final=True, biased=biased)


_NAMED = {
    "cifar-preact-resnet18": PreActSpec((2, 2, 2, 2), 64, 64),
    "cifar-preact-resnet34": PreActSpec((3, 4, 6, 3), 64, 64),
    "cifar-preact-resnet50": PreActSpec((3, 4, 6, 3), 64, 64, bottleneck=True),
    "cifar-preact-resnet101": PreActSpec((3, 4, 23, 3), 64, 64, bottleneck=True),
    "cifar-preact-resnet152": PreActSpec((3, 8, 36, 3), 64, 64, bottleneck=True),
}
PREACT = (*_NAMED, "wrn-16-1", "wrn-16-4", "wrn-28-10", "wrn-34-10", "wrn-40-2")
"""The names that stand in lists; any other depth and width is spelt alike."""
_WIDE = re.compile(r"wrn-(\d+)-(\d+)(:biased)?")
_SPELT = re.compile(r"cifar-preact:(\d+(?:-\d+)*):s(\d+):w(\d+)(:bottleneck)?(:final)?(:biased)?")


def preact_spec(arch: str) -> PreActSpec | None:
    """Read an architecture's name; None when it is of no such network.

    >>> preact_spec("wrn-16-4")
    PreActSpec(depths=(2, 2, 2), stem=16, width=64, bottleneck=False, final=True, biased=False)
    """
    if arch in _NAMED:
        return _NAMED[arch]
    spec = None
    if match := _WIDE.fullmatch(arch):
        blocks, left = divmod(int(match[1]) - 4, 6)
        if left == 0:
            spec = wide_spec(blocks, int(match[2]), biased=match[3] is not None)
    elif match := _SPELT.fullmatch(arch):
        depths = tuple(map(int, match[1].split("-")))
        flags = [flag is not None for flag in match.groups()[3:]]
        spec = PreActSpec(depths, int(match[2]), int(match[3]), *flags)
    # A header may name any size: one that no machine could build is none.
    if spec is None or min(spec.depths) < 1 or sum(spec.depths) > 500 or len(spec.depths) > 8:
        return None
    return spec if 0 < spec.stem <= 1024 and 0 < spec.width <= 1024 else None


def preact_of(tensors: Mapping[str, Tensor]) -> PreActSpec | None:
    """Return the network that tensors are of, by the names of `preact_names`; None: of none."""
    stem, first = tensors.get("conv1.weight"), tensors.get("layer1.0.conv1.weight")
    if stem is None or first is None or stem.ndim != 4 or first.ndim != 4:
        return None
    if "bn1.weight" in tensors:  # another network's, which normalises after it convolves
        return None
    depths: list[int] = []
    while f"layer{len(depths) + 1}.0.conv1.weight" in tensors:
        stage, depth = len(depths) + 1, 1
        while f"layer{stage}.{depth}.conv1.weight" in tensors:
            depth += 1
        depths.append(depth)
    return PreActSpec(
        tuple(depths), stem=stem.shape[0], width=first.shape[0],
        bottleneck="layer1.0.conv3.weight" in tensors, final="norm.weight" in tensors,
        biased="layer1.0.conv1.bias" in tensors,
    )  # fmt: skip


_WIDE_NAMES = (
    (re.compile(r"^block(\d+)\.layer\.(\d+)\."), r"layer\1.\2."),
    (re.compile(r"\.convShortcut\."), ".downsample.0."),
    (re.compile(r"^bn1\."), "norm."),
)  # xternalz, and many after it
_KUANGLIU = (
    (re.compile(r"\.shortcut\."), ".downsample."),
    (re.compile(r"^linear\."), "fc."),
    (re.compile(r"^bn\."), "norm."),
)
_MELIKETOY = (*_KUANGLIU[:2], (re.compile(r"^bn1\."), "norm."))
_BLOCK = re.compile(r"^group(\d+)\.block(\d+)\.(?:(conv|bn)(\d)|convdim)(\.\w+)?$")


def preact_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Return tensors of such a network by the names of `PreActNet`; None: they are of none."""
    if "block1.layer.0.conv1.weight" in tensors:
        # TRADES and what came after it build a stage that their forward pass never asks.
        asked = {name: t for name, t in tensors.items() if not name.startswith("sub_block1.")}
        return _renamed(asked, _WIDE_NAMES)
    if "group0.block0.conv0" in tensors or "group0.block0.conv0.weight" in tensors:
        return {_of_szagoruyko(name): tensor for name, tensor in tensors.items()}
    if "layer1.0.conv1.weight" not in tensors or "layer1.0.bn1.weight" not in tensors:
        return None
    if "layer1.0.conv1.bias" in tensors:
        return _renamed(tensors, _MELIKETOY)
    # Without a BatchNorm after the stem there is one before the first block's convolution.
    return None if "bn1.weight" in tensors else _renamed(tensors, _KUANGLIU)


def _renamed(
    tensors: Mapping[str, Tensor], rules: tuple[tuple[re.Pattern[str], str], ...]
) -> dict[str, Tensor]:
    named = {}
    for name, tensor in tensors.items():
        for pattern, new in rules:
            name = pattern.sub(new, name)
        named[name] = tensor
    return named


def _of_szagoruyko(name: str) -> str:
    """Return the name of a tensor that is counted from 0 and may lack its `.weight`.

    >>> _of_szagoruyko("group1.block0.bn1.running_mean"), _of_szagoruyko("group0.block1.convdim")
    ('layer2.0.bn2.running_mean', 'layer1.1.downsample.0.weight')
    """
    if name.startswith("conv0"):
        return "conv1.weight"
    if match := _BLOCK.fullmatch(name):
        group, block, kind, number, rest = match.groups()
        part = f"{kind}{int(number) + 1}" if kind else "downsample.0"
        return f"layer{int(group) + 1}.{block}.{part}{rest or '.weight'}"
    return name.replace("bn.", "norm.", 1) if name.startswith("bn.") else name


class _Block(nn.Module):
    """BatchNorm, ReLU, convolution: twice, or thrice in a bottleneck; and the shortcut."""

    def __init__(self, inside: int, planes: int, stride: int, spec: PreActSpec) -> None:
        super().__init__()
        out = planes * (4 if spec.bottleneck else 1)
        sizes = [1, 3, 1] if spec.bottleneck else [3, 3]
        wide = [inside, *[planes] * (len(sizes) - 1), out]
        # kuangliu's bottleneck and meliketoy's block stride in their second convolution.
        striding = 1 if spec.bottleneck or spec.biased else 0
        self._parts = len(sizes)
        for number, size in enumerate(sizes):
            self.add_module(f"bn{number + 1}", nn.BatchNorm2d(wide[number]))
            step = stride if number == striding else 1
            convolution = nn.Conv2d(
                wide[number], wide[number + 1], size, step, padding=size // 2, bias=spec.biased
            )
            self.add_module(f"conv{number + 1}", convolution)
        self._raw = spec.biased
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inside != out:
            self.downsample = nn.Sequential(nn.Conv2d(inside, out, 1, stride, bias=spec.biased))

    def forward(self, x: Tensor) -> Tensor:
        out, shortcut = x, x
        for number in range(1, self._parts + 1):
            out = torch.relu(getattr(self, f"bn{number}")(out))
            if number == 1 and self.downsample is not None:
                shortcut = self.downsample(x if self._raw else out)
            out = getattr(self, f"conv{number}")(out)
        return out + shortcut


class PreActNet(nn.Module):
    """A ResNet that normalises before it convolves, for small pictures: a 3x3 stem, no max-pool."""

    def __init__(self, spec: PreActSpec, *, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, spec.stem, 3, padding=1, bias=spec.biased)
        inside = spec.stem
        for stage, depth in enumerate(spec.depths):
            planes, blocks = spec.width << stage, []
            for number in range(depth):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks.append(_Block(inside, planes, stride, spec))
                inside = planes * (4 if spec.bottleneck else 1)
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self._stages = len(spec.depths)
        self.norm: nn.BatchNorm2d | None = nn.BatchNorm2d(inside) if spec.final else None
        self.fc = nn.Linear(inside, classes)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (n, channels, h, w) to logits (n, classes)."""
        x = self.conv1(x)
        for stage in range(1, self._stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        if self.norm is not None:
            x = torch.relu(self.norm(x))
        out: Tensor = self.fc(x.mean(dim=(2, 3)))
        return out
