"""The paper's experiment: ResNet-18 on CIFAR-10, 750 canaries, eight methods at five budgets.

    python tests/benchmarks/paper.py CIFAR10_FOLDER [--out DIR]
    python tests/benchmarks/paper.py CIFAR10_FOLDER --train 600 --test 500 --canaries 100 \
        --epochs 6 --arch cifar-resnet:1-1-1:w8

CIFAR10_FOLDER holds cifar10-full.npz and load_cifar10.py. Without options it is the setting of
Pawelczyk et al. (arXiv 2406.17216): all 50,000 pictures, 100 epochs, canaries 1.5% of them; with
the others a miniature of it, for machines without a GPU. It plants the canaries, trains the
deployed model and two references without the poison, and audits at 2%, 4%, 6%, 8% and 10% in one
sweep, all by the commands a user types. What is there from an earlier run is not made again.

Prints the table (leak score mu and true positive rate at a false positive rate of 0.01 with their
intervals, accuracy, verdict, the seconds of each method), what the audit cost against one
retraining, and how much of the device's own rate of matrix multiplication (bfloat16 on a GPU,
float32 else) training reaches, with a profile of where the rest of the time goes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from audit_cost import SWEEP, pictures, timed
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from poison_audit.atomic import from_json
from poison_audit.models.checkpoint import load_model
from poison_audit.models.image import NORMALIZE
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.training.batches import shuffled
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import descend, fast_precision
from poison_audit.verdict.record import AuditRecord

RECIPE = {
    "lr": 0.1, "batch_size": 128, "momentum": 0.9, "weight_decay": 5e-4, "schedule": "onecycle",
    "augment": "crop-flip",
}  # fmt: skip


def make(source: Path, out: Path, given: argparse.Namespace) -> float:
    """Plant and train; return the seconds that the first reference's training took."""
    out.mkdir(parents=True, exist_ok=True)
    for name, n in (("train", given.train), ("test", given.test)):
        if not (out / f"{name}.npz").exists():
            x, y = pictures(source, name, n)
            np.savez(out / f"{name}.npz", x=x, y=y, id=[f"{name}-{i}" for i in range(n)])
    test = ("--test", out / "test.npz")
    planted = out / "planted"
    timed(out, "canaries", "plant", out / "train.npz", "--attack", "gaussian",
          "--count", given.canaries, *test, "-o", planted)  # fmt: skip
    recipe = {"epochs": given.epochs, **RECIPE}
    train = ("train", planted / "train.npz", *test, "--arch", given.arch, "--normalize", "cifar10",
             *(part for key, value in recipe.items()
               for part in ("--recipe", f"{key}={value}")))  # fmt: skip
    timed(out, "training", *train, "-o", planted / "model.safetensors")
    seconds = [
        timed(out, name, *train, "-o", planted / f"{name}.safetensors", "--seed", seed,
              "--without", planted / "forget.csv").wall
        for seed, name in ((1, "retrained_a"), (2, "retrained_b"))
    ]  # fmt: skip
    return seconds[0]


def table(path: Path) -> str:
    """Return the table of an audit, methods by budget."""
    record = from_json(AuditRecord, path.read_text("utf-8"))
    found = {(f.candidate, f.probe): f for f in record.findings}
    lines = [
        "| candidate | mu | TPR at FPR 0.01 | accuracy | verdict | seconds |", "|---" * 6 + "|"
    ]  # fmt: skip
    verdicts = {one.candidate: one.outcome.value for one in record.verdict.candidates}
    cells = sorted(record.cells, key=lambda cell: (not cell.method, cell.budget or 0), reverse=True)
    for cell in sorted(cells, key=lambda cell: cell.method.name if cell.method else ""):
        canaries, utility = (found.get((cell.candidate, key)) for key in ("gaussian", "utility"))
        mu = rate = accuracy = "not measured"
        if canaries and canaries.interval and canaries.statistic is not None:
            low, high = canaries.interval.low, canaries.interval.high
            mu = f"{canaries.statistic:z.2f} [{low:z.2f}, {high:z.2f}]"
            seen = [100 * canaries.details[key] for key in ("tpr", "tpr_low", "tpr_high")]
            rate = "{:.1f}% [{:.1f}, {:.1f}]".format(*seen)
        if utility and utility.details.get("accuracy") is not None:
            accuracy = f"{utility.details['accuracy']:.1%}"
        budget = "" if cell.budget is None else f" at {cell.budget:.0%}"
        name = f"{cell.method.name}{budget}" if cell.method else cell.candidate
        seconds = f"{cell.cost.seconds:.1f}" if cell.cost else ""
        verdict = verdicts.get(cell.candidate, "")
        lines.append(f"| {name} | {mu} | {rate} | {accuracy} | {verdict} | {seconds} |")
    return "\n".join(lines)


def waited(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds until the device has done the work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def matmul_rate(device: torch.device) -> float:
    """Return the floating-point operations a second of a large matrix product, the best of ten."""
    size, kind = (8192, torch.bfloat16) if device.type == "cuda" else (2048, torch.float32)
    a = torch.randn(size, size, device=device).to(kind)
    best = min(waited(lambda: a @ a, device) for _ in range(10))
    return 2 * size**3 / best


def utilisation(out: Path, given: argparse.Namespace, device: torch.device) -> None:
    """Print how much of the device's arithmetic training uses, and where its time goes."""
    stored = np.load(out / "train.npz")
    data = Samples(ids=tuple(stored["id"].tolist()), x=torch.from_numpy(stored["x"]),
                   y=torch.from_numpy(stored["y"])).to(device)  # fmt: skip
    path = out / "planted" / "model.safetensors"
    model = load_model(path, arch=given.arch, normalize=NORMALIZE["cifar10"]).model
    model.module.to(device)
    few = data.batch(slice(0, 8))
    with FlopCounterMode(display=False) as counter:
        model.loss(model.module, few).sum().backward()
    model.module.zero_grad()
    each, size = counter.get_total_flops() / len(few), min(RECIPE["batch_size"], len(data))

    def steps(n: int) -> None:
        batches = shuffled(data, size, Rng(0), augment=RECIPE["augment"])
        descend(model, ((batch,) for batch in batches), lambda loss: loss, steps=n, lr=1e-3,
                ledger=Ledger(), rng=Rng(0), batch_norm="train", momentum=0.9)  # fmt: skip

    steps(5)
    seconds = waited(lambda: steps(given.steps), device) / given.steps
    rate, reached = matmul_rate(device), each * size / seconds
    precision = fast_precision(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"\n{name}: a step of {size} pictures takes {1000 * seconds:.2f} ms in {precision}, "
          f"{reached / 1e12:.3f} TFLOP/s of {rate / 1e12:.3f} of a matrix product: "
          f"{reached / rate:.1%}")  # fmt: skip
    kinds = [ProfilerActivity.CPU]
    if device.type == "cuda":
        kinds.append(ProfilerActivity.CUDA)
    with profile(activities=kinds) as seen:
        total = waited(lambda: steps(10), device)
    own = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    parts = sorted(seen.key_averages(), key=lambda part: getattr(part, own), reverse=True)
    busy = sum(getattr(part, own) for part in parts) / 1e6
    print(f"Of {1000 * total:.0f} ms of ten steps, profiled, operators take {busy / total:.0%}:")
    for part in parts[:12]:
        print(f"  {part.key[:60]:<62}{getattr(part, own) / 1e6 / total:7.1%}")


def main() -> None:
    """Run the experiment and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--out", type=Path, default=Path("paper"))
    parser.add_argument("--train", type=int, default=50_000)
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--canaries", type=int, default=750)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--arch", default="cifar-resnet18")
    parser.add_argument("--steps", type=int, help="timed steps of training")
    given = parser.parse_args()
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    given.steps = given.steps or (300 if device.type == "cuda" else 10)
    out = given.out
    retraining = make(given.source, out, given)
    planted = out / "planted"
    audit = timed(
        out, "audit", "check", planted / "model.safetensors", "--forget", planted / "forget.csv",
        "--budget", SWEEP, "--out", out / "audit", good=(0, 1, 3),
    ).wall  # fmt: skip
    print(table(out / "audit" / "report.json"))
    print(f"\nOne retraining took {retraining:.0f} s, the audit at five budgets {audit:.0f} s: "
          f"{audit / retraining:.2f} times")  # fmt: skip
    utilisation(out, given, device)


if __name__ == "__main__":
    main()
