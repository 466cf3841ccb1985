"""What is to be planted in which pictures: the options and files of `plant`, checked at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from poison_audit.case.poison import Storage
from poison_audit.case.samples import Samples
from poison_audit.case.tables import read_table
from poison_audit.commands.flags import listed
from poison_audit.commands.plant_earlier import Earlier, clean_positions, read_earlier, wrong_table
from poison_audit.commands.plant_options import (
    attempt,
    count_of,
    flip_of,
    label_of,
    misplaced,
    wrong_folder,
)
from poison_audit.errors import InputError, PlanError, Problem
from poison_audit.models.checkpoint import load_model, parse_normalize
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.evidence import Trigger, read_trigger
from poison_audit.poisons.backdoor.plant import checkerboard
from poison_audit.poisons.gaussian.evidence import Canaries, read_canaries
from poison_audit.poisons.targeted.evidence import Targets, read_targets

_FIXES = {
    "model": "`poison-audit train` makes one",
    "test": "A clean test table",
    "flip": "For example --flip 8:3",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureOrder:
    """What is to be planted in which pictures."""

    given: Mapping[str, Any]
    whole: Samples
    """The table as it is."""
    clean: tuple[int, ...]
    """Where the samples stand that no earlier planting poisoned."""
    train: Samples
    """Those samples."""
    earlier: Earlier | None
    test: Samples | None
    test_path: Path | None
    surrogates: tuple[Model, ...]
    flip: tuple[int, int] | None
    """Of an indiscriminate attack: a class, and what it is to be taken for."""
    key: Canaries | None
    """Of an earlier planting."""
    trigger: Trigger | None
    targets: Targets | None
    storage: Storage
    count: int
    rng: Rng


def read_pictures_order(given: Mapping[str, Any]) -> PictureOrder:
    """Check the command line's values and read their files.

    Raises:
        InputError: every problem of every file and option, at once.
    """
    problems = misplaced(given, "pictures") + wrong_folder(given)
    attack: str = given["attack"]
    earlier = attempt(problems, lambda: read_earlier(given))
    test_path = given["test"] or (earlier.test if earlier else None)
    problems += _wrong_options({**given, "test": test_path})
    names = listed(given["names"]) or (earlier.names if earlier else None)
    whole = attempt(problems, lambda: read_table(given["data"], names=names))
    key = train = test = trigger = targets = count = flip = storage = None
    clean: list[int] = []
    surrogates = [attempt(problems, partial(_surrogate, path, given)) for path in given["model"]]
    if given["key"] is not None:
        key = attempt(problems, lambda: read_canaries(given["key"]))
    if whole is not None:
        table = whole
        problems += wrong_table(earlier, table.ids, given["data"])
        clean = clean_positions(earlier, table.ids)
        train = table.at(clean) if earlier else table
        storage = attempt(problems, lambda: _storage(given, table, earlier))
        count = attempt(problems, lambda: count_of(given, len(table)))
        test = attempt(problems, lambda: _test(test_path, table, names))
        if attack == "backdoor":
            trigger = attempt(problems, lambda: _trigger(given, table))
        if given["flip"] is not None:
            classes = int(table.y.max()) + 1
            flip = attempt(problems, lambda: flip_of(given["flip"], table.names, classes))
        if given["targets"] is not None and test is not None:
            held, where = test, str(test_path)
            targets = attempt(
                problems, lambda: read_targets(given["targets"], held, where_test=where)
            )
    if problems or whole is None or train is None or count is None or storage is None:
        raise InputError(problems)
    return PictureOrder(
        given=given,
        whole=whole,
        clean=tuple(clean),
        train=train,
        earlier=earlier,
        test=test,
        test_path=test_path,
        surrogates=tuple(model for model in surrogates if model is not None),
        flip=flip,
        key=key,
        trigger=trigger,
        targets=targets,
        storage=storage,
        count=count,
        rng=Rng(given["seed"]).named("plant", attack),
    )


def _wrong_options(given: Mapping[str, Any]) -> list[Problem]:
    attack, problems = given["attack"], []
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
    if attack == "token-canary":
        what = "token canaries are texts, and DATA holds pictures"
        problems.append(Problem(what, "--attack", "Plant gaussian canaries"))
    if attack == "backdoor" and given["label"] is None and given["trigger"] is None:
        what = "backdoor needs the label that the trigger is to cause"
        problems.append(Problem(what, "--label", "A class number, or a name of --names"))
    if attack == "backdoor" and given["model"] and not given["clean_label"]:
        problems.append(Problem("a backdoor with dirty labels needs no model", "--model"))
    if attack != "targeted" and len(given["model"]) > 1:
        problems.append(Problem(f"{attack} takes one model", "--model", "Give one"))
    return problems


def _storage(given: Mapping[str, Any], table: Samples, earlier: Earlier | None) -> Storage:
    wanted: Storage | None = given["storage"]
    if earlier is None:
        return wanted or "unclipped"
    stored: Storage = "uint8" if table.x.dtype == torch.uint8 else "unclipped"
    if wanted not in (None, stored):
        what = f"the earlier poison is stored as {stored}, and stays as it is"
        raise PlanError(Problem(what, "--storage", "Leave it out"))
    return stored


def _test(path: Path | None, table: Samples, names: tuple[str, ...] | None) -> Samples | None:
    if path is None:
        return None
    channels, height, width = table.x.shape[1:]
    return read_table(path, names=names or table.names, size=(channels, height, width))


def _trigger(given: Mapping[str, Any], table: Samples) -> Trigger | None:
    channels, height, width = table.x.shape[1:]
    shape, classes = (channels, height, width), int(table.y.max()) + 1
    if given["trigger"] is not None:
        return read_trigger(given["trigger"], shape=shape, classes=classes, names=table.names)
    if given["label"] is None:  # which is a problem already
        return None
    label = label_of(given["label"], table.names, classes)
    return checkerboard(shape, size=4 if given["patch"] is None else given["patch"], label=label)


def _surrogate(path: Path, given: Mapping[str, Any]) -> Model:
    normalize = None if given["normalize"] is None else parse_normalize(given["normalize"])
    loaded = load_model(path, arch=given["arch"], factory=given["factory"], normalize=normalize)
    loaded.model.module.eval()
    return loaded.model
