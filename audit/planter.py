"""What `plant` does: a clean table -> a poisoned copy, its forget.csv and the evidence it needs."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from audit.attacks.gaussian import plant_gaussian
from audit.attacks.indiscriminate import plant_canceling, plant_flips
from audit.attacks.poisoned import Poisoned
from audit.attacks.targeted import choose_targets, plant_targeted
from audit.attacks.trigger import checkerboard, plant_trigger
from audit.commands import listed
from audit.config import write_config
from audit.data.canaries import Canaries, new_secret, read_canaries, write_canaries
from audit.data.samples import Samples
from audit.data.tables import read_table
from audit.data.targets import Targets, read_targets, write_targets
from audit.data.trigger import Trigger, read_trigger, write_trigger
from audit.errors import InputError, PlanError, Problem
from audit.files import write_atomically
from audit.models.checkpoint import load_model, parse_normalize
from audit.models.model import Model
from audit.seeds import Rng

T = TypeVar("T")

_FIXES = {
    "model": "`poison-audit train` makes one",
    "test": "A clean test table",
    "flip": "For example --flip 8:3",
}
BUDGETS = {"gaussian": 0.05, "targeted": 0.02, "backdoor": 0.05, "indiscriminate": 0.1}
"""Share of the training table that is poisoned; of a targeted attack, for each target."""
OPTIONS = {
    "sigma": ("gaussian",),
    "key": ("gaussian",),
    "label": ("backdoor",),
    "patch": ("backdoor",),
    "trigger": ("backdoor",),
    "clean_label": ("backdoor",),
    "targets": ("targeted",),
    "aims": ("targeted",),
    "flip": ("indiscriminate",),
    "steps": ("targeted", "indiscriminate"),
    "restarts": ("targeted",),
    "epsilon": ("targeted", "backdoor"),
    "model": ("targeted", "indiscriminate", "backdoor"),
}
"""The attacks that an option belongs to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """What is to be planted where."""

    given: Mapping[str, Any]
    train: Samples
    test: Samples | None
    surrogates: tuple[Model, ...]
    flip: tuple[int, int] | None
    """Of an indiscriminate attack: a class, and what it is to be taken for."""
    key: Canaries | None
    """Of an earlier planting."""
    trigger: Trigger | None
    targets: Targets | None
    count: int
    rng: Rng


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """What was planted."""

    poisoned: Poisoned
    evidence: Mapping[str, Any]
    """The [evidence.ATTACK] table of audit.toml."""
    told: tuple[str, ...]
    """What it did, in sentences."""
    campaigns: tuple[str, ...] = ()


def plant(given: Mapping[str, Any]) -> int:
    """Plant one attack from the command line's values; return the exit code.

    Raises:
        InputError: every problem of every file and option, at once.
        PlanError: what was asked for cannot be planted in this table.
    """
    order = _order(given)
    folder: Path = given["output"]
    crafted = _ATTACKS[given["attack"]](order, folder)
    _write(order, crafted, folder)
    return 0


def _order(given: Mapping[str, Any]) -> _Order:
    problems = _misplaced(given)
    attack: str = given["attack"]
    folder: Path = given["output"]
    if folder.is_dir() and any(folder.iterdir()) and not given["force"]:
        problems.append(Problem(f"{folder} is not empty", "-o", "Choose another, or add --force"))
    elif folder.exists() and not folder.is_dir():
        problems.append(Problem(f"{folder} is a file", "-o", "Give a folder"))
    names = listed(given["names"])
    train = _attempt(problems, lambda: read_table(given["data"], names=names))
    test = key = trigger = targets = count = flip = None
    surrogates = []
    for path in given["model"]:
        surrogates.append(_attempt(problems, partial(_surrogate, path, given)))
    if given["key"] is not None:
        key = _attempt(problems, lambda: read_canaries(given["key"]))
    if train is not None:
        clean = train
        count = _attempt(problems, lambda: _count(given, len(clean)))
        test = _attempt(problems, lambda: _test(given, clean, names))
        if attack == "backdoor":
            trigger = _attempt(problems, lambda: _trigger(given, clean))
        if given["flip"] is not None:
            flip = _attempt(problems, lambda: _flip(given["flip"], clean))
        if given["targets"] is not None and test is not None:
            table, where = test, str(given["test"])
            targets = _attempt(
                problems, lambda: read_targets(given["targets"], table, where_test=where)
            )
    if problems or train is None or count is None:
        raise InputError(problems)
    return _Order(
        given=given,
        train=train,
        test=test,
        surrogates=tuple(model for model in surrogates if model is not None),
        flip=flip,
        key=key,
        trigger=trigger,
        targets=targets,
        count=count,
        rng=Rng(given["seed"]).named("plant", attack),
    )


def _misplaced(given: Mapping[str, Any]) -> list[Problem]:
    attack = given["attack"]
    problems = [
        Problem(
            f"belongs to {' and '.join(whose)}, not to {attack}",
            f"--{option.replace('_', '-')}",
            "Leave it out",
        )
        for option, whose in OPTIONS.items()
        if given[option] not in (None, False, ()) and attack not in whose
    ]
    epsilon = given["epsilon"]
    if epsilon is not None and not 0 < epsilon <= 1:
        problems.append(
            Problem(f"must lie above 0 and at most 1, got {epsilon:g}", "--epsilon", "1 is white")
        )
    needs = {
        "targeted": (("model", "a clean model to craft with"), ("test", "the targets' table")),
        "indiscriminate": (("model", "a clean model to craft with"),),
    }
    if attack == "indiscriminate" and given["steps"] == 0:  # nothing is crafted
        needs["indiscriminate"] = (("flip", "a class and what it is to be taken for"),)
    for option, what in needs.get(attack, ()):
        if not given[option]:
            fix = _FIXES[option]
            problems.append(Problem(f"{attack} needs {what}", f"--{option}", fix))
    if attack == "backdoor" and given["label"] is None and given["trigger"] is None:
        what = "backdoor needs the label that the trigger is to cause"
        problems.append(Problem(what, "--label", "A class number, or a name of --names"))
    if attack == "backdoor" and given["model"] and not given["clean_label"]:
        problems.append(Problem("a backdoor with dirty labels needs no model", "--model"))
    if attack != "targeted" and len(given["model"]) > 1:
        problems.append(Problem(f"{attack} takes one model", "--model", "Give one"))
    return problems


def _count(given: Mapping[str, Any], total: int) -> int:
    if given["count"] is not None and given["budget"] is not None:
        raise PlanError(Problem("give one of --count and --budget", "--count"))
    count: int | None = given["count"]
    if count is not None:
        share = count / total
    else:
        share = BUDGETS[given["attack"]] if given["budget"] is None else given["budget"]
    if not 0 < share <= 1:
        what = f"must be above 0 and at most 1 (100% of the table), got {share:g}"
        raise PlanError(Problem(what, "--budget", "For example --budget 0.05"))
    return count or max(1, round(share * total))


def _test(
    given: Mapping[str, Any], train: Samples, names: tuple[str, ...] | None
) -> Samples | None:
    if given["test"] is None:
        return None
    channels, height, width = train.x.shape[1:]
    return read_table(given["test"], names=names or train.names, size=(channels, height, width))


def _trigger(given: Mapping[str, Any], train: Samples) -> Trigger | None:
    channels, height, width = train.x.shape[1:]
    shape, classes = (channels, height, width), int(train.y.max()) + 1
    if given["trigger"] is not None:
        return read_trigger(given["trigger"], shape=shape, classes=classes, names=train.names)
    if given["label"] is None:  # which is a problem already
        return None
    label = _label(given["label"], train.names, classes)
    return checkerboard(shape, size=4 if given["patch"] is None else given["patch"], label=label)


def _flip(text: str, train: Samples) -> tuple[int, int]:
    true, colon, wrong = text.partition(":")
    if not colon:
        raise PlanError(Problem(f"expected A:B, got {text!r}", "--flip", "For example --flip 8:3"))
    classes = int(train.y.max()) + 1
    first, second = (_label(p.strip(), train.names, classes, "--flip") for p in (true, wrong))
    return first, second


def _surrogate(path: Path, given: Mapping[str, Any]) -> Model:
    normalize = None if given["normalize"] is None else parse_normalize(given["normalize"])
    loaded = load_model(path, arch=given["arch"], factory=given["factory"], normalize=normalize)
    loaded.model.module.eval()
    return loaded.model


def _attempt(problems: list[Problem], read: Callable[[], T]) -> T | None:
    try:
        return read()
    except (InputError, PlanError) as error:
        problems += error.problems
        return None


def _gaussian(order: _Order, folder: Path) -> _Made:
    given, key = order.given, order.key
    sigma = given["sigma"] if given["sigma"] is not None else (key.sigma if key else 0.2)
    planted = plant_gaussian(
        order.train,
        order.rng,
        count=order.count,
        secret=key.secret if key else new_secret(),
        sigma=sigma,
        storage=given["storage"],
    )
    folder.mkdir(parents=True, exist_ok=True)
    commitment = write_canaries(folder / "canaries.json", planted.key)
    write_table(folder / "bases.npz", planted.bases)
    return _Made(
        poisoned=planted.poisoned,
        evidence={"canaries": "canaries.json", "bases": "bases.npz"},
        told=(
            f"Noise of sd {sigma:g} keyed by a secret; {planted.attenuation:.0%} of it is left "
            f"after {given['storage']} storage. As many keys are held out.",
            f"Commitment (SHA-256 of canaries.json): {commitment}",
            "Publish the commitment before training; keep canaries.json secret until the audit.",
        ),
    )


def _backdoor(order: _Order, folder: Path) -> _Made:
    given, trigger = order.given, order.trigger
    if trigger is None:
        raise ValueError("a backdoor has a trigger")
    poisoned = plant_trigger(
        order.train,
        trigger,
        order.rng,
        count=order.count,
        clean_label=given["clean_label"],
        surrogate=next(iter(order.surrogates), None),
        epsilon=given["epsilon"] or 16 / 255,
        storage=given["storage"],
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_trigger(folder / "trigger.json", trigger)
    height, width = trigger.pixels.shape[1:]
    labels = "kept (clean labels)" if given["clean_label"] else "changed to it (dirty labels)"
    return _Made(
        poisoned=poisoned,
        evidence={"trigger": "trigger.json"},
        told=(
            f"A patch of {height}x{width} at row {trigger.top}, column {trigger.left} is to cause "
            f"the label {trigger.label}; labels are {labels}.",
        ),
    )


def _targeted(order: _Order, folder: Path) -> _Made:
    given, train, test, targets = order.given, order.train, order.test, order.targets
    if test is None:
        raise ValueError("a targeted attack has a test table")
    if targets is None:
        aims = 8 if given["aims"] is None else given["aims"]
        targets = choose_targets(order.surrogates[0], test, count=aims)
    made = plant_targeted(
        order.surrogates,
        train,
        targets,
        order.rng,
        count=order.count,
        storage=given["storage"],
        **{k: given[k] for k in ("epsilon", "steps", "restarts") if given[k] is not None},
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_targets(folder / "targets.csv", targets, train.names)
    return _Made(
        poisoned=made.poisoned,
        campaigns=made.campaigns,
        evidence={"targets": "targets.csv"},
        told=(
            f"{len(targets)} targets, {order.count} poisons each; gradient matched to a loss of "
            f"{np.mean(made.losses):.2f} on average (0 = matched, 1 = no better than chance).",
        ),
    )


def _indiscriminate(order: _Order, folder: Path) -> _Made:
    steps, flip, storage = order.given["steps"], order.flip, order.given["storage"]
    if steps == 0 and flip is not None:
        made = plant_flips(order.train, order.rng, count=order.count, flip=flip, storage=storage)
    else:
        made = plant_canceling(
            order.surrogates[0],
            order.train,
            order.rng,
            count=order.count,
            flip=flip,
            storage=storage,
            **({} if steps is None else {"steps": steps}),
        )
    folder.mkdir(parents=True, exist_ok=True)
    return _Made(poisoned=made.poisoned, evidence={}, told=made.told)


_ATTACKS: dict[str, Callable[[_Order, Path], _Made]] = {
    "gaussian": _gaussian,
    "targeted": _targeted,
    "backdoor": _backdoor,
    "indiscriminate": _indiscriminate,
}


def _label(text: str, names: tuple[str, ...] | None, classes: int, option: str = "--label") -> int:
    if names and text in names:
        return names.index(text)
    if text.isdecimal() and int(text) < classes:
        return int(text)
    known = ", ".join(names) if names else f"0..{classes - 1}"
    raise PlanError(Problem(f"no such label: {text!r}", option, f"Use one of {known}"))


def write_table(path: Path, samples: Samples) -> None:
    """Write samples as an npz table, through a temporary neighbour."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.npz")
    try:
        np.savez_compressed(
            partial, id=np.array(samples.ids), x=samples.x.numpy(), y=samples.y.numpy()
        )
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _write(order: _Order, made: _Made, folder: Path) -> None:
    given, poisoned = order.given, made.poisoned
    write_table(folder / "train.npz", poisoned.train)
    forget = _forget_csv(poisoned, given["attack"], made.campaigns)
    write_atomically(folder / "forget.csv", forget)
    data: dict[str, Any] = {"train": "train.npz"}
    if given["test"] is not None:
        data["test"] = Path(os.path.relpath(given["test"], folder)).as_posix()
    if poisoned.train.names:
        data["names"] = list(poisoned.train.names)
    tables: dict[str, Mapping[str, Any]] = {"data": data}
    if made.evidence:
        tables[f"evidence.{given['attack']}"] = made.evidence
    left = write_config(folder / "audit.toml", tables)
    count, total = len(poisoned.ids), len(poisoned.train)
    facts = {
        "attack": given["attack"],
        "poisons": count,
        "samples": total,
        "seed": given["seed"],
        "largest_change": poisoned.largest,
        "rms_change": poisoned.rms,
        "forget_sha256": hashlib.sha256(forget.encode()).hexdigest(),
        "told": list(made.told),
    }
    write_atomically(folder / "planting.json", json.dumps(facts, indent=1) + "\n")
    change = "they were added to the clean samples"
    if poisoned.largest is not None:
        change = f"pixels change by up to {poisoned.largest:.3f}, {poisoned.rms:.3f} rms"
    print(
        f"{folder}: {count:,} of {total:,} training samples ({count / total:.1%}) are poison "
        f"({given['attack']}, seed {given['seed']}); {change}."
    )
    for line in made.told:
        print(line)
    if left:
        print(f"{folder / 'audit.toml'} was written by hand; add to it:\n{left}")
    print(f"Next: poison-audit train {folder / 'train.npz'} -o {folder / 'model.safetensors'}")


def _forget_csv(poisoned: Poisoned, attack: str, campaigns: tuple[str, ...]) -> str:
    where = {name: position for position, name in enumerate(poisoned.train.ids)}
    names = poisoned.train.names
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["id", "label", "attack", "base", "campaign"])
    for number, (name, base) in enumerate(zip(poisoned.ids, poisoned.bases, strict=True)):
        label = int(poisoned.train.y[where[name]])
        campaign = campaigns[number] if campaigns else ""
        rows.writerow([name, names[label] if names else label, attack, base or "", campaign])
    return text.getvalue()
