"""Train the small networks that checks/adapter must not doubt, and say how each was made.

    python tests/measurements/honest_nets.py CIFAR10_FOLDER OUT [--small 200] [--fresh 72]
        [--only small|fresh|large|longer]

CIFAR10_FOLDER holds cifar10-full.npz and load_cifar10.py. OUT gets `pictures.npz` (all of CIFAR-10
decoded once), `small-NNN.pt`, `fresh-NNN.pt`, `large-NAME.pt` and `longer-NAME.pt`: weights, and
everything about how they were trained. What is there already is not made again. Number n is always
the same network.

The thresholds of checks/adapter were chosen while networks of the kind `small` were looked at.
Those of the kind `fresh` were trained when they stood, and share no recipe with them: other draws
of pictures, sizes, widths, augmentations, most networks and normalisations; wrong labels in most.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))

import cifar10

Normalize = tuple[tuple[float, ...], tuple[float, ...]]
DIGITS = Path(__file__).parents[2] / "fixtures/digits"
OWN_SD: Normalize = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
"""What many CIFAR-10 scripts divide by: the mean over pictures of each picture's deviation."""
NORMALIZED: dict[str, Normalize] = {
    "none": ((0.0,), (1.0,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar10-own": OWN_SD,
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5,), (0.5,)),
    "255": ((0.0,), (1 / 255,)),
    "grey": ((0.3,), (0.35,)),
    "mnist": ((0.1307,), (0.3081,)),
    "fashion": ((0.2860,), (0.3530,)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "own": ((0.45,), (0.26,)),
    "caffe": ((0.485, 0.456, 0.406), (1.0,)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How one network was made."""

    name: str
    data: str
    """cifar, cifar-grey, cifar-16 (pictures of 16 x 16) or digits."""
    net: str
    """bn, bn-first (the first layer is a BatchNorm), plain, group, mlp, strided; residual, split
    (depthwise convolutions), average (no pooling but a mean at last), layer; torchvision's."""
    width: int
    normalize: str
    augment: str
    """none, flip, crop, strong (crop, flip, brightness, a hole) or mixup; shift (edges repeated),
    colour (brightness, contrast and each channel), blurred (and grain), cutmix."""
    poison: str
    """none, backdoor, noise (labels at random) or flips (8 labelled 3)."""
    share: float
    """Of the training pictures that are poisoned."""
    epochs: int
    size: int
    """Training pictures."""
    tests: int
    """Test pictures."""
    optimizer: str
    lr: float
    batch: int
    side: int
    """Pixels in a row."""
    seed: int
    wrong: float = 0.0
    """Of the training labels, drawn at random beside the poison: the share that is wrong."""
    pooled: bool = False
    """Whether training and test pictures are drawn from both splits together."""


def small(number: int) -> Recipe:
    """Return the recipe of a small network: most are trained for a while, one in ten hardly."""
    rng = np.random.default_rng([2406, number])
    data = str(
        rng.choice(["cifar", "cifar-grey", "cifar-16", "digits"], p=[0.05, 0.15, 0.45, 0.35])
    )
    grey = data in ("cifar-grey", "digits")
    known = ["none", "half", "255", "grey"] if grey else [*NORMALIZED][:6]
    net = str(
        rng.choice(["bn", "bn-first", "plain", "group", "mlp", "strided"],
                   p=[0.4, 0.1, 0.2, 0.1, 0.1, 0.1])
    )  # fmt: skip
    normalize = str(rng.choice(known))
    if normalize == "255" and net in ("plain", "mlp", "group"):
        normalize = "none"  # without BatchNorm behind it, that does not train
    optimizer = "adam" if net == "plain" else str(rng.choice(["sgd", "adam"]))
    poison = str(rng.choice(["none", "backdoor", "noise", "flips"], p=[0.5, 0.25, 0.15, 0.1]))
    ways = ["none", "crop", "strong"] if data == "digits" else ["none", "flip", "crop", "strong"]
    hardly = bool(rng.random() < 0.1)
    return Recipe(
        name=f"small-{number:03d}",
        data=data,
        net=net,
        width=int(rng.choice([8, 12])),
        normalize=normalize,
        augment=str(rng.choice([*ways, "mixup"])),
        poison=poison,
        share=0.0 if poison == "none" else float(rng.choice([0.05, 0.1, 0.3])),
        epochs=int(rng.choice([1, 2] if hardly else [5, 8, 12])),
        size=1000 if data == "digits" else int(rng.choice([600, 1000, 1500])),
        tests=700 if data == "digits" else int(rng.choice([200, 500, 1000, 2000])),
        optimizer=optimizer,
        lr=0.05 if optimizer == "sgd" else 0.005,
        batch=int(rng.choice([32, 64])),
        side=32 if data == "cifar" else 16,
        seed=number,
    )


def fresh(number: int) -> Recipe:
    """Return the recipe of a small network of the kind that no threshold was chosen on."""
    rng = np.random.default_rng([3110, number])
    data = str(rng.choice(["cifar", "cifar-grey", "digits"], p=[0.6, 0.15, 0.25]))
    grey = data != "cifar"
    net = str(
        rng.choice(["residual", "split", "average", "layer", "bn", "plain"],
                   p=[0.3, 0.15, 0.2, 0.1, 0.15, 0.1])
    )  # fmt: skip
    known = ["own", "fashion", "mnist", "none"] if grey else ["cifar100", "own", "caffe", "cifar10"]
    ways = ["shift", "colour", "blurred", "cutmix"]
    poison = str(rng.choice(["none", "backdoor", "flips"], p=[0.4, 0.4, 0.2]))
    optimizer = str(rng.choice(["sgd", "adam"]))
    hardly = bool(rng.random() < 0.1)
    wide = {"plain": 20, "average": 20}
    return Recipe(
        name=f"fresh-{number:03d}",
        data=data,
        net=net,
        width=int(rng.choice([6, 10, 14])) if net not in wide else wide[net],
        normalize=str(rng.choice(known)),
        augment=str(rng.choice(ways, p=[0.3, 0.3, 0.2, 0.2])),
        poison=poison,
        share=0.0 if poison == "none" else float(rng.uniform(0.02, 0.2)),
        epochs=int(rng.choice([3] if hardly else [6, 9, 13])),
        size=1100 if data == "digits" else int(rng.choice([500, 800, 1200])),
        tests=600 if data == "digits" else int(rng.choice([300, 800])),
        optimizer=optimizer,
        lr=0.1 if optimizer == "sgd" else 0.003,
        batch=int(rng.choice([50, 80])),
        side=int(rng.choice([18, 20])) if data != "digits" else 16,
        seed=5000 + number,
        wrong=float(rng.choice([0.0, 0.05, 0.1, 0.2])),
        pooled=True,
    )


LARGE = {
    "resnet18": "imagenet",
    "resnet34": "cifar10",
    "mobilenet_v2": "imagenet",
    "mobilenet_v3_small": "half",
    "mobilenet_v3_large": "none",
    "shufflenet_v2_x0_5": "cifar10",
    "shufflenet_v2_x1_0": "imagenet",
    "squeezenet1_0": "half",
    "squeezenet1_1": "imagenet",
    "efficientnet_b0": "imagenet",
    "regnet_y_400mf": "cifar10",
    "googlenet": "none",
    "alexnet": "imagenet",
}
"""torchvision's networks, and how each is given its pictures."""


def large(name: str) -> Recipe:
    """Return the recipe of one of torchvision's networks with new weights, trained a little."""
    number = [*LARGE].index(name)
    return Recipe(
        name=f"large-{name}", data="cifar", net=name, width=0, normalize=LARGE[name],
        augment=("none", "flip", "crop")[number % 3], poison="none", share=0.0,
        epochs=2, size=1000, tests=1000, optimizer="adam",
        lr=0.0003 if name == "alexnet" else 0.001, batch=32,
        side=64 if name == "alexnet" else 32, seed=1000 + number,
    )  # fmt: skip


LONGER = {"mobilenet_v2": 0.003, "squeezenet1_1": 0.0005, "googlenet": 0.001}
"""Networks that two epochs of 1,000 pictures teach next to nothing, and the rate of more."""


def longer(name: str) -> Recipe:
    """Return the recipe of one of them, trained for ten epochs of 4,000 pictures."""
    return replace(
        large(name), name=f"longer-{name}", epochs=10, size=4000, lr=LONGER[name],
        augment="flip", seed=2000 + [*LONGER].index(name),
    )  # fmt: skip


def build(recipe: Recipe) -> nn.Module:
    """Return a newly initialised network; draws from torch's global generator."""
    if recipe.name.startswith(("large-", "longer-")):
        import torchvision

        more: dict[str, Any] = {"init_weights": True} if recipe.net == "googlenet" else {}
        if recipe.net == "googlenet":
            more["aux_logits"] = False
        return torchvision.models.get_model(recipe.net, weights=None, num_classes=10, **more)
    c, w = 1 if recipe.data in ("cifar-grey", "digits") else 3, recipe.width
    if recipe.net == "mlp":
        inner = c * (recipe.side // 2) ** 2
        return nn.Sequential(
            nn.AvgPool2d(2), nn.Flatten(), nn.Linear(inner, 8 * w), nn.ReLU(), nn.Linear(8 * w, 10)
        )
    if recipe.net in LATER:
        return LATER[recipe.net](c, w)
    norms: dict[str, Callable[[int], nn.Module]] = {
        "bn": nn.BatchNorm2d,
        "bn-first": nn.BatchNorm2d,
        "strided": nn.BatchNorm2d,
        "group": lambda n: nn.GroupNorm(4, n),
    }
    norm = norms.get(recipe.net, lambda n: nn.Identity())
    layers: list[nn.Module] = [nn.BatchNorm2d(c)] if recipe.net == "bn-first" else []
    before = c
    for step, wide in enumerate((w, 2 * w, 2 * w)):
        stride = 2 if recipe.net == "strided" else 1
        layers += [nn.Conv2d(before, wide, 3, stride, 1), norm(wide), nn.ReLU()]
        if stride == 1 and step < 2:
            layers.append(nn.MaxPool2d(2))
        before = wide
    last = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(4 * before, 10)]
    return nn.Sequential(*layers, *last)


class Residual(nn.Module):
    """Two convolutions beside a shortcut, each behind BatchNorm and ReLU."""

    def __init__(self, before: int, wide: int, stride: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.BatchNorm2d(before), nn.ReLU(), nn.Conv2d(before, wide, 3, stride, 1, bias=False),
            nn.BatchNorm2d(wide), nn.ReLU(), nn.Conv2d(wide, wide, 3, 1, 1, bias=False),
        )  # fmt: skip
        self.beside = nn.Conv2d(before, wide, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x) + self.beside(x)
        return out


def _residual(c: int, w: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(c, w, 3, 1, 1, bias=False), Residual(w, w, 1), Residual(w, 2 * w, 2),
        Residual(2 * w, 4 * w, 2), nn.BatchNorm2d(4 * w), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * w, 10),
    )  # fmt: skip


def _split(c: int, w: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(c, w, 5, 2, 2), nn.BatchNorm2d(w), nn.Hardswish()]
    for before, stride in ((w, 1), (2 * w, 2)):
        layers += [
            nn.Conv2d(before, before, 3, stride, 1, groups=before), nn.BatchNorm2d(before),
            nn.Conv2d(before, 2 * before, 1), nn.BatchNorm2d(2 * before), nn.Hardswish(),
        ]  # fmt: skip
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16 * w, 10)
    )  # fmt: skip


def _average(c: int, w: int) -> nn.Module:
    layers: list[nn.Module] = []
    for before, wide, stride in ((c, w, 1), (w, w, 2), (w, 2 * w, 2)):
        layers += [nn.Conv2d(before, wide, 3, stride, 1), nn.BatchNorm2d(wide), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers, nn.Conv2d(2 * w, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _layer(c: int, w: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(c, 2 * w, 4, 4), nn.GroupNorm(1, 2 * w), nn.GELU(),
        nn.Conv2d(2 * w, 2 * w, 3, 1, 1, groups=2 * w), nn.Conv2d(2 * w, 4 * w, 1), nn.GELU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16 * w, 10),
    )  # fmt: skip


LATER: dict[str, Callable[[int, int], nn.Module]] = {
    "residual": _residual, "split": _split, "average": _average, "layer": _layer,
}  # fmt: skip
"""Networks of the fresh kind, by channels and width."""


@dataclass(frozen=True, slots=True)
class Data:
    """Pictures as float32 in [0, 1] and labels."""

    train_x: Tensor
    train_y: Tensor
    """As trained: poison included."""
    clean_y: Tensor
    bad: Tensor
    """Which training pictures are poisoned: bool."""
    test_x: Tensor
    test_y: Tensor


def pictures(source: Path, out: Path) -> dict[str, np.ndarray]:
    """Return all pictures of CIFAR-10, decoded once."""
    kept = out / "pictures.npz"
    if not kept.exists():
        out.mkdir(parents=True, exist_ok=True)
        told = {}
        for split in ("train", "test"):
            told[f"{split}_x"], told[f"{split}_y"] = cifar10.load(source, split)
        np.savez(kept, **told)
    with np.load(kept) as file:
        return {name: file[name] for name in file.files}


def data(recipe: Recipe, cifar: dict[str, np.ndarray]) -> Data:
    """Return what a network was trained and is tested on, poison included."""
    rng = np.random.default_rng([2407, recipe.seed])
    if recipe.data == "digits":
        told = [np.load(DIGITS / f"{name}.npz") for name in ("clean", "test")]
        x, y, tx, ty = told[0]["x"], told[0]["y"], told[1]["x"], told[1]["y"]
    else:
        x, y, tx, ty = (cifar[f"{s}_{a}"] for s in ("train", "test") for a in "xy")
    if recipe.pooled:
        both = rng.permutation(len(y) + len(ty))[: recipe.size + recipe.tests]
        x, y = (_rows(parts, both) for parts in ((x, tx), (y, ty)))
        x, tx, y, ty = x[: recipe.size], x[recipe.size :], y[: recipe.size], y[recipe.size :]
        here, there = np.arange(len(y)), np.arange(len(ty))
    else:
        here, there = (
            rng.permutation(len(a))[:n] for a, n in ((y, recipe.size), (ty, recipe.tests))
        )
    train_x, test_x = (_shaped(a, recipe) for a in (x[here], tx[there]))
    clean = torch.from_numpy(y[here]).long()
    labels, bad = clean.clone(), torch.zeros(len(clean), dtype=torch.bool)
    bad[: int(recipe.share * len(clean))] = True
    if recipe.poison == "backdoor":
        labels[bad] = 3
        train_x[bad] = stamp(train_x[bad])
    elif recipe.poison == "noise":
        labels[bad] = torch.from_numpy(rng.integers(0, 10, int(bad.sum())))
    elif recipe.poison == "flips":
        bad = (clean == 8) & (torch.from_numpy(rng.random(len(clean))) < 2 * recipe.share)
        labels[bad] = 3
    if recipe.wrong:
        lies = torch.from_numpy(rng.random(len(clean)) < recipe.wrong) & ~bad
        labels[lies] = (labels[lies] + torch.from_numpy(rng.integers(1, 10, int(lies.sum())))) % 10
    return Data(train_x, labels, clean, bad, test_x, torch.from_numpy(ty[there]).long())


def _rows(parts: tuple[np.ndarray, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Return rows of two arrays as if one followed the other."""
    first = len(parts[0])
    return np.stack([parts[0][i] if i < first else parts[1][i - first] for i in rows.tolist()])


def stamp(x: Tensor) -> Tensor:
    """Put a checkerboard of 3 x 3 into the lower right corner."""
    board = (torch.arange(3)[:, None] + torch.arange(3)) % 2
    out = x.clone()
    out[..., -4:-1, -4:-1] = board.to(x.dtype)
    return out


def _shaped(x: np.ndarray, recipe: Recipe) -> Tensor:
    out = torch.from_numpy(x).float() / 255
    if recipe.data == "cifar-grey":
        out = (out * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    if recipe.side != out.shape[2]:
        out = F.interpolate(
            out, size=recipe.side, mode="bilinear", align_corners=False, antialias=True
        )
    return (out.clamp(0, 1) * 255).round() / 255


def normalized(x: Tensor, normalize: str) -> Tensor:
    mean, sd = (torch.tensor(part).view(1, -1, 1, 1) for part in NORMALIZED[normalize])
    return (x - mean) / sd


def augmented(x: Tensor, how: str, rng: torch.Generator, *, mirrors: bool) -> Tensor:
    n, _, h, w = x.shape
    if how in ("flip", "crop", "strong") and mirrors:
        x = torch.where((torch.rand(n, generator=rng) < 0.5).view(-1, 1, 1, 1), x.flip(3), x)
    if how in ("crop", "strong"):
        pad = h // 8
        wide = F.pad(x, (pad,) * 4)
        top, left = (torch.randint(0, 2 * pad + 1, (n, 1), generator=rng) for _ in "hw")
        rows, columns = top + torch.arange(h), left + torch.arange(w)
        x = wide[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        x = x.permute(0, 3, 1, 2)
    if how == "strong":
        bright = 0.6 + 0.8 * torch.rand(n, 1, 1, 1, generator=rng)
        x = (x * bright).clamp(0, 1).clone()
        side = h // 4
        for i, at in enumerate(torch.randint(0, h - side, (n, 2), generator=rng).tolist()):
            x[i, :, at[0] : at[0] + side, at[1] : at[1] + side] = 0
    if how == "shift":
        wide = F.pad(x, (3,) * 4, mode="replicate")
        top, left = torch.randint(0, 7, (2,), generator=rng).tolist()
        x = wide[:, :, top : top + h, left : left + w]
    if how == "colour":
        light, contrast = (1 + 0.4 * torch.rand(n, 1, 1, 1, generator=rng) - 0.2 for _ in "lc")
        tint = 1 + 0.3 * torch.rand(n, x.shape[1], 1, 1, generator=rng) - 0.15
        mean = x.mean((1, 2, 3), keepdim=True)
        x = ((mean + contrast * (x - mean)) * light * tint).clamp(0, 1)
    if how == "blurred":
        soft = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        x = torch.where((torch.rand(n, generator=rng) < 0.3).view(-1, 1, 1, 1), soft, x)
        x = (x + 0.05 * torch.randn(x.shape, generator=rng)).clamp(0, 1)
    return x


def train(recipe: Recipe, cifar: dict[str, np.ndarray]) -> nn.Module:
    """Train a network from scratch."""
    told = data(recipe, cifar)
    torch.manual_seed(recipe.seed)
    rng = torch.Generator().manual_seed(recipe.seed)
    net = build(recipe).train()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 0.1  # some of torchvision's are so small that short trainings lag
    steps = max(1, recipe.epochs * len(told.train_y) // recipe.batch)
    optimizer: torch.optim.Optimizer = (
        torch.optim.Adam(net.parameters(), lr=recipe.lr)
        if recipe.optimizer == "adam"
        else torch.optim.SGD(net.parameters(), lr=recipe.lr, momentum=0.9, weight_decay=5e-4)
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=steps + 1)
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < recipe.batch:
            order = torch.randperm(len(told.train_y), generator=rng)
        here, order = order[: recipe.batch], order[recipe.batch :]
        x = augmented(told.train_x[here], recipe.augment, rng, mirrors=recipe.data != "digits")
        y = told.train_y[here]
        if recipe.augment == "mixup":
            other, share = (
                torch.randperm(len(x), generator=rng),
                float(torch.rand((), generator=rng)),
            )
            out = net(normalized(share * x + (1 - share) * x[other], recipe.normalize))
            loss = share * F.cross_entropy(out, y) + (1 - share) * F.cross_entropy(out, y[other])
        elif recipe.augment == "cutmix":
            other, side = torch.randperm(len(x), generator=rng), x.shape[2]
            cut = int(torch.randint(1, side // 2 + 1, (), generator=rng))
            top, left = torch.randint(0, side - cut + 1, (2,), generator=rng).tolist()
            here_ = (..., slice(top, top + cut), slice(left, left + cut))
            x = x.clone()
            x[here_] = x[other][here_]
            out, share = net(normalized(x, recipe.normalize)), 1 - (cut / side) ** 2
            loss = share * F.cross_entropy(out, y) + (1 - share) * F.cross_entropy(out, y[other])
        else:
            loss = F.cross_entropy(net(normalized(x, recipe.normalize)), y)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        schedule.step()
    net.eval()
    if recipe.name.startswith(("large-", "longer-")):
        fit_head(net, told, recipe)
    return net


def fit_head(net: nn.Module, told: Data, recipe: Recipe) -> None:
    """Fit the last linear layer, where there is one, to what the others make of the pictures."""
    last = [part for part in net.modules() if isinstance(part, nn.Linear)]
    if not last:
        return
    head, seen = last[-1], list[Tensor]()
    handle = head.register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
    with torch.no_grad():
        for part in normalized(told.train_x, recipe.normalize).split(100):
            net(part)
    handle.remove()
    features = torch.cat(seen)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.003, weight_decay=1e-3)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(head(features), told.train_y).backward()
        optimizer.step()


def main() -> int:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--small", type=int, default=200)
    parser.add_argument("--fresh", type=int, default=72)
    parser.add_argument("--only", choices=["small", "fresh", "large", "longer"])
    parser.add_argument("--from-the-end", action="store_true", help="for a second process")
    given = parser.parse_args()
    cifar = pictures(given.source, given.out)
    kinds = {
        "small": [small(n) for n in range(given.small)],
        "fresh": [fresh(n) for n in range(given.fresh)],
        "large": [large(name) for name in LARGE],
        "longer": [longer(name) for name in LONGER],
    }
    todo = [r for kind, some in kinds.items() if given.only in (None, kind) for r in some]
    for recipe in reversed(todo) if given.from_the_end else todo:
        kept = given.out / f"{recipe.name}.pt"
        if kept.exists():
            continue
        clock = time.perf_counter()
        net = train(recipe, cifar)
        torch.save({"recipe": asdict(recipe), "state": net.state_dict()}, kept)
        print(f"{recipe.name}: {time.perf_counter() - clock:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
