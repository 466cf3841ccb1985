"""What a planter is asked for and what it makes, of pictures and of texts alike.

A planter first checks its own options and the files that they name, adding what is wrong to the
order's problems. Then `Order.checked` gives it the work, or raises everything that is wrong at
once, so that nothing is written before. It poisons the table, writes its evidence into the folder,
and says what it did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from poison_audit.case.planting import Storage
from poison_audit.case.poisoned import Poisoned, Table
from poison_audit.case.texts import TextTable
from poison_audit.errors import InputError, PlanError, Problem, Problems
from poison_audit.models.checkpoint import load_model
from poison_audit.models.model import Model
from poison_audit.models.normalization import parse_normalize
from poison_audit.models.seeds import Rng

Given = TypeVar("Given")
Read = TypeVar("Read")
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work(Generic[Table]):
    """What is to be crafted, once everything is checked."""

    train: Table
    """The samples that no earlier planting poisoned."""
    count: int
    """Poisons; of a targeted attack, for each target."""
    storage: Storage
    """Of pictures."""
    rng: Rng
    folder: Path
    """For the evidence; made when the first file is."""

    def file(self, name: str) -> Path:
        """Return where a file of evidence is to lie."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / name


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(Generic[Table]):
    """What is to be planted."""

    options: Any
    """The poison's own, of the type that its `planting` names."""
    problems: Problems
    """What is wrong, so far."""
    work: Work[Table] | None
    """What is to be done, as far as it is without a problem."""
    table: Table | None
    """The whole table; None: it cannot be read, which is said already."""
    test: Table | None
    """The clean test table, where one is given and can be read."""
    where_test: str
    arch: str | None = None
    """Of clean models of pictures: what `--arch` says; the next two likewise."""
    factory: str | None = None
    normalize: str | None = None
    device: torch.device = CPU
    """Where clean models of pictures compute; tables stay in main memory."""

    def read(self, how: Callable[[Given], Read], given: Given | None) -> Read | None:
        """Return what `how` makes of a value; None if none is given, or if it has a problem."""
        found = None
        if given is not None:
            with self.problems.collecting():
                found = how(given)
        return found

    def checked(self) -> Work[Table]:
        """Return what is to be done, or raise everything that is wrong."""
        if self.problems or self.work is None:
            raise InputError(self.problems)
        return self.work

    def sure(self, value: Read | None) -> Read:
        """Return a value that is there, as `checked` has seen to."""
        if value is None:
            raise InputError(self.problems)
        return value

    def known(self) -> Table:
        """Return the table; an InputError without a problem where it cannot be read."""
        if self.table is None:
            raise InputError(())
        return self.table

    @property
    def classes(self) -> int:
        """The number of classes of the table."""
        table = self.known()
        if isinstance(table, TextTable):
            return len(table.names) if table.names else max(table.y) + 1
        return int(table.y.max()) + 1

    def label(self, text: str, where: str = "--label") -> int:
        """Return the class number that an option names.

        Raises:
            PlanError: there is no such label.
        """
        names = self.known().names
        if names and text in names:
            return names.index(text)
        if text.isdecimal() and int(text) < self.classes:
            return int(text)
        known = ", ".join(names) if names else f"0..{self.classes - 1}"
        raise PlanError(Problem(f"no such label: {text!r}", where, f"Use one of {known}"))

    def flip(self, text: str) -> tuple[int, int]:
        """Return the class numbers that `A:B` names.

        Raises:
            PlanError: it is spelt otherwise, or there is no such label.
        """
        true, colon, wrong = text.partition(":")
        self.known()
        if not colon:
            what = f"expected A:B, got {text!r}"
            raise PlanError(Problem(what, "--flip", "For example --flip 8:3"))
        first, second = (self.label(part.strip(), "--flip") for part in (true, wrong))
        return first, second

    def surrogate(self, path: Path) -> Model:
        """Return a clean model of pictures to craft with, on the device."""
        normalize = None if self.normalize is None else parse_normalize(self.normalize)
        loaded = load_model(path, arch=self.arch, factory=self.factory, normalize=normalize)
        return replace(loaded.model, module=loaded.model.module.to(self.device).eval())


@dataclass(frozen=True, slots=True, kw_only=True)
class Made(Generic[Table]):
    """What was planted."""

    poisoned: Poisoned[Table]
    told: tuple[str, ...]
    """What was done, in sentences."""
    change: str = ""
    """What became of the samples, half a sentence; empty: pixels changed as `poisoned` says."""
    evidence: Mapping[str, str] = field(default_factory=dict)
    """Its files by their keys in the poison's table of audit.toml."""
    campaigns: tuple[str, ...] = ()
    """What each poison works for, where they do not all work for one thing."""
    clean: tuple[int, ...] = ()
    """The true label of each poison, where it was given another."""
    chance: bool = False
    """Whether chance alone decided which samples were given another label."""
    start: Path | None = None
    """Of texts: folder of the model that is to be trained."""


Planter = Callable[[Order[Table]], Made[Table]]


def wrong_epsilon(epsilon: float) -> list[Problem]:
    """Return why pictures cannot be changed by up to `epsilon`, of 1."""
    if 0 < epsilon <= 1:
        return []
    what = f"must lie above 0 and at most 1, got {epsilon:g}"
    return [Problem(what, "--epsilon", "1 is white")]


def committed(name: str, commitment: str) -> tuple[str, ...]:
    """Return what to do with a key's file and the SHA-256 of it, in sentences."""
    return (
        f"Commitment (SHA-256 of {name}): {commitment}",
        f"Publish the commitment before training; keep {name} secret until the audit.",
    )
