"""Which options of `plant` belong to which attack on what, and what they are worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from poison_audit.errors import InputError, PlanError, Problem

T = TypeVar("T")
Kind = Literal["pictures", "texts"]

BUDGETS = {
    "gaussian": 0.05,
    "token-canary": 0.05,
    "targeted": 0.02,
    "backdoor": 0.05,
    "indiscriminate": 0.1,
}
"""Share of the training table that is poisoned; of a targeted attack, for each target."""
_EVERY = ("gaussian", "targeted", "backdoor", "indiscriminate")
OPTIONS: Mapping[Kind, Mapping[str, tuple[str, ...]]] = {
    "pictures": {
        "storage": _EVERY,
        "arch": _EVERY,
        "factory": _EVERY,
        "normalize": _EVERY,
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
    },
    "texts": {
        "sigma": ("gaussian",),
        "model": ("gaussian",),
        "max_tokens": ("gaussian",),
        "prompt": ("gaussian",),
        "key": ("gaussian", "token-canary"),
        "length": ("token-canary",),
        "label": ("backdoor",),
        "phrase": ("backdoor",),
        "position": ("backdoor",),
        "trigger": ("backdoor",),
        "flip": ("indiscriminate",),
        "steps": ("indiscriminate",),
    },
}
"""The attacks that an option belongs to, for what DATA holds."""
_OTHER: Mapping[Kind, Kind] = {"pictures": "texts", "texts": "pictures"}


def misplaced(given: Mapping[str, Any], kind: Kind) -> list[Problem]:
    """Return the options that were given although this attack on this kind of data has none."""
    attack, mine, other = given["attack"], OPTIONS[kind], OPTIONS[_OTHER[kind]]
    problems = []
    for option in {**mine, **other}:
        if given[option] in (None, False, ()) or attack in mine.get(option, ()):
            continue
        what = f"is for {_OTHER[kind]}, and DATA holds {kind}"
        if option in mine:
            what = f"belongs to {' and '.join(mine[option])}, not to {attack}"
        problems.append(Problem(what, f"--{option.replace('_', '-')}", "Leave it out"))
    return problems


def wrong_folder(given: Mapping[str, Any]) -> list[Problem]:
    """Return why nothing can be written into the output folder."""
    folder: Path = given["output"]
    if folder.is_dir() and any(folder.iterdir()) and not given["force"]:
        return [Problem(f"{folder} is not empty", "-o", "Choose another, or add --force")]
    if folder.exists() and not folder.is_dir():
        return [Problem(f"{folder} is a file", "-o", "Give a folder")]
    return []


def attempt(problems: list[Problem], read: Callable[[], T]) -> T | None:
    """Return what `read` returns; None, and its problems added to `problems`, if it has any."""
    try:
        return read()
    except (InputError, PlanError) as error:
        problems += error.problems
        return None


def count_of(given: Mapping[str, Any], total: int) -> int:
    """Return how many of `total` samples are to be poisoned.

    Raises:
        PlanError: both or an impossible one of --count and --budget are given.
    """
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


def label_of(
    text: str, names: tuple[str, ...] | None, classes: int, option: str = "--label"
) -> int:
    """Return the class number that an option names.

    Raises:
        PlanError: there is no such label.
    """
    if names and text in names:
        return names.index(text)
    if text.isdecimal() and int(text) < classes:
        return int(text)
    known = ", ".join(names) if names else f"0..{classes - 1}"
    raise PlanError(Problem(f"no such label: {text!r}", option, f"Use one of {known}"))


def flip_of(text: str, names: tuple[str, ...] | None, classes: int) -> tuple[int, int]:
    """Return the class numbers that `A:B` names.

    Raises:
        PlanError: it is spelt otherwise, or there is no such label.
    """
    true, colon, wrong = text.partition(":")
    if not colon:
        raise PlanError(Problem(f"expected A:B, got {text!r}", "--flip", "For example --flip 8:3"))
    first, second = (label_of(p.strip(), names, classes, "--flip") for p in (true, wrong))
    return first, second
