"""How an audit's time and memory grow: with samples, canaries, methods, and parameters.

    python tests/benchmarks/scaling.py [--runs 3]

One thread, random pictures of 3x16x16, a CIFAR-stem ResNet of one block a stage. Each row doubles
one quantity, all else as in the middle; the exponent is that of the power law fitted to the fastest
of the runs, so that 1 is linear. Time is the processor's of all cells (the first eight methods that
need no evidence, at a tenth of ten epochs, and all probes that need no reference).

Memory is what a process of its own grows by at its peak, once model and data are loaded (Linux):
for three steps of training with momentum, and for audits by one, four and eight methods, at batch
128, width 32, pictures of 3x32x32.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from poison_audit.case.case import Case
from poison_audit.case.load import Trial
from poison_audit.checks.sanity import check_sanity
from poison_audit.engine.probes import PROBES, probe_parameters
from poison_audit.engine.run import run
from poison_audit.methods import METHODS, UNLEARNING, parameters
from poison_audit.models.image import CifarResNet, CifarResNetSpec, image_classifier
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.evidence import patch
from poison_audit.poisons.gaussian.evidence import Canaries
from poison_audit.poisons.gaussian.trial import PlantedCanaries
from poison_audit.records import Plan, Recipe, Step
from poison_audit.training.batches import shuffled
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import descend
from poison_audit.verdict.policy import standard_policy

SHAPE, BATCH = (3, 16, 16), 128
SAMPLES, CANARIES, WIDTH = 1000, 64, 8


def trial(
    *,
    samples: int = SAMPLES,
    canaries: int = CANARIES,
    width: int = WIDTH,
    shape: tuple[int, int, int] = SHAPE,
) -> Trial:
    """Return a case of random pictures: its numbers mean nothing, its cost is a real one's."""

    def build() -> CifarResNet:
        return CifarResNet(CifarResNetSpec((1, 1, 1, 1), width), channels=3, classes=10)

    draws = Rng(0).named("pictures").torch()

    def pictures(name: str, n: int) -> Samples:
        return Samples(
            ids=tuple(f"{name}{i}" for i in range(n)),
            x=torch.randint(256, (n, *shape), generator=draws, dtype=torch.uint8),
            y=torch.randint(10, (n,), generator=draws),
        )

    model = image_classifier(build(), build=build, arch="", classes=10, channels_last=True).fresh(
        Rng(0)
    )
    model.module.eval()
    names = tuple(f"c{i}" for i in range(canaries))
    key = Canaries(
        secret=bytes(32), sigma=0.1, space="pixel", shape=shape, storage="unclipped",
        planted=names, held_out=tuple(f"h{i}" for i in range(canaries)),
    )  # fmt: skip
    bases = pictures("base", canaries)
    noise, held_out = (
        torch.from_numpy(key.noise(ids).astype(np.float32)) for ids in (names, key.held_out)
    )
    planted = PlantedCanaries(
        key=key, names=names, bases=bases, noise=noise, held_out_noise=held_out
    )
    forget = Samples(ids=names, x=bases.batch().x + noise, y=bases.y)
    retain = pictures("retain", samples - canaries)
    trigger = patch(torch.rand(3, 4, 4, generator=draws), shape, top=0, left=0, label=0)
    case = Case(
        model=model, retain=Samples(ids=retain.ids, x=retain.batch().x, y=retain.y),
        forget=forget, test=pictures("test", samples // 4),
        recipe=Recipe(epochs=10, lr=0.01, batch_size=BATCH, momentum=0.9),
        evidence={"gaussian": planted, "backdoor": trigger},
        attacks=("gaussian",) * canaries,
    )  # fmt: skip
    case, _ = check_sanity(case, alpha=0.05)
    return Trial(case=case, contenders=(), subject={}, limits=(), files=())


def seconds(subject: Trial, methods: tuple[str, ...]) -> float:
    """Return the processor seconds of all cells."""
    plan = Plan(
        methods=tuple(Step(name=name, params=parameters(name)) for name in methods),
        probes=tuple(Step(name=n, params=probe_parameters(n)) for n in PROBES),
        policy=standard_policy(),
    )
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        cells = run(subject, plan, Path(folder), key="")
        spent = time.process_time() - start
    if wrong := [cell.error for cell in cells if cell.error]:
        raise SystemExit(f"{wrong[0]}")
    return spent


def growth(methods: int) -> float:
    """Return by how many MiB this process grows: in steps of training (0), or in an audit."""
    subject = trial(samples=2000, width=32, shape=(3, 32, 32))
    # The peak of importing and loading is forgotten.
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    if methods:
        seconds(subject, UNLEARNING[:methods])
    else:
        batches = ((batch,) for batch in shuffled(subject.case.retain, BATCH, Rng(0)))
        descend(
            subject.case.model.clone(), batches, lambda mean: mean, steps=3, lr=0.01,
            ledger=Ledger(), rng=Rng(0), momentum=0.9, batch_norm="train",
        )  # fmt: skip
    return resident("VmHWM") - before


def resident(key: str) -> float:
    """Return a line of this process's memory, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(key)]
    return int(line.split()[1]) / 1024


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--alone", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.alone is not None:
        print(growth(given.alone))
        return
    small = trial(samples=200)
    fit = tuple(name for name in UNLEARNING if not METHODS[name].unfit(small.case))[:8]
    seconds(small, fit)  # warms up
    rows: dict[str, Any] = {
        "samples": [({"samples": n}, fit) for n in (2000, 4000, 8000)],
        "canaries": [({"canaries": n}, fit) for n in (128, 256, 512)],
        "methods": [({}, fit[:n]) for n in (1, 2, 4, 8)],
        "width": [({"width": n}, fit) for n in (4, 8, 16)],
    }
    print(f"{'':<12}{'seconds':<36}exponent")
    for name, settings in rows.items():
        sizes, times = [], []
        for sizing, methods in settings:
            subject = trial(**sizing)
            sizes.append(next(iter(sizing.values()), len(methods)))
            times.append(min(seconds(subject, methods) for _ in range(given.runs)))
        slope = np.polyfit(np.log(sizes), np.log(times), 1)[0]
        told = ", ".join(f"{n}: {t:.1f}" for n, t in zip(sizes, times, strict=True))
        print(f"{name:<12}{told:<36}{slope:8.2f}", flush=True)
    print(f"\n{'memory':<28}MiB")
    command = [sys.executable, __file__, "--alone"]
    for methods in (0, 1, 4, 8):
        done = subprocess.run([*command, str(methods)], check=True, capture_output=True, text=True)
        name = f"audit by {methods} methods" if methods else "three steps of training"
        print(f"{name:<28}{float(done.stdout):.0f}", flush=True)


if __name__ == "__main__":
    main()
