"""Other ways to read pictures than the stated one: what people normalise by, and what they mix up.

Nothing of these is in a network's tensors, and a wrong one seldom breaks it: each is tried, and
named where it is clearly better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poison_audit.models.factory import FACTORY
from poison_audit.models.fit import stated_size
from poison_audit.models.identify import alternatives, architecture
from poison_audit.models.image import NORMALIZE
from poison_audit.models.model import Model
from poison_audit.models.normalization import Normalize, same_normalize, spell_normalize

CAFFE: Normalize = ((0.485, 0.456, 0.406), (1 / 255, 1 / 255, 1 / 255))
"""ImageNet's means, on the scale of 8 bits, the channels in the order of OpenCV."""
USUAL: tuple[Normalize, ...] = (
    NORMALIZE["none"],
    NORMALIZE["imagenet"],
    NORMALIZE["cifar10"],
    ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),  # of CIFAR-10 as well, as often
    ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),  # CIFAR-100
    ((0.5,), (0.5,)),
    ((0.0,), (1 / 255,)),
)
"""What pictures are normalised by most often; in 8 bits, some not at all."""
GREY: tuple[Normalize, ...] = (((0.1307,), (0.3081,)), ((0.2860,), (0.3530,)))
"""The same for MNIST and Fashion-MNIST."""
SIDES = (28, 32, 64, 96, 224)
"""Sides of pictures that most networks are trained at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to read pictures."""

    said: str
    """With what: words that go on from `read with`."""
    step: str
    """What to do where it is the right one."""
    normalize: Normalize
    change: Callable[[Tensor], Tensor] = lambda x: x
    """Of pictures in [0, 1] pixels, before they are normalised."""
    network: Callable[[nn.Module], AbstractContextManager[nn.Module]] = nullcontext
    """(the network) -> the one that is asked, for a while."""
    same_network: bool = True


def ways(model: Model, x: Tensor) -> list[Way]:
    """Return the other ways to read pictures that are worth a try.

    Args:
        model: of pictures; its normalisation is the stated one, and not among them.
        x: some retain samples, in [0, 1] pixels, (n, c, h, w).
    """
    stated = model.normalize or NORMALIZE["none"]
    found = [*_normalised(stated, x), *_scaled(stated)]
    if x.shape[1] == 3:
        found += _channels(stated)
    found.append(
        Way(
            said="the pictures upside down",
            step="Store them as they are seen, the first row on top, as training read them.",
            normalize=stated, change=lambda x: x.flip(2),
        )
    )  # fmt: skip
    height, width = x.shape[2:]
    for size in _sizes(model, x):
        by_area, by_lines = _sized(size, stated)
        smaller = size[0] < height or size[1] < width
        found += [by_area, by_lines] if smaller else [by_lines]
    return [*found, *_stems(model, stated)]


def _normalised(stated: Normalize, x: Tensor) -> list[Way]:
    usual = USUAL if x.shape[1] != 1 else (*USUAL, *GREY)
    fitting = [known for known in usual if len(known[0]) in (1, x.shape[1])]
    return [
        *(_by(known) for known in fitting if not same_normalize(known, stated)),
        _by(_own(x), of=" (their own means and standard deviations)"),
    ]


def _by(normalize: Normalize, of: str = "") -> Way:
    spelt = spell_normalize(normalize)
    return Way(
        said=f"--normalize {spelt}{of}",
        step=f"Give --normalize {spelt} if training normalised so, or say what it did.",
        normalize=normalize,
    )


def _own(x: Tensor) -> Normalize:
    flat = x.double().transpose(0, 1).flatten(1)
    mean = tuple(round(value, 4) for value in flat.mean(1).clamp(0, 1).tolist())
    return mean, tuple(round(max(value, 1e-4), 4) for value in flat.std(1).tolist())


def _scaled(stated: Normalize) -> list[Way]:
    """Return pictures twice and half as bright, as if those were normalised."""
    found = []
    for factor, words in ((2.0, "twice"), (0.5, "half")):
        mean, std = (tuple(value / factor for value in values) for values in stated)
        flag = ""
        if all(value <= 1 for value in mean):
            flag = f", or give --normalize {spell_normalize((mean, std))}"
        found.append(
            Way(
                said=f"pixels of {words} the value",
                step=f"Store pictures with white = 1 (or 8 bits){flag}.",
                normalize=(mean, std),
            )
        )
    return found


def _channels(stated: Normalize) -> list[Way]:
    turned: Callable[[Tensor], Tensor] = lambda x: x.flip(1)  # noqa: E731
    fix = "Store them in the order that training read them in (OpenCV's is BGR), a trigger too."
    return [
        Way(said="the channels in the order BGR", step=fix, normalize=stated, change=turned),
        Way(
            said="the channels in the order BGR on the scale of 8 bits, ImageNet's means taken off",
            step="Name a --factory whose network does that first, and give --normalize none.",
            normalize=(CAFFE[0][::-1], CAFFE[1]), change=turned,
        ),
    ]  # fmt: skip


def _sizes(model: Model, x: Tensor) -> list[tuple[int, int]]:
    height, width = x.shape[2:]
    own = stated_size(model.module)
    found = [*([own] if own else []), (height // 2, width // 2)]
    if max(height, width) <= SIDES[-1] // 2:
        found.append((2 * height, 2 * width))
    found += [(side, side) for side in SIDES if _near(side, height) and _near(side, width)]
    if not model.arch.startswith(("cifar-", FACTORY)) and max(height, width) < SIDES[-1]:
        found.append((SIDES[-1], SIDES[-1]))  # published networks of this kind are of such pictures
    found = [size for size in found if size != (height, width) and min(size) >= 4]
    return list(dict.fromkeys(found))


def _near(side: int, other: int) -> bool:
    return other < 2 * side and side < 2 * other


def _sized(size: tuple[int, int], stated: Normalize) -> list[Way]:
    """Return what resizes pictures; smaller ones by two ways, since they were enlarged by either.

    The means of areas undo one that repeats pixels. One that draws lines between them is undone as
    least squares do: a trigger of single pixels is as sharp again, for which means are too soft.
    """

    def by_area(x: Tensor) -> Tensor:
        return F.interpolate(x, size=size, mode="area")

    def by_lines(x: Tensor) -> Tensor:
        rows, columns = (
            _line(own, side).to(x) for own, side in zip(x.shape[2:], size, strict=True)
        )
        return (rows @ x @ columns.T).clamp(0, 1)

    step = (
        f"Store them at {size[0]}x{size[1]}, resized as training did, with a trigger of that size; "
        "or name a --factory whose network resizes them first."
    )
    said = f"pictures of {size[0]}x{size[1]}"
    return [
        Way(said=said, step=step, normalize=stated, change=change) for change in (by_area, by_lines)
    ]


def _line(own: int, side: int) -> Tensor:
    """Return the matrix, (side, own), that enlarges a line of pixels, or undoes that."""
    small, large = sorted((own, side))
    grown = F.interpolate(torch.eye(small, dtype=torch.float64)[None], size=large, mode="linear")
    matrix = grown[0].T
    return matrix if own <= side else torch.linalg.pinv(matrix)


def _stems(model: Model, stated: Normalize) -> list[Way]:
    """Return the networks of the very same tensors: what is otherwise in them has none."""
    module = model.module
    if found := [_named(name, model, stated) for name in alternatives(model.arch)]:
        return found
    first: Any = getattr(module, "layer1", None)
    if not isinstance(first, nn.Module):
        return []
    own: Any = getattr(module, "maxpool", None)
    pooled = isinstance(own, nn.MaxPool2d)
    return [
        Way(
            said="the stem without its max-pool" if pooled else "a max-pool after the stem",
            step=f"Name a --factory whose network has {'none' if pooled else 'one'} there.",
            normalize=stated, network=_without_pool if pooled else _with_pool, same_network=False,
        )
    ]  # fmt: skip


def _named(name: str, model: Model, stated: Normalize) -> Way:
    @contextmanager
    def built(module: nn.Module) -> Iterator[nn.Module]:
        tensors = module.state_dict()
        with torch.random.fork_rng(devices=[]):
            other = architecture(name, tensors).build()
        other.load_state_dict(tensors)
        yield other.to(model.device).eval()

    step = f"Give --arch {name} if training had that network."
    return Way(
        said=f"--arch {name}", step=step, normalize=stated, network=built, same_network=False
    )


@contextmanager
def _without_pool(module: Any) -> Iterator[nn.Module]:
    own, module.maxpool = module.maxpool, nn.Identity()
    try:
        yield module
    finally:
        module.maxpool = own


@contextmanager
def _with_pool(module: Any) -> Iterator[nn.Module]:
    def pooled(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (F.max_pool2d(inputs[0], 3, stride=2, padding=1), *inputs[1:])

    handle = module.layer1.register_forward_pre_hook(pooled)
    try:
        yield module
    finally:
        handle.remove()


def prepared(way: Way, x: Tensor) -> Tensor:
    """Return what a network is given of pictures in [0, 1] pixels that are read so."""
    x = way.change(x)
    mean, std = (x.new_tensor(values).view(1, -1, 1, 1) for values in way.normalize)
    return torch.div(x - mean, std)
