"""The paper's experiment on a CPU, with every poison of pictures in one training on CIFAR-10.

    python tests/measurements/full_size.py CIFAR10_FOLDER OUT [--arch A] [--epochs N]
    python tests/measurements/full_size.py CIFAR10_FOLDER OUT --train 1200 --test 600 --epochs 3 \
        --arch cifar-speed:w8-16-16 --canaries 60 --backdoor 40 --aims 4 --poisons 20 --wrong 30

CIFAR10_FOLDER holds cifar10-full.npz and load_cifar10.py. Planted, one after the other: 750
Gaussian canaries (1.5%, the proportion of Pawelczyk et al., arXiv 2406.17216), a patch on 500
pictures (1%), ten named targets with 50 poisons each, crafted with a clean network of three epochs,
and 500 wrong labels. Then the deployed model and two references are trained, all methods audited at
2%, 6% and 10% of the training, and a repair looked for. All by the commands a user types. What is
there from an earlier run is not made again, and what was interrupted goes on.

Prints a row for the deployed model, each method at 10%, the references and the repair: accuracy,
mu, exposure, the trigger's rate, targets hit, wrong labels adopted, verdict, seconds; and what the
audit cost against one retraining.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from audit_cost import Time, pictures, timed

from poison_audit.atomic import from_json
from poison_audit.records import Cell, Finding
from poison_audit.verdict.record import AuditRecord

BUDGETS = "0.02,0.06,0.1"
SHOWN = 0.1
"""The budget of the table."""
REFERENCES = ("retrained_a", "retrained_b")


def make(source: Path, out: Path, given: argparse.Namespace) -> dict[str, Time]:
    """Plant every poison and train every network; return what it took."""
    out.mkdir(parents=True, exist_ok=True)
    for name, n in (("train", given.train), ("test", given.test)):
        if not (out / f"{name}.npz").exists():
            x, y = pictures(source, name, n)
            np.savez(out / f"{name}.npz", x=x, y=y, id=[f"{name}-{i}" for i in range(n)])
    test = ("--test", out / "test.npz")
    net = ("--arch", given.arch, "--normalize", "cifar10")
    recipe = ("--recipe", "fast", "--recipe", f"epochs={given.epochs}")
    surrogate, took = out / "surrogate.safetensors", dict[str, Time]()
    took["surrogate"] = timed(
        out, "surrogate", "train", out / "train.npz", *test, *net, "--recipe", "fast",
        "--recipe", "epochs=3", "--seed", 9, "-o", surrogate,
    )  # fmt: skip
    plantings: dict[str, tuple[object, ...]] = {
        "gaussian": ("--count", given.canaries),
        "backdoor": ("--label", 0, "--count", given.backdoor),
        "targeted": (
            "--model", surrogate, "--aims", given.aims, "--count", given.poisons,
            "--epsilon", 32 / 255,
        ),
        "mislabelled": ("--count", given.wrong),
    }  # fmt: skip
    table = out / "train.npz"
    for attack, more in plantings.items():
        here = out / f"planted-{attack}"
        took[attack] = timed(
            out, attack, "plant", table, "--attack", attack, *more, *test, "-o", here
        )
        table = here / "train.npz"
    train = ("train", table, *test, *net, *recipe)
    last = table.parent
    took["training"] = timed(out, "training", *train, "-o", last / "model.safetensors")
    for seed, name in enumerate(REFERENCES, start=1):
        took[name] = timed(
            out, name, *train, "--seed", seed, "--without", last / "forget.csv",
            "-o", last / f"{name}.safetensors",
        )  # fmt: skip
    return took


def audit(out: Path) -> dict[str, Time]:
    """Audit, and look for a repair; return what both took."""
    last = out / "planted-mislabelled"
    case = (last / "model.safetensors", "--forget", last / "forget.csv")
    against = tuple(part for name in REFERENCES
                    for part in ("--reference", last / f"{name}.safetensors"))  # fmt: skip
    good = (0, 1, 3)
    return {
        "audit": timed(
            out, "audit", "check", *case, *against, "--budget", BUDGETS, "--out", out / "audit",
            good=good,
        ),
        "repair": timed(
            out, "repair", "repair", *case, *against, "--out", out / "repair",
            "-o", out / "repaired.safetensors", good=good,
        ),
    }  # fmt: skip


def figure(finding: Finding | None, *, scale: float = 1, digits: int = 2, unit: str = "") -> str:
    """Return a figure with its interval."""
    if finding is None or finding.statistic is None or finding.interval is None:
        return ""
    value, low, high = (
        f"{scale * x:z.{digits}f}"
        for x in (finding.statistic, finding.interval.low, finding.interval.high)
    )
    return f"{value}{unit} [{low}, {high}]"


def row(record: AuditRecord, cell: Cell) -> str:
    """Return the line of a candidate."""
    found = {f.probe: f for f in record.findings if f.candidate == cell.candidate}

    def detail(probe: str, key: str) -> Any:
        return None if probe not in found else found[probe].details.get(key)

    accuracy, rate = detail("utility", "accuracy"), detail("backdoor", "rate")
    hits, targets = detail("targeted", "hits"), found.get("targeted")
    if accuracy is None and cell.candidate == "deployed":
        accuracy = record.sanity.correct / record.sanity.total
    verdict = {v.candidate: v.outcome.value for v in record.verdict.candidates}
    shown = [
        cell.candidate,
        "" if accuracy is None else f"{accuracy:.1%}",
        figure(found.get("gaussian")),
        figure(found.get("exposure")),
        "" if rate is None else f"{rate:.1%}",
        "" if hits is None or targets is None else f"{hits} of {targets.sample_size}",
        figure(found.get("mislabelled"), scale=100, digits=1),
        verdict.get(cell.candidate, ""),
        f"{cell.cost.seconds:.0f}" if cell.cost else "",
    ]
    return f"| {' | '.join(shown)} |"


def main() -> None:
    """Run what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--arch", default="cifar-speed:w32-128-128")
    parser.add_argument("--epochs", type=int, default=10)
    for name, default in (
        ("train", 50_000), ("test", 10_000), ("canaries", 750), ("backdoor", 500), ("aims", 10),
        ("poisons", 50), ("wrong", 500),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    took = {**make(given.source, given.out, given), **audit(given.out)}
    print("| candidate | accuracy | mu | exposure | trigger | targets hit | wrong labels, points "
          "above chance | verdict | seconds |")  # fmt: skip
    print("|---" * 9 + "|")
    for run in ("audit", "repair"):
        record = from_json(AuditRecord, (given.out / run / "report.json").read_text("utf-8"))
        for cell in record.cells:
            if run == "audit" and cell.budget not in (None, SHOWN):
                continue
            if run == "audit" or cell.kind != "reference":
                print(row(record, cell))
    whole = took[REFERENCES[0]]
    print("\n| what | seconds | processor seconds | of a retraining |\n|---|---|---|---|")
    for name, one in took.items():
        share = one.processor / whole.processor
        print(f"| {name} | {one.wall:.0f} | {one.processor:.0f} | {share:.2f} |")


if __name__ == "__main__":
    main()
