"""The tables of a training run: what is trained on, what is left out, what is tested on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from poison_audit.case.forget import ForgetSet, overlap, read_forget
from poison_audit.case.samples import Samples
from poison_audit.case.tables import check_labels
from poison_audit.commands.config import Config
from poison_audit.commands.flags import listed
from poison_audit.commands.train_job import Texts
from poison_audit.errors import InputError, Problem
from poison_audit.models.model import Model
from poison_audit.models.normalization import Normalize
from poison_audit.poisons.readings import POISONS

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """What could be read; None where a table is not given or has a problem."""

    train: Samples | None
    """The whole of it: how many classes there are does not depend on what is left out."""
    test: Samples | None
    forget: ForgetSet | None
    train_path: Path
    test_path: Path | None
    names: tuple[str, ...] | None
    """The labels' names, where they were given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is to be trained on what, as far as it could be read."""

    tables: Tables
    model: Model | None
    """None: a problem says why."""
    arch: str | None = None
    normalize: Normalize | None = None
    texts: Texts | None = None


def read_tables(
    config: Config,
    given: Mapping[str, Any],
    found: list[Problem],
    read: Callable[..., Samples],
) -> Tables:
    """Read every table that is given, adding their problems to `found`.

    Args:
        config: audit.toml.
        given: the flags.
        found: grows.
        read: what reads one table: takes a path and `names`; of pictures also `size`.
    """
    path = given["data"]
    test_path = given["test"] or config.get("data", "test")
    names = listed(given["names"]) or config.get("data", "names")
    train = attempt(found, read, path, names=names)
    like: dict[str, Any] = {"names": names}
    forget = None
    if train is not None:
        # Word labels are numbered by the training table, so that a class missing moves none.
        like = {"names": names or train.names}
        if train.texts is None:
            like["size"] = tuple(train.x.shape[1:])
        forget = attempt(
            found, read_forget, given["without"], train, where_train=str(path), poisons=POISONS
        )
    test = attempt(found, read, test_path, **like)
    if train is not None and test is not None:
        found += overlap(train, test, a_name=str(path), b_name=str(test_path))
    return Tables(
        train=train,
        test=test,
        forget=forget,
        train_path=path,
        test_path=test_path,
        names=tuple(names) if names else None,
    )


def attempt(
    found: list[Problem], read: Callable[..., T], source: Any, *args: Any, **more: Any
) -> T | None:
    """Read a source if it is given; None, and its problems in `found`, if it has any."""
    if source is None:
        return None
    try:
        return read(source, *args, **more)
    except InputError as error:
        found += error.problems
        return None


def classes_of(train: Samples, where: str) -> int:
    """Return the number of classes that a table shows.

    Raises:
        InputError: it shows one, or its labels number none.
    """
    if train.names is not None:
        if len(train.names) < 2:
            what = f"there is one label: {', '.join(map(repr, train.names))}"
            raise InputError(Problem(what, where, "A classifier tells two or more apart."))
        return len(train.names)
    largest = int(train.y.max())
    # A head of the size of somebody's account number is nobody's intention.
    if largest >= len(train) or largest < 1:
        what = f"the largest label is {largest}, of {len(train)} samples"
        fix = "Number at least two labels from 0, or name them all by --names A,B,.."
        raise InputError(Problem(what, where, fix))
    return largest + 1


def wrong_labels(tables: Tables, classes: int) -> list[Problem]:
    """Return the labels of the tables that a model of so many classes cannot answer."""
    return [
        problem
        for table, path in ((tables.train, tables.train_path), (tables.test, tables.test_path))
        if table is not None
        for problem in check_labels(table, classes, str(path))
    ]


def misplaced(given: Mapping[str, Any], options: tuple[str, ...], why: str) -> list[Problem]:
    """Return the options that were given although they say nothing here."""
    return [
        Problem(why, f"--{option.replace('_', '-')}", "Leave it out.")
        for option in options
        if given[option] not in (None, False)
    ]
