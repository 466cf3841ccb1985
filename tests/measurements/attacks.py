"""Plant each attack, train, audit, and print the tables that stand in README.md here.

    python tests/measurements/attacks.py OUT [--cifar10 FOLDER] [--attack NAME ..]

Without --cifar10 on the digits of fixtures/digits (1,097 clean training pictures, 700 test
pictures); with it on 2,000 training and 10,000 test pictures of CIFAR-10 (FOLDER holds
cifar10-full.npz and load_cifar10.py). Every step is a command line, which is printed: `train` for
surrogates, `plant`, `train` on the poisoned table, `train --without` for two references, `check`
with every method at 10%, `check` of the first reference. What is there already is not made again.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import cifar10

from poison_audit.atomic import from_json
from poison_audit.cli import invoke
from poison_audit.records import Finding
from poison_audit.verdict.record import AuditRecord

DIGITS = Path(__file__).parents[2] / "fixtures/digits"
PROBES = {
    "gaussian": ("gaussian", "exposure"),
    "targeted": ("targeted",),
    "backdoor": ("backdoor",),
    "indiscriminate": ("indiscriminate",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A data set and how it is trained on."""

    train: Path
    test: Path
    arch: str
    normalize: str
    recipe: Mapping[str, object]
    plants: Mapping[str, Sequence[str]]
    """Options of `plant`, by attack."""
    surrogates: Mapping[str, Sequence[int]]
    """Epochs of the surrogates that an attack is crafted with."""
    tolerances: Mapping[str, Sequence[str]]
    """Options of `check`, by attack."""


def digits() -> Setting:
    return Setting(
        train=DIGITS / "clean.npz",
        test=DIGITS / "test.npz",
        arch="cifar-resnet:1-1-1-1:w8",
        normalize="none",
        recipe={"epochs": 30, "lr": 0.1, "batch_size": 64, "schedule": "onecycle"},
        plants={
            "gaussian": ("--budget", "0.36"),
            "targeted": ("--count", "21", "--epsilon", "0.251"),
            "backdoor": ("--label", "3", "--budget", "0.05"),
            "indiscriminate": ("--flip", "8:3", "--steps", "0", "--budget", "0.1"),
        },
        surrogates={"targeted": (10, 5, 5)},
        tolerances={"indiscriminate": ("--tolerance", "indiscriminate=0.02")},
    )


def cifar(source: Path, out: Path) -> Setting:
    for split, size in (("train", 2000), ("test", None)):
        if not (out / f"{split}.npz").exists():
            out.mkdir(parents=True, exist_ok=True)
            x, y = cifar10.load(source, split)
            chosen = np.random.default_rng(2406).permutation(len(y))[:size]
            ids = [f"{split}-{i}" for i in chosen]
            np.savez_compressed(out / f"{split}.npz", id=ids, x=x[chosen], y=y[chosen])
    return Setting(
        train=out / "train.npz",
        test=out / "test.npz",
        arch="cifar-resnet:1-1-1-1:w16",
        normalize="cifar10",
        recipe={
            "epochs": 15,
            "lr": 0.1,
            "batch_size": 100,
            "schedule": "onecycle",
            "weight_decay": 5e-4,
        },
        plants={
            "targeted": ("--count", "20", "--epsilon", "0.126"),
            "backdoor": ("--label", "3", "--budget", "0.05"),
            "indiscriminate": ("--flip", "8:3", "--steps", "0", "--budget", "0.1"),
        },
        surrogates={"targeted": (15, 8, 8)},
        tolerances={
            "backdoor": ("--set", "backdoor.inputs=400", "--set", "backdoor.draws=99"),
        },
    )


def run(*words: object) -> int:
    command = [str(word) for word in words]
    print("$ poison-audit", shlex.join(command), flush=True)
    clock = time.perf_counter()
    code = invoke(command)
    print(f"  exit {code}, {time.perf_counter() - clock:.0f} s", flush=True)
    return code


def measure(setting: Setting, attack: str, out: Path) -> None:
    recipe = [f"--recipe={key}={value}" for key, value in setting.recipe.items()]
    made = ["--arch", setting.arch, "--normalize", setting.normalize, *recipe]
    surrogates = []
    for number, epochs in enumerate(setting.surrogates.get(attack, ())):
        path = out / "surrogates" / f"{number}-{epochs}.safetensors"
        if not path.exists():
            run("train", setting.train, *made, f"--recipe=epochs={epochs}", "-o", path,
                "--seed", 70 + number, "-q")  # fmt: skip
        surrogates += ["--model", path]
    folder = out / attack
    poisoned, forget = folder / "train.npz", folder / "forget.csv"
    if not poisoned.exists():
        run("plant", setting.train, "--attack", attack, "--test", setting.test, "-o", folder,
            *surrogates, *setting.plants[attack])  # fmt: skip
    for seed, name, without in ((0, "model", False), (1, "ref_a", True), (2, "ref_b", True)):
        if not (folder / f"{name}.safetensors").exists():
            rest = ["--without", forget] if without else []
            run("train", poisoned, *made, "-o", folder / f"{name}.safetensors", "--seed", seed,
                "-q", *rest)  # fmt: skip
    more = setting.tolerances.get(attack, ())
    run("check", folder / "model.safetensors", "--forget", forget, "--out", folder / "audit", "-q",
        *more)  # fmt: skip
    run("check", folder / "ref_a.safetensors", "--forget", forget, "--methods", "none", "--out",
        folder / "audit-ref", "-q", "--reference", folder / "ref_b.safetensors", *more)  # fmt: skip
    print(table(folder / "audit" / "report.json", PROBES[attack]), flush=True)


def table(path: Path, columns: Sequence[str]) -> str:
    """Return README.md's table of one audit."""
    record = from_json(AuditRecord, path.read_text(encoding="utf-8"))
    lines = [f"| candidate | {' | '.join(columns)} | accuracy | verdict |"]
    lines.append("|---" * (len(columns) + 3) + "|")
    for candidate in record.verdict.candidates:
        found = {f.probe: f for f in record.findings if f.candidate == candidate.candidate}
        told = [_told(found[name]) for name in columns]
        accuracy = found["utility"].details.get("accuracy")
        right = "" if accuracy is None else f"{accuracy:.1%}"
        cells = " | ".join(told)
        lines.append(f"| {candidate.candidate} | {cells} | {right} | {candidate.outcome.value} |")
    return "\n".join(lines)


def _told(finding: Finding) -> str:
    if finding.statistic is None or finding.interval is None:
        return "not measured"
    low, high = finding.interval.low, finding.interval.high
    if finding.probe in ("gaussian", "exposure", "token-canary"):
        return f"{finding.statistic:z.2f} [{low:z.2f}, {high:z.2f}]"
    text = f"{100 * finding.statistic:+z.1f} [{100 * low:z.1f}, {100 * high:z.1f}]"
    rate = finding.details.get("rate")
    return text if rate is None else f"{rate:.1%}, excess {text}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cifar10", type=Path)
    parser.add_argument("--attack", nargs="+", choices=sorted(PROBES))
    given = parser.parse_args()
    setting = digits() if given.cifar10 is None else cifar(given.cifar10, given.out)
    for attack in given.attack or setting.plants:
        measure(setting, attack, given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
