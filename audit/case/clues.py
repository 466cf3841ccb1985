"""What a forget set shows by itself, for a person to look at: no model is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from poison_audit.case.forget import ForgetSet, Split
from poison_audit.models.samples import Samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """Where clues are looked for: tables in main memory."""

    train: Samples
    forget: ForgetSet
    parts: Split
    test: Samples | None = None
    bases: Samples | None = None
    """Clean samples that forget samples were made of, beside those in the training table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clue:
    """One thing that forget samples have in common."""

    what: str
    """What was found, as a name of it."""
    label: str
    """The label that those samples have, spelt; empty: several."""
    rows: tuple[int, ...]
    """Places in the training table of the forget samples that have it."""
    sure: str
    """How far it is from chance, in words."""
    confirm: str
    """What a person is to look at, or to do with it, as a sentence."""
    write: Mapping[str, Callable[[Path], None]]
    """What is written of it, by the file's name: (path) -> None."""
    flag: str = ""
    """The flag of `check` that takes the first of those files; empty: none does."""


Looker = Callable[[Material], list[Clue]]
"""What looks for one poison: the material -> what was found."""
