"""What a whole audit costs against the retraining that it may save, on real CIFAR-10.

    python tests/benchmarks/audit_cost.py CIFAR10_FOLDER [--out DIR] [--train 4000] [--width 16]
        [--parts audit,reaudit,repair,sweep]

CIFAR10_FOLDER holds cifar10-full.npz and load_cifar10.py. At the paper's proportions (Pawelczyk et
al., arXiv 2406.17216: 100 epochs, canaries 1.5% of the training set) it plants canaries and a
backdoor, names ten targets, trains the deployed model and, timed, a reference without the poison;
then it audits by all methods, with every probe of pictures and both hypotheses: at a tenth, the
same with --reaudit, and at five budgets in one sweep; and repairs. All by the commands a user
types, each in a process of its own. What is there already from an earlier run is not made again,
and keeps its time.

Prints seconds and processor seconds, their ratios to the retraining's, and where the audit's
seconds went. Processor seconds tell more where the machine has other work.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CODE = "import sys; from poison_audit.cli import invoke; sys.exit(invoke(sys.argv[1:]))"
SWEEP = "0.02,0.04,0.06,0.08,0.1"


def pictures(folder: Path, split: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `n` pictures, NCHW uint8, and their labels, drawn at random."""
    spec = importlib.util.spec_from_file_location("load_cifar10", folder / "load_cifar10.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"no load_cifar10.py in {folder}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    x, y, _ = module.load(folder / "cifar10-full.npz", split)
    chosen = np.random.default_rng(0).permutation(len(y))[:n]
    return x[chosen].transpose(0, 3, 1, 2), y[chosen]


@dataclass(frozen=True, slots=True)
class Time:
    """What a command took, in seconds."""

    wall: float
    processor: float


def timed(out: Path, name: str, *arguments: object, good: tuple[int, ...] = (0,)) -> Time:
    """Run a command of poison-audit, unless it ran before; return what it took."""
    note = out / f"{name}.seconds"
    if not note.exists():
        print(f"{name} ...", file=sys.stderr, flush=True)
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-c", CODE, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode not in good:
            raise SystemExit(f"{name} ended with exit code {done.returncode}:\n{done.stderr}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        note.write_text(f"{time.perf_counter() - start} {spent}")
    return Time(*map(float, note.read_text().split()))


def forecast(*arguments: object) -> float:
    """Return how many seconds a dry run says that an audit will take."""
    command = [sys.executable, "-c", CODE, *map(str, arguments), "--dry-run", "-q"]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    (line,) = [line for line in told.splitlines() if line.startswith("in all, about")]
    units = {"h": 3600.0, "min": 60.0, "s": 1.0}
    return sum(float(n) * units[unit] for n, unit in re.findall(r"([\d.]+) (h|min|s)", line))


def make(source: Path, out: Path, given: argparse.Namespace) -> Time:
    """Plant and train; return what the reference's training took."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "test.npz").exists():
        for name, split, n in (("train", "train", given.train), ("test", "test", given.test)):
            x, y = pictures(source, split, n)
            np.savez(out / f"{name}.npz", x=x, y=y, id=[f"{name}-{i}" for i in range(n)])
        with (out / "targets.csv").open("w", newline="", encoding="utf-8") as file:
            rows = [[f"test-{i}", int(label), (int(label) + 1) % 10] for i, label in
                    enumerate(np.load(out / "test.npz")["y"][:10])]  # fmt: skip
            csv.writer(file).writerows([["id", "label", "adversarial"], *rows])
    test = ("--test", out / "test.npz")
    timed(out, "canaries", "plant", out / "train.npz", "--attack", "gaussian",
          "--budget", given.canaries, *test, "-o", out / "one")  # fmt: skip
    timed(out, "backdoor", "plant", out / "one/train.npz", "--attack", "backdoor", "--label", 0,
          "--budget", 0.01, *test, "-o", out / "two")  # fmt: skip
    recipe = {
        "epochs": given.epochs, "lr": 0.1, "batch_size": 128, "momentum": 0.9,
        "weight_decay": 5e-4, "schedule": given.schedule, "augment": given.augment,
    }  # fmt: skip
    arch = f"cifar-resnet:1-1-1-1:w{given.width}"
    train = ("train", out / "two/train.npz", *test, "--arch", arch, "--normalize",
             "cifar10", *(part for key, value in recipe.items()
                                         for part in ("--recipe", f"{key}={value}")))  # fmt: skip
    timed(out, "training", *train, "-o", out / "two/model.safetensors")
    without = ("--without", out / "two/forget.csv", "--seed", 1)
    return timed(out, "retraining", *train, "-o", out / "two/retrained.safetensors", *without)


def spent(report: Path) -> dict[str, float]:
    """Return the seconds of an audit by what they went to."""
    record = json.loads(report.read_text("utf-8"))
    parts: dict[str, float] = defaultdict(float)
    for cell in record["cells"]:
        if cell["cost"]:
            parts[cell["method"]["name"]] += cell["cost"]["seconds"]
        parts["probes"] += cell["probe_seconds"]
    parts["reading, hypotheses, report"] = record["environment"]["seconds"] - sum(parts.values())
    return parts


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--out", type=Path, default=Path("audit-cost"))
    parser.add_argument("--train", type=int, default=4000)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--canaries", type=float, default=0.015)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--schedule", default="onecycle")
    parser.add_argument("--augment", default="crop-flip")
    parser.add_argument("--parts", default="audit,reaudit,repair,sweep")
    given = parser.parse_args()
    out, parts = given.out, given.parts.split(",")
    retraining = make(given.source, out, given)
    case = [out / "two/model.safetensors", "--forget", out / "two/forget.csv",
            "--test", out / "test.npz", "--targets", out / "targets.csv",
            "--reference", out / "two/retrained.safetensors"]  # fmt: skip
    ways: dict[str, list[object]] = {
        "audit": ["check", *case, "--budget", "0.1"],
        "reaudit": ["check", *case, "--budget", "0.1", "--reaudit"],
        "sweep": ["check", *case, "--budget", SWEEP],
        "repair": ["repair", *case, "-o", out / "repaired.safetensors"],
    }
    told = {"retraining": retraining}
    forecasts = {}
    for name in parts:
        told[name] = timed(out, name, *ways[name], "--out", out / name, good=(0, 1, 3))
        if name != "repair":
            forecasts[name] = forecast(*ways[name])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    size = f"{given.train} training pictures, width {given.width}, {given.epochs} epochs"
    print(f"{size}, {cores} cores")
    for name, took in told.items():
        ratios = took.wall / retraining.wall, took.processor / retraining.processor
        print(
            f"{name:<12}{took.wall:8.0f} s {ratios[0]:5.2f}"
            f"{took.processor:8.0f} processor s {ratios[1]:5.2f}"
        )
    for name, seconds in forecasts.items():
        print(f"{name} as forecast {seconds:.0f} s")
    for name in forecasts:
        print(f"\n{name}:")
        for part, seconds in spent(out / name / "report.json").items():
            print(f"  {part:<28}{seconds:8.1f} s {seconds / retraining.wall:8.3f}")


if __name__ == "__main__":
    main()
