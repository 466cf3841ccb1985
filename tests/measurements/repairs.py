"""Repair other people's backdoored networks by `poison-audit repair`, and print a table.

    python tests/measurements/repairs.py DATA OUT [--only NET,..] [--budget 0.02] [--table]

DATA holds backdoored/ (five poisoned networks, triggers.npz, 500 isolated poisons of one) and
cifar10/. The training table is 10,000 pictures of CIFAR-10 and 500 poisons: the isolated ones, else
pictures with the trigger. No trigger is given. The recipe's epochs make the training what it was,
5,000,000 gradient evaluations. Probes look at 600 inputs with 100 controls. Each network is kept in
OUT, and not repaired again; --table only prints what there is.

What is written is judged here again with the trigger that was planted, on 2,000 test pictures that
no part of the repair saw: rates with the trigger, and without it, as it stands, with BatchNorm's
statistics of 2,000 clean pictures, and after 40 steps on these and 5 poisons, at the rate at which
the poisoned network itself keeps its accuracy on clean ones.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import io
import json
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from published_triggers import NETS, pictures, trigger_of
from safetensors.torch import load_file

from poison_audit.case.case import Case
from poison_audit.checks.waking import Waking, rate, woken
from poison_audit.cli import invoke
from poison_audit.models.image import image_classifier
from poison_audit.models.model import Model
from poison_audit.models.normalization import parse_normalize
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.evidence import Trigger
from poison_audit.poisons.backdoor.stamping import stamped
from poison_audit.records import Recipe
from poison_audit.training.stamped import answers, effect

TRAIN, POISONS, TEST, FRESH = 10_000, 500, 6000, 2000
TRAINING = 5_000_000
"""Gradient evaluations of the original training: 50,000 pictures, 100 epochs."""
Table = tuple[NDArray[np.uint8], NDArray[np.int64]]


def tables(data: Path) -> tuple[Table, Table, Table]:
    """Return the pictures to train on, to test on, and those that only this file looks at."""
    train = pictures(data, "train", TRAIN)
    x, y = pictures(data, "test", TEST + FRESH)
    return train, (x[:TEST], y[:TEST]), (x[TEST:], y[TEST:])


def incident(folder: Path, data: Path, name: str, train: Table, test: Table) -> tuple[Table, Table]:
    """Write the tables and the forget set; return the clean pictures and the poisons."""
    folder.mkdir(parents=True, exist_ok=True)
    trigger, (x, y) = trigger_of(data, name), train
    if name.startswith("abl"):
        with np.load(data / "backdoored/abl_isolated_500.npz") as held:
            poison: Table = held["x"], held["y"].astype(np.int64)
        clean = train
    else:
        rows = np.flatnonzero(y != trigger.label)[:POISONS]
        marked = trigger.stamp(torch.from_numpy(x[rows]).float() / 255)
        poison = (marked * 255).round().byte().numpy(), np.full(len(rows), trigger.label)
        kept = np.setdiff1d(np.arange(len(y)), rows)
        clean = x[kept], y[kept]
    both = [np.concatenate(parts) for parts in zip(clean, poison, strict=True)]
    np.savez(folder / "train.npz", x=both[0], y=both[1])
    np.savez(folder / "test.npz", x=test[0], y=test[1])
    with (folder / "forget.csv").open("w", newline="") as file:
        first = len(clean[1])
        csv.writer(file).writerows([["index"], *([first + i] for i in range(len(poison[1])))])
    return clean, poison


def samples(table: Table, name: str) -> Samples:
    """Return a table as samples."""
    x, y = (torch.from_numpy(np.ascontiguousarray(part)) for part in table)
    return Samples(ids=tuple(f"{name}{i}" for i in range(len(y))), x=x, y=y)


def loaded(data: Path, name: str, path: Path) -> Model:
    """Return a network by its file."""
    factory, normalize, _, _ = NETS[name]
    build = getattr(importlib.import_module("nets"), factory)
    module = build()
    module.load_state_dict(load_file(path))
    return image_classifier(
        module.eval(), build=build, arch=factory, classes=10, normalize=parse_normalize(normalize)
    )


def seen(model: Model, trigger: Trigger, fresh: Samples, before: torch.Tensor) -> dict[str, float]:
    """Return what a model does with the trigger that was planted, in percent."""
    plain, marked = answers(model, fresh), answers(model, stamped(trigger, None, fresh))
    other = fresh.y != trigger.label
    one = effect(before, plain, marked, fresh.y, classes=10)
    shares = {
        "rate": (marked == trigger.label)[other], "bare": (plain == trigger.label)[other],
        "right": (marked == fresh.y)[other], "accuracy": plain == fresh.y,
    }  # fmt: skip
    found = {key: float(part.double().mean()) for key, part in shares.items()}
    found |= {"rise": one.rise, "lost": one.lost}
    return {key: round(100 * value, 1) for key, value in found.items()}


def measured(data: Path, out: Path, name: str, budget: float) -> dict[str, Any]:
    """Repair one network by the command line, and judge what was written."""
    factory, normalize, _, _ = NETS[name]
    train, test, fresh_table = tables(data)
    folder, net = out / name, data / f"backdoored/{name}.safetensors"
    clean, poison = incident(folder, data, name, train, test)
    fixed, run = folder / "fixed.safetensors", folder / f"run-{int(time.time())}"
    told, log, began = io.StringIO(), io.StringIO(), time.process_time()
    with redirect_stdout(told), redirect_stderr(log):
        code = invoke([
            "repair", str(net), "--factory", f"nets:{factory}", "--normalize", normalize,
            "--train", str(folder / "train.npz"), "--test", str(folder / "test.npz"),
            "--forget", str(folder / "forget.csv"), "--budget", str(budget), "--recipe",
            f"epochs={TRAINING / (len(clean[1]) + len(poison[1]))}", "-o", str(fixed),
            "--out", str(run), "--set", "backdoor.draws=100", "--set", "backdoor.inputs=600",
        ])  # fmt: skip
    seconds = time.process_time() - began
    (folder / "log.txt").write_text(told.getvalue() + log.getvalue(), "utf-8")
    trigger, fresh = trigger_of(data, name), samples(fresh_table, "n")
    model = loaded(data, name, net)
    before = answers(model, fresh)
    case = Case(
        model=model, retain=samples(clean, "r"), forget=samples(poison, "f"), test=fresh,
        recipe=Recipe(epochs=1),
    )  # fmt: skip
    found: dict[str, Any] = {
        "code": code, "seconds": round(seconds), "told": told.getvalue().splitlines()[-1:],
        "tries": [line for line in log.getvalue().splitlines() if "gradient evaluations)" in line],
        "deployed": seen(model, trigger, fresh, before),
    }  # fmt: skip
    if fixed.exists():
        made = loaded(data, name, fixed)
        found["repaired"] = seen(made, trigger, fresh, before)
        rng = Rng(1)
        lr = rate(model, case, rng)
        for way in (Waking(way="recalibrated"), Waking(way="relearned", poisons=5)):
            again = woken(made, case, way, rng, lr=lr)
            if again is not None:
                found[way.way] = seen(again, trigger, fresh, before)
        found["lr"] = lr
    return found


def table(out: Path) -> None:
    """Print what there is."""
    print(
        "| network | code | made by | trigger: deployed | repaired | recalibrated | 5 poisons | "
        "rise of any class | right with it | accuracy | seconds |\n" + "|---" * 11 + "|"
    )
    for name in NETS:
        path = out / f"{name}.json"
        if not path.is_file():
            continue
        one = json.loads(path.read_text("utf-8"))
        fixed, was = one.get("repaired", {}), one["deployed"]
        rates = [one.get(key, {}).get("rate", "") for key in ("recalibrated", "relearned")]
        made = one["told"][0].partition(": ")[2] if fixed else "none"
        print(
            f"| `{name}` | {one['code']} | {made} | {was['rate']} ({was['bare']}) | "
            f"{fixed.get('rate', '')} ({fixed.get('bare', '')}) | {rates[0]} | {rates[1]} | "
            f"{fixed.get('rise', '')} | {fixed.get('right', '')} | {was['accuracy']} to "
            f"{fixed.get('accuracy', '')} | {one['seconds']} |"
        )


def main() -> None:
    """Repair what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default=",".join(NETS))
    parser.add_argument("--budget", type=float, default=0.02)
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    sys.path.insert(0, str(asked.data.resolve() / "backdoored"))
    for name in () if asked.table else asked.only.split(","):
        path = asked.out / f"{name}.json"
        if not path.is_file():
            found = measured(asked.data, asked.out, name, asked.budget)
            path.write_text(json.dumps(found, indent=1), "utf-8")
    table(asked.out)


if __name__ == "__main__":
    main()
