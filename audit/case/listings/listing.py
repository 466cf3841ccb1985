"""What every kind of table becomes before its labels are numbered and its pictures decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from poison_audit.errors import Problem

Part = Literal["train", "test"]
"""What a table is wanted for, where a file or folder holds several."""
PARTS = ("train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing")
"""What the parts of a data set are called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A table before its labels are numbered and its pictures decoded."""

    where: str
    """What holds the labels, for messages."""
    ids: Sequence[str]
    labels: Sequence[str]
    places: Sequence[str]
    """Where each sample stands, for messages."""
    x: NDArray[Any] | None = None
    """The pictures, (n, c, h, w), where the table holds them as numbers; else the next two."""
    paths: Sequence[str] = ()
    """Relative to the table's folder."""
    encoded: Sequence[bytes | None] | None = None
    """The pictures' files, where the table holds some."""
    names: Sequence[str] | None = None
    """What the table itself calls its classes, in the order that training numbered them."""
    upright: bool = False
    """Whether pictures are turned as their EXIF says: the library `datasets` does, torchvision
    does not."""
    doubted_order: str = ""
    """As `Samples` says."""
    problems: Sequence[Problem] = ()
    """What is already known to be wrong."""


def part_of(names: Sequence[str], part: Part) -> str | None:
    """Return which of several parts is wanted, None if none is or several may be.

    >>> part_of(["train", "validation", "test"], "test"), part_of(["train", "val"], "test")
    ('test', 'val')
    """
    wanted = (("train", "training"),) if part == "train" else (
        ("test", "testing"), ("val", "valid", "validation", "dev", "eval"),
    )  # fmt: skip
    for each in wanted:
        found = [name for name in names if name.lower() in each]
        if found:
            return found[0] if len(found) == 1 else None
    return None
