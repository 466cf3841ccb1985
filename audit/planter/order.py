"""What is to be planted where: the options and files of `plant`, checked all at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from audit.attacks.trigger import checkerboard
from audit.commands import listed
from audit.data.canaries import Canaries, read_canaries
from audit.data.samples import Samples
from audit.data.tables import read_table
from audit.data.targets import Targets, read_targets
from audit.data.trigger import Trigger, read_trigger
from audit.errors import InputError, PlanError, Problem
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
class Order:
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


def read_order(given: Mapping[str, Any]) -> Order:
    """Check the command line's values and read their files.

    Raises:
        InputError: every problem of every file and option, at once.
    """
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
    return Order(
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


def _label(text: str, names: tuple[str, ...] | None, classes: int, option: str = "--label") -> int:
    if names and text in names:
        return names.index(text)
    if text.isdecimal() and int(text) < classes:
        return int(text)
    known = ", ".join(names) if names else f"0..{classes - 1}"
    raise PlanError(Problem(f"no such label: {text!r}", option, f"Use one of {known}"))
