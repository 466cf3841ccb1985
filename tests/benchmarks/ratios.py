"""Two versions of the project side by side, in turn: their processor and wall time, and the ratios.

    python tests/benchmarks/ratios.py BEFORE/bin/python AFTER/bin/python [--runs 3] [--only check]

Each interpreter has one version installed (`git worktree add BEFORE COMMIT`, a virtual environment
each). Both audit the fixture of digits of the version that this file is of. It prints the least
processor and wall seconds of each, their ratios, whether all outcomes are equal, and how far scores
are apart. `ssd` and `step` are parts of an audit alone: the importances of 400 pictures, and 40
training steps of 64; `loop` is a plain loop in float32, its pictures laid out plainly.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

DIGITS = Path(__file__).parents[2] / "fixtures" / "digits"
GIVEN = ["model.safetensors", "--forget", "forget.csv", "--quiet"]
MODEL = """
import time, torch
from poison_audit.models.checkpoint import load_model
from poison_audit.case.tables import read_table
from poison_audit.models.seeds import Rng
from poison_audit.training.ledger import Ledger
from pathlib import Path
model = load_model(Path("model.safetensors"), normalize=((0.0,), (1.0,))).model
samples = read_table(Path("train.npz")).at(range(400))
clock = lambda: (time.process_time(), time.perf_counter())
"""
PARTS = {
    "ssd": """
from poison_audit.methods.ssd import fisher_diagonal
fisher_diagonal(model, samples.at(range(8)))
start = clock()
fisher_diagonal(model, samples)
""",
    "step": """
from poison_audit.training.loop import descend_on
from poison_audit.records import Recipe
def steps(n):
    descend_on(model.clone(), samples, Recipe(batch_size=64), Rng(0), ledger=Ledger(), lr=0.01,
               steps=n)
steps(2)
start = clock()
steps(40)
""",
    "loop": """
net = model.clone().module.to(memory_format=torch.contiguous_format).train()
sgd = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
def steps(n):
    for step in range(n):
        batch = samples.batch(torch.randperm(400)[:64])
        sgd.zero_grad()
        torch.nn.functional.cross_entropy(net(batch.x), batch.y).backward()
        sgd.step()
steps(2)
start = clock()
steps(40)
""",
}
COMMANDS = {
    "check": ["check", *GIVEN],
    "probe": ["probe", *GIVEN],
    "help": ["--help"],
    "methods": ["methods"],
    "verify": ["verify", "{out}/probe"],
}


def measured(python: str, what: str, out: Path) -> tuple[float, float]:
    """Return processor and wall seconds of a command, or of a part of an audit alone."""
    if what in PARTS:
        code = f"{MODEL}{PARTS[what]}\nprint(*(b - a for a, b in zip(start, clock())))"
        told = subprocess.run(
            [python, "-c", code], cwd=DIGITS, check=True, capture_output=True, text=True
        ).stdout.split()
        return float(told[0]), float(told[1])
    given = [part.format(out=out) for part in COMMANDS[what]]
    given += ["--out", str(out / what)] if what in ("check", "probe") else []
    start = time.perf_counter()
    process = subprocess.Popen(
        [python, "-m", "poison_audit", *given], cwd=DIGITS, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _, _, used = os.wait4(process.pid, 0)
    return used.ru_utime + used.ru_stime, time.perf_counter() - start


def scores(report: Path) -> Iterator[tuple[str, float]]:
    """Yield every figure of a report's findings, and every one that a probe saw."""
    record = json.loads(report.read_text(encoding="utf-8"))
    for cell in record["cells"]:
        for seen in cell["measurements"]:
            for key, value in (seen["evidence"] or {}).items():
                numbers = value if isinstance(value, list) else [value]
                if all(isinstance(each, int | float) for each in numbers):
                    for number, each in enumerate(numbers):
                        yield f"{cell['candidate']} {seen['probe']} {key} {number}", float(each)


def outcomes(report: Path) -> list[tuple[str, str, str]]:
    """Return the outcome of every finding."""
    record = json.loads(report.read_text(encoding="utf-8"))
    found = record["findings"]
    return [(each["candidate"], each["probe"], each["outcome"]) for each in found]


def compare(what: str, before: Path, after: Path) -> str:
    """Say whether two reports say the same."""
    one, other = (dict(scores(out / what / "report.json")) for out in (before, after))
    same = outcomes(before / what / "report.json") == outcomes(after / what / "report.json")
    apart = {key: abs(one[key] - other[key]) for key in one.keys() & other.keys()}
    deployed = [apart[key] for key in apart if key.split()[0] in ("deployed", "retrained_a")]
    return (
        f"outcomes {'equal' if same else 'NOT equal'}; {len(apart):,} figures in both, "
        f"{sum(each > 1e-5 for each in apart.values())} apart by more than 1e-5, of models that no "
        f"method made {sum(each > 1e-5 for each in deployed)}, at most {max(deployed):.1e}"
    )


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("python", nargs=2, help="the interpreters before and after")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[*COMMANDS, *PARTS])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outs = [Path(folder) / name for name in ("before", "after")]
        for what in given.only:
            found: list[list[tuple[float, float]]] = [[], []]
            for _ in range(given.runs):
                for python, out, mine in zip(given.python, outs, found, strict=True):
                    mine.append(measured(python, what, out))
            (cpu, wall), (new_cpu, new_wall) = (
                [min(each[place] for each in mine) for place in (0, 1)] for mine in found
            )
            print(
                f"{what:<8} before {cpu:6.2f} CPU s {wall:6.2f} s, after {new_cpu:6.2f} CPU s "
                f"{new_wall:6.2f} s, ratio {new_cpu / cpu:.2f} and {new_wall / wall:.2f}",
                flush=True,
            )
            if what in ("check", "probe"):
                print(f"         {compare(what, *outs)}", flush=True)


if __name__ == "__main__":
    main()
