"""What a training run needs: its tables, what they are read into, and the job they make."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from poison_audit.case.copies import overlap
from poison_audit.case.forget import ForgetSet, read_forget
from poison_audit.case.tables import check_labels
from poison_audit.commands.own_settings import Training
from poison_audit.errors import InputError, Problem, Problems
from poison_audit.models.model import Model
from poison_audit.models.normalization import Normalize
from poison_audit.models.reader import Reading
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.gaussian.evidence import Canaries
from poison_audit.poisons.readings import POISONS
from poison_audit.records import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """What could be read; None where a table is not given or has a problem."""

    train: Samples | None
    """The whole of it: how many classes there are does not depend on what is left out."""
    test: Samples | None
    forget: ForgetSet | None
    """What is left out of training."""
    names: tuple[str, ...] | None
    """The labels' names, as audit.toml should give them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """What there is more where a language model is trained."""

    reading: Reading
    """As it is read again; `start` is None where training begins with new weights."""
    base: Path
    """The folder that it was made from."""
    config: str
    """What config.json beside the weights is to say."""
    key: Canaries | None
    """Of the noise that was put on embeddings; None: there is none."""
    key_path: Path | None
    told: tuple[str, ...] = ()
    """What the table lost or lacks, in sentences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is to be trained on what, as far as it could be read."""

    tables: Tables
    model: Model | None
    """None: a problem says why."""
    arch: str | None = None
    """As `--arch` takes it; None for a factory's and a language model's."""
    normalize: Normalize | None = None
    """None: it reads texts."""
    texts: Texts | None = None
    """None: it takes pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A training run that has everything it needs."""

    asked: Training
    subject: Subject
    model: Model
    """The architecture, on `device`; its weights are not looked at."""
    data: Samples
    """What is trained on, on the CPU."""
    recipe: Recipe
    steps: int
    rng: Rng
    device: torch.device
    file: Path
    """Of the weights."""

    @property
    def noisy(self) -> bool:
        """Whether something that is trained on carries noise on its embeddings."""
        return self.data.noise is not None


def stated(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe's values; what was assumed before is done now."""
    return {key: value for key, value in asdict(recipe).items() if key != "assumed"}


def read_tables(training: Training, found: Problems, read: Callable[..., Samples]) -> Tables:
    """Read every table that is given, adding their problems to `found`.

    Args:
        read: what reads one table: takes a path and `names`; of pictures also `size`.
    """
    data, names, where = training.data, training.names, str(training.data)
    train = test = forget = None
    with found.collecting():
        train = read(data, names=names)
    like: dict[str, Any] = {"names": names}
    if train is not None:
        # Word labels are numbered by the training table, so that a class missing moves none.
        like = {"names": names or train.names}
        if train.texts is None:
            like["size"] = tuple(train.x.shape[1:])
        if training.without is not None:
            with found.collecting():
                forget = read_forget(training.without, train, where_train=where, poisons=POISONS)
    if training.test is not None:
        with found.collecting():
            test = read(training.test, **like)
    if train is not None and test is not None:
        found += overlap(train, test, a_name=where, b_name=str(training.test))
    return Tables(train=train, test=test, forget=forget, names=tuple(names) if names else None)


def classes_of(train: Samples, where: str) -> int:
    """Return how many classes a table shows; InputError: one, or its labels number none."""
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


def wrong_labels(tables: Tables, classes: int, training: Training) -> list[Problem]:
    """Return the labels of the tables that a model of so many classes cannot answer."""
    read = ((tables.train, training.data), (tables.test, training.test))
    return [
        p
        for table, path in read
        if table is not None
        for p in check_labels(table, classes, str(path))
    ]


def misplaced(given: Collection[str], options: tuple[str, ...], why: str) -> list[Problem]:
    """Return the options that were given although they say nothing here."""
    return [
        Problem(why, f"--{option.replace('_', '-')}", "Leave it out.")
        for option in options
        if option in given
    ]
