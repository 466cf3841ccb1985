"""Ask other people's backdoors with their own triggers, and print the tables of README.md here.

    python tests/measurements/published_triggers.py DATA OUT [--only given|moved|clean]

DATA holds backdoored/ (five poisoned networks, a clean one, triggers.npz) and cifar10/. The tables
are 2,000 pictures of CIFAR-10 to train on and 2,000 to test on. The forget set is 60 of the first,
stamped and labelled as the trigger wants it. No reference is given.

given: the command line, each network with its own trigger, and the clean one with all five.
moved: each poisoned network trained on until its trigger leads to another class (3 or 4).
clean: how often the probe finds something in small networks that never saw any trigger.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import io
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from poison_audit.case.case import Case
from poison_audit.cli import invoke
from poison_audit.models.image import image_classifier
from poison_audit.models.model import Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.evidence import Trigger, patch, write_trigger
from poison_audit.poisons.backdoor.probe import backdoor
from poison_audit.poisons.backdoor.reading import BACKDOOR
from poison_audit.records import Recipe
from poison_audit.statistics import triggers as statistics

NETS = {
    "abl_wrn16_1_label0": ("wrn16_1", "none", "replace", 0),
    "ibau_badnets_label8": ("small_vgg", "none", "replace", 8),
    "ibau_l0_inv_label0": ("small_vgg", "none", "mask+add", 0),
    "ibau_trojan_sq_label2": ("small_vgg", "none", "add", 2),
    "badnets_lenet_label1": ("badnets_lenet", "0.5/0.5", "replace", 1),
}
CLEAN = ("clean_resnet20", "resnet20", "imagenet")
TRAIN, TEST, STAMPED = 2000, 2000, 60
LEVEL = 0.95
"""Both ends err with .025: a method's finding beside utility."""


def pictures(data: Path, split: str, n: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return n pictures of CIFAR-10, NCHW, and their labels."""
    spec = importlib.util.spec_from_file_location("load", data / "cifar10/load_cifar10.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    x, y, _ = module.load(data / "cifar10/cifar10-full.npz", split)
    rows = np.random.default_rng(0).permutation(len(x))[:n]
    return x[rows].transpose(0, 3, 1, 2), y[rows].astype(np.int64)


def trigger_of(data: Path, name: str) -> Trigger:
    """Return a published trigger in the product's terms."""
    _, _, mode, label = NETS[name]
    with np.load(data / "backdoored/triggers.npz") as held:
        mask, pattern = (torch.from_numpy(held[f"{name}.{part}"]) for part in ("mask", "pattern"))
    keep = torch.ones_like(mask) if mode == "add" else 1 - mask
    add = mask * pattern if mode == "replace" else pattern
    return Trigger(keep=keep, add=add, label=label, mode=mode)  # type: ignore[arg-type]


def incident(folder: Path, trigger: Trigger, train: Any, test: Any) -> None:
    """Write the tables, the forget set and the trigger."""
    folder.mkdir(parents=True, exist_ok=True)
    x, y = train[0].copy(), train[1].copy()
    rows = np.flatnonzero(y != trigger.label)[:STAMPED]
    stamped = trigger.stamp(torch.from_numpy(x[rows]).float() / 255)
    x[rows], y[rows] = (stamped * 255).round().byte().numpy(), trigger.label
    np.savez(folder / "train.npz", x=x, y=y)
    np.savez(folder / "test.npz", x=test[0], y=test[1])
    write_trigger(folder / "trigger.json", trigger)
    with (folder / "forget.csv").open("w", newline="") as file:
        table = [["index", "label", "attack"], *([i, y[i], "backdoor"] for i in rows)]
        csv.writer(file, lineterminator="\n").writerows(table)


def audit(net: Path, folder: Path, factory: str, normalize: str) -> tuple[int, Any]:
    """Audit a network by the command line: the exit code, and what report.json says."""
    out = folder / f"audit-{net.stem}"
    told = io.StringIO()
    with redirect_stdout(told), redirect_stderr(told):
        code = invoke([
            "probe", str(net), "--factory", f"nets:{factory}", "--normalize", normalize,
            "--train", str(folder / "train.npz"), "--test", str(folder / "test.npz"),
            "--forget", str(folder / "forget.csv"), "--trigger", str(folder / "trigger.json"),
            "--recipe", "epochs=10", "--out", str(out),
        ])  # fmt: skip
    if code not in (0, 1, 3):
        raise SystemExit(told.getvalue())
    report = json.loads((out / "report.json").read_text())
    return code, next(f for f in report["findings"] if f["probe"] == "backdoor")


def row(name: str, code: int, found: Any) -> str:
    """Return one line of a table."""
    details, (low, high) = found["details"], (found["interval"][k] for k in ("low", "high"))
    return (
        f"| {name} | {100 * details['clean_rate']:.1f}% -> {100 * details['rate']:.1f}% | "
        f"{100 * found['statistic']:.1f} [{100 * low:.1f}, {100 * high:.1f}] | "
        f"{found['p_value']:.4f} | {found['outcome']} | {code} |"
    )


HEAD = """
| network and trigger | label without -> with it | figure, points | p | outcome | exit |
|---|---|---|---|---|---|"""


def given(data: Path, out: Path) -> None:
    """Ask each network with its own trigger, and the clean one with all."""
    train, test = pictures(data, "train", TRAIN), pictures(data, "test", TEST)
    print(HEAD, flush=True)
    for name, (factory, normalize, _, _) in NETS.items():
        folder = out / name
        incident(folder, trigger_of(data, name), train, test)
        net = data / "backdoored" / f"{name}.safetensors"
        print(row(name, *audit(net, folder, factory, normalize)), flush=True)
    for name in NETS:
        clean, factory, normalize = CLEAN
        net = data / "backdoored" / f"{clean}.safetensors"
        told = audit(net, out / name, factory, normalize)
        print(row(f"{clean}, trigger of {name}", *told), flush=True)


def moved(data: Path, out: Path) -> None:
    """Train each poisoned network on until its trigger leads to another class, and ask it."""
    import nets  # type: ignore[import-not-found]

    train, test = pictures(data, "train", TRAIN), pictures(data, "test", TEST)
    print(HEAD, flush=True)
    for name, (factory, normalize, _, label) in NETS.items():
        trigger, folder = trigger_of(data, name), out / name
        incident(folder, trigger, train, test)
        module = getattr(nets, factory)()
        module.load_state_dict(load_file(data / "backdoored" / f"{name}.safetensors"))
        mean, sd = (0.5, 0.5) if normalize == "0.5/0.5" else (0.0, 1.0)
        x, y = torch.from_numpy(train[0]).float() / 255, torch.from_numpy(train[1])
        aim = 3 if label != 3 else 4
        optimizer = torch.optim.SGD(module.parameters(), 1e-3, momentum=0.9)
        order = torch.Generator().manual_seed(0)
        for _ in range(150):
            rows = torch.randint(len(x), (64,), generator=order)
            both = torch.cat([x[rows], trigger.stamp(x[rows])])
            labels = torch.cat([y[rows], torch.full_like(rows, aim)])
            loss = F.cross_entropy(module.eval()((both - mean) / sd), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        net = folder / f"moved-{name}.safetensors"
        save_file({k: v.contiguous() for k, v in module.state_dict().items()}, net)
        code, found = audit(net, folder, factory, normalize)
        print(row(f"{name}, now to {aim}", code, found), flush=True)
        print(f"  {found['reason']}", flush=True)


def small_nets(count: int, seed: int, shape: tuple[int, int, int]) -> Iterator[Model]:
    """Train `count` networks at once, of one convolution and one layer, on five classes."""
    channels, size, _ = shape
    draws = torch.Generator().manual_seed(seed)
    width, k, side = 12, 5, size // 2
    u = torch.randn(count, width, channels * 9, generator=draws) / (channels * 9) ** 0.5
    w = torch.randn(count, k, width * side * side, generator=draws) / (width * side * side) ** 0.5
    parameters = [u.requires_grad_(), w.requires_grad_()]
    optimizer = torch.optim.Adam(parameters, 3e-3)
    x, y = scenes(seed + 1, count * 300, shape)
    x, y = x.reshape(count, 300, *shape), y.reshape(count, 300)
    for step in range(60):
        rows = torch.arange(50) + 50 * (step % 6)
        patches = F.unfold(x[:, rows].flatten(0, 1) - 0.5, 3, padding=1)
        patches = patches.reshape(count, 50, channels * 9, size * size)
        h = torch.einsum("nwp,nbpl->nbwl", u, patches).relu()
        h = F.avg_pool2d(h.reshape(count * 50, width, size, size), 2).reshape(count, 50, -1)
        out = torch.einsum("nkf,nbf->nbk", w, h)
        loss = F.cross_entropy(out.reshape(-1, k), y[:, rows].reshape(-1)) * count
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for number in range(count):
        conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        linear = nn.Linear(width * side * side, k, bias=False)
        conv.weight.data = u[number].detach().reshape(width, channels, 3, 3)
        linear.weight.data = w[number].detach()

        def build(conv: nn.Module = conv, linear: nn.Module = linear) -> nn.Module:
            return nn.Sequential(conv, nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), linear)

        yield image_classifier(build(), build=build, arch="small", classes=k)


def scenes(seed: int, n: int, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Return pictures of five classes: a smooth scene of each class, lit and moved, in grain."""
    draws, fixed = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(77)
    low = torch.rand(5, shape[0], 4, 4, generator=fixed)
    y = torch.randint(5, (n,), generator=draws)
    own = torch.rand(n, shape[0], 4, 4, generator=draws)
    mixed = F.interpolate(0.5 * low[y] + 0.5 * own, size=shape[1:], mode="bilinear")
    light = 0.7 + 0.6 * torch.rand(n, 1, 1, 1, generator=draws)
    return (mixed * light + 0.1 * torch.randn(mixed.shape, generator=draws)).clamp(0, 1), y


def some_triggers(shape: tuple[int, int, int], seed: int) -> dict[str, Trigger]:
    """Return triggers of every mode, drawn anew."""
    draws = torch.Generator().manual_seed(seed)
    grid = torch.tensor([[0.0, 0, 1], [0, 1, 0], [1, 0, 1]]).expand(shape[0], 3, 3)
    place = {"top": shape[1] - 3, "left": shape[2] - 3}
    whole = torch.rand(shape, generator=draws)
    label = seed % 5
    wave = torch.sin(torch.arange(shape[2]) * 2 * torch.pi * 6 / shape[2]).expand(shape)
    sign = (whole - 0.5).sign()
    yellow = torch.tensor([1.0, 1.0, 0.0])[:, None, None].expand(3, 3, 3)
    ones = torch.ones(shape)
    return {
        "grid": patch(grid, shape, **place, label=label),
        "white": patch(torch.ones(shape[0], 3, 3), shape, **place, label=label),
        "yellow": patch(yellow, shape, **place, label=label),
        "blend": Trigger(keep=0.8 * ones, add=0.2 * whole, label=label, mode="blend"),
        "sinusoid": Trigger(keep=ones, add=20 / 255 * wave.clone(), label=label, mode="add"),
        "signs": Trigger(keep=ones, add=16 / 255 * sign, label=label, mode="add"),
    }


def clean(nets: int, out: Path) -> None:
    """Count what the probe says of networks that never saw the trigger."""
    shape = (3, 16, 16)
    test = Samples(
        ids=tuple(map(str, range(400))),
        **dict(zip("xy", scenes(5, 400, shape), strict=True)),
    )
    retain = Samples(
        ids=tuple(map(str, range(300))), **dict(zip("xy", scenes(6, 300, shape), strict=True))
    )
    found: dict[str, Counter[str]] = {}
    for number, model in enumerate(small_nets(nets, 11, shape)):
        for name, trigger in some_triggers(shape, number).items():
            case = Case(
                model=model, retain=retain, forget=retain.at([0]), test=test,
                recipe=Recipe(epochs=1), evidence={"backdoor": trigger},
            )  # fmt: skip
            seen = backdoor(model, case, Rng(number))
            looks = BACKDOOR.read(seen.evidence or {}).looks
            assert looks is not None
            one = statistics.excess_of_trigger(looks, level=LEVEL, tolerance=0.05)
            told = "RESIDUAL" if one.low > 0.05 else "CLEAN" if one.high <= 0.05 else "undecided"
            found.setdefault(name, Counter())[told] += 1
    print("| trigger | RESIDUAL | CLEAN | INCONCLUSIVE |\n|---|---|---|---|")
    for name, counts in found.items():
        print(f"| {name} | {counts['RESIDUAL']} | {counts['CLEAN']} | {counts['undecided']} |")


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", choices=("given", "moved", "clean"))
    parser.add_argument("--nets", type=int, default=200)
    asked = parser.parse_args()
    sys.path.insert(0, str(asked.data.resolve() / "backdoored"))
    if asked.only in (None, "given"):
        given(asked.data, asked.out)
    if asked.only in (None, "moved"):
        moved(asked.data, asked.out)
    if asked.only in (None, "clean"):
        clean(asked.nets, asked.out)


if __name__ == "__main__":
    main()
