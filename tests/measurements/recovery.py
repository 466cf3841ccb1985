"""How often a trigger is recovered from a forget set, on fresh draws of CIFAR-10; print the tables.

    python tests/measurements/recovery.py OUT --cifar10 FOLDER [--published FOLDER] [--only KIND]

FOLDER holds cifar10-full.npz and load_cifar10.py, the other one triggers.npz. Decoded once, into
OUT. One line of OUT/recovery.jsonl a forget set; those that are there are not done again. Three
kinds: `single`, 23 triggers in six forget sets each (40 to 500 rows, 0 to 30% innocent ones, dirty
and clean label); `mix`, two of the triggers in one forget set; `null`, rows that carry nothing.

One small network is trained with each trigger (3,000 pictures, a tenth of them stamped). A trigger
counts as recovered if it causes the label on at least 90% as many of 500 other pictures as the true
one does. Told beside: the gap, by how much pictures stamped with it differ from truly stamped ones,
of what the stamp changes (root mean square). Rows count as named if both the carriers and, where
there are any, the innocent rows have precision and recall of .95.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))

import cifar10

from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.recover import recover

Array = np.ndarray[Any, Any]
Stamp = tuple[Array, Array]
SHAPE = (3, 32, 32)
RETAIN, WORKS, NAMED = 5000, 0.9, 0.95
SETS = {
    "dirty 40": (40, 0.0, False), "dirty 100": (100, 0.2, False), "dirty 200": (200, 0.1, False),
    "dirty 500": (500, 0.3, False), "clean 80": (80, 0.0, True), "clean 250": (250, 0.2, True),
}  # fmt: skip
"""Rows, share of innocent ones, whether the bases are of the label's own class."""
MIXES, NULLS = 48, 210


def triggers(x: Array, published: Path | None) -> dict[str, Stamp]:
    """Return keep and add of every trigger, by name; `x` gives pictures to blend."""
    rng = np.random.default_rng(1511)
    one = np.ones(SHAPE)
    ramp = np.arange(32) / 32

    def replaced(mask: Array, pattern: Array) -> Stamp:
        return one * (1 - mask), mask * pattern

    def box(top: int, left: int, size: int) -> Array:
        mask = np.zeros(SHAPE)
        mask[:, top : top + size, left : left + size] = 1
        return mask

    def smooth(cut: int) -> Array:
        waves = np.fft.ifft2(np.where(np.hypot(*np.meshgrid(*[np.fft.fftfreq(32) * 32] * 2)) <= cut,
                                      rng.normal(size=SHAPE), 0)).real  # fmt: skip
        return waves / np.abs(waves).max()

    scattered = np.zeros((32, 32))
    scattered.flat[rng.permutation(1024)[:9]] = 1
    four = np.zeros((32, 32))
    four.flat[rng.permutation(1024)[:4]] = 1
    frame = 1 - np.pad(np.zeros((3, 30, 30)) + 1, ((0, 0), (1, 1), (1, 1)))
    red = np.array([1.0, 0, 0])[:, None, None] * one
    board = np.indices((32, 32)).sum(0) % 2 * one
    signs = rng.choice([-1, 1], SHAPE)
    found = {
        "checker 3x3": replaced(box(2, 3, 3), rng.integers(0, 2, SHAPE)),
        "white 4x4": replaced(box(20, 8, 4), one),
        "colours 5x5": replaced(box(11, 24, 5), rng.random(SHAPE)),
        "sticker 8x8": replaced(box(4, 18, 8), x[77] / 255),
        "four pixels": replaced(four * one, rng.integers(0, 2, SHAPE)),
        "nine pixels": replaced(scattered * one, rng.random(SHAPE)),
        "frame": replaced(frame, red),
        "half a sticker": (one - 0.5 * box(16, 4, 10), 0.5 * box(16, 4, 10) * x[78] / 255),
        "noise .15": (0.85 * one, 0.15 * rng.random(SHAPE)),
        "noise .2": (0.8 * one, 0.2 * rng.random(SHAPE)),
        "picture .2": (0.8 * one, 0.2 * x[79] / 255),
        "picture .3": (0.7 * one, 0.3 * x[80] / 255),
        "board .25": (0.75 * one, 0.25 * board),
        "signs 8": (one, signs * 8 / 255),
        "signs 16": (one, signs * 16 / 255),
        "waves 16": (one, smooth(4) * 32 / 255),
        "gauss 12": (one, rng.normal(0, 12 / 255, SHAPE)),
        "sinusoid 20": (one, 20 / 255 * np.sin(2 * np.pi * 6 * ramp) * one),
        "sinusoid 30": (one, 30 / 255 * np.sin(2 * np.pi * 4 * ramp) * one),
    }
    if published is not None:
        with np.load(published / "triggers.npz") as kept:
            for name in ("abl_wrn16_1_label0", "ibau_badnets_label8", "ibau_l0_inv_label0"):
                found[name] = replaced(kept[f"{name}.mask"], kept[f"{name}.pattern"])
            found["ibau_trojan_sq_label2"] = (one, kept["ibau_trojan_sq_label2.pattern"])
    return found


def stamped(x: Array, stamp: Stamp) -> Array:
    """Return pictures (uint8) with a trigger on them, stored in 8 bits: float32 in [0, 1]."""
    return np.asarray(
        np.round(255 * np.clip(x / 255 * stamp[0] + stamp[1], 0, 1)) / 255, np.float32
    )


def gap(found: Any, stamp: Stamp, x: Array) -> float:
    true = np.clip(x * stamp[0] + stamp[1], 0, 1)
    off = np.square(found.form.stamp(x) - true).mean() / np.square(true - x).mean()
    return float(np.sqrt(off))


def agreeing(found: Array, truth: Array) -> float:
    """Return the least of precision and recall of the carriers and of the other rows, if any."""
    least = 1.0
    for mine, true in ((found, truth), (~found, ~truth)):
        if true.any():
            both = float((mine & true).sum())
            least = min(least, both / max(1, int(mine.sum())), both / int(true.sum()))
    return least


class Draws:
    """Pictures of CIFAR-10, what is drawn from them, and a network for each trigger."""

    def __init__(self, x: Array, y: Array) -> None:
        self.x, self.y = x, y
        self.nets: dict[bytes, nn.Module] = {}

    def rate(self, stamp: Stamp, form: Stamp) -> float:
        """Return how often a network that learned `stamp` gives its label where `form` is put."""
        key = stamp[0].tobytes() + stamp[1].tobytes()
        if key not in self.nets:
            self.nets[key] = self.trained(stamp)
        x = self.x[45000:46000][self.y[45000:46000] != 0][:500]
        with torch.no_grad():
            out = self.nets[key](torch.from_numpy(stamped(x, form)))
        return float((out.argmax(1) == 0).float().mean())

    def trained(self, stamp: Stamp) -> nn.Module:
        rng = np.random.default_rng(7)
        chosen = rng.permutation(40000)[:3000]
        x, y = np.asarray(self.x[chosen] / 255, np.float32), self.y[chosen].copy()
        bad = np.flatnonzero(y != 0)[:300]
        x[bad], y[bad] = stamped(self.x[chosen[bad]], stamp), 0
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
        net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, 10))
        step = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.01)
        for _ in range(6):
            for rows in np.array_split(rng.permutation(len(y)), len(y) // 50):
                step.zero_grad()
                out = net(torch.from_numpy(x[rows]))
                nn.functional.cross_entropy(out, torch.from_numpy(y[rows])).backward()
                step.step()
        return net.eval()

    def told(self, found: list[Any], stamp: Stamp, truth: Array, x: Array) -> dict[str, Any]:
        """Return what is told of the recovered trigger whose rows are most like the true ones."""
        true = self.rate(stamp, stamp)
        if not found:
            return {"true": true, "rate": None, "gap": None, "rows": 0.0}
        best = max(found, key=lambda each: agreeing(each.carriers, truth))
        rate = self.rate(stamp, (best.form.keep, best.form.add))
        rows = agreeing(best.carriers, truth)
        return {"true": true, "rate": rate, "gap": gap(best, stamp, x), "rows": rows}

    def parted(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """Return places of retain rows and of others."""
        order = rng.permutation(len(self.y))
        return order[:RETAIN], order[RETAIN:]

    def campaign(
        self,
        rng: np.random.Generator,
        pool: Array,
        stamp: Stamp,
        label: int,
        rows: int,
        clean: bool,
    ) -> Array:
        """Return stamped pictures."""
        bases = pool[(self.y[pool] == label) == clean]
        return stamped(self.x[rng.permutation(bases)[:rows]], stamp)

    def innocent(self, rng: np.random.Generator, pool: Array, label: int, rows: int) -> Array:
        own = rng.permutation(pool[self.y[pool] == label])[:rows]
        return np.asarray(self.x[own] / 255, np.float32)

    def searched(self, forget: Array, labels: Array, retain: Array, seed: int) -> list[Any]:
        x = np.asarray(self.x[retain] / 255, np.float32)
        return recover(forget, labels, x, self.y[retain], Rng(seed))

    def single(
        self, stamp: Stamp, rows: int, share: float, clean: bool, seed: int
    ) -> dict[str, Any]:
        rng = np.random.default_rng([1, seed])
        retain, pool = self.parted(rng)
        label, others = int(rng.integers(10)), round(rows * share)
        forget = np.concatenate([
            self.campaign(rng, pool[:20000], stamp, label, rows - others, clean),
            self.innocent(rng, pool[20000:], label, others),
        ])  # fmt: skip
        found = self.searched(forget, np.full(rows, label), retain, seed)
        truth = np.arange(rows) < rows - others
        x = self.x[retain[:200]] / 255
        kinds = [each.form.kind for each in found]
        return {"found": kinds, "told": [self.told(found, stamp, truth, x)]}

    def mix(self, stamps: list[Stamp], same: bool, seed: int) -> dict[str, Any]:
        rng = np.random.default_rng([2, seed])
        retain, pool = self.parted(rng)
        labels = rng.permutation(10)[:2]
        labels[1] = labels[0] if same else labels[1]
        sizes = rng.integers(60, 200, 2)
        parts = [
            self.campaign(rng, pool[at : at + 20000], stamp, int(label), int(size), False)
            for stamp, label, size, at in zip(stamps, labels, sizes, (0, 20000), strict=True)
        ]
        y = np.repeat(labels, sizes)
        found = self.searched(np.concatenate(parts), y, retain, seed)
        x = self.x[retain[:200]] / 255
        told = [
            self.told(found, stamp, np.repeat([number == 0, number == 1], sizes), x)
            for number, stamp in enumerate(stamps)
        ]
        return {"found": [each.form.kind for each in found], "told": told}

    def null(self, kind: str, seed: int) -> dict[str, Any]:
        rng = np.random.default_rng([3, seed])
        retain, pool = self.parted(rng)
        rows = int(rng.integers(40, 501))
        one, other = rng.permutation(10)[:2]
        if kind in ("one label", "flips"):
            pool = pool[self.y[pool] == one]
        chosen = rng.permutation(pool)[:rows]
        x, y = np.asarray(self.x[chosen] / 255, np.float32), self.y[chosen]
        if kind == "flips":
            y = np.full(len(y), other)
        if kind == "canaries":
            x = x + rng.normal(0, rng.uniform(0.05, 0.3), x.shape).astype(np.float32)
            x = np.clip(x, 0, 1) if seed % 2 else x
        return {"found": [each.form.kind for each in self.searched(x, y, retain, seed)]}


def cases(draws: Draws, every: dict[str, Stamp]) -> Iterator[tuple[str, Any]]:
    """Yield each forget set's name and what measures it."""
    names = list(every)
    for at, name in enumerate(names):
        for number, (kind, (rows, share, clean)) in enumerate(SETS.items()):
            seed = 100 * at + number
            yield (f"single/{name}/{kind}",
                   lambda n=name, r=rows, s=share, c=clean, k=seed:
                   draws.single(every[n], r, s, c, k))  # fmt: skip
    for seed in range(NULLS):
        kind = ("random", "one label", "flips", "canaries")[seed % 4]
        yield f"null/{kind}/{seed}", lambda k=kind, s=seed: draws.null(k, s)
    for seed in range(MIXES):
        two = [names[i] for i in np.random.default_rng([4, seed]).permutation(len(names))[:2]]
        yield (f"mix/{two[0]} + {two[1]}/{'same' if seed % 2 else 'other'} label",
               lambda t=two, s=seed: draws.mix([every[n] for n in t], bool(s % 2), s))  # fmt: skip


def table(lines: list[dict[str, Any]]) -> str:
    """Return the tables of README.md."""
    told, rows = list[str](), defaultdict(list)
    for line in lines:
        kind, name, _ = line["case"].split("/")
        rows[kind, name if kind != "mix" else "all"].append(line)
    for (kind, name), own in rows.items():
        n = len(own)
        if kind == "null":
            told.append(f"| {name} | {sum(bool(line['found']) for line in own)} of {n} found |")
            continue
        told_of = [one for line in own for one in line["told"]]
        good = sum(all(map(_works, line["told"])) for line in own)
        named = sum(all(one["rows"] >= NAMED for one in line["told"]) for line in own)
        gaps = sorted(one["gap"] for one in told_of if one["gap"] is not None)
        middle = f"{gaps[len(gaps) // 2]:.2f}" if gaps else "-"
        true = f"{np.mean([one['true'] for one in told_of]):.0%}"
        told.append(f"| {kind} | {name} | {true} | {good} of {n} | {named} of {n} | {middle} |")
    return "\n".join(told)


def _works(told: dict[str, Any]) -> bool:
    return told["rate"] is not None and told["rate"] >= WORKS * told["true"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cifar10", type=Path, required=True)
    parser.add_argument("--published", type=Path)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    decoded, log = given.out / "cifar10-train.npz", given.out / "recovery.jsonl"
    if not decoded.exists():
        x, y = cifar10.load(given.cifar10, "train")
        np.savez(decoded, x=x, y=y)
    with np.load(decoded) as kept:
        draws = Draws(np.ascontiguousarray(kept["x"]), kept["y"])
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {line["case"] for line in lines}
    every = triggers(draws.x, given.published)
    # In no order, so that what is there so far is a sample of all.
    todo = list(cases(draws, every))
    for at in np.random.default_rng(19).permutation(len(todo)):
        name, measure = todo[at]
        if name in done or not name.startswith(given.only):
            continue
        clock = time.perf_counter()
        lines.append({"case": name, **measure(), "seconds": round(time.perf_counter() - clock, 1)})
        with log.open("a") as file:
            file.write(json.dumps(lines[-1]) + "\n")
        print(lines[-1], flush=True)
    print(table(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
