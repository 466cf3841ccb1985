"""The forms of evidence: what the numbers in it may be, and reading it with every problem at once.

A report.json may be anybody's. Its measurements are judged and drawn only if they have the types
and the ranges that the probes write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from poison_audit.atomic import from_json
from poison_audit.records import Asked

MOST = 1e6
"""Farthest score: |xi| / sigma of a canary is about the root of its dimension."""
_MANY = 10**9

Count = Annotated[int, Asked({"ge": 0, "le": _MANY})]
Some = Annotated[int, Asked({"ge": 1, "le": _MANY})]
Bit = Annotated[int, Asked({"ge": 0, "le": 1})]
Number = Annotated[float, Asked({"ge": -MOST, "le": MOST})]
Share = Annotated[float, Asked({"ge": 0, "le": 1})]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What a model and a reference did with the same samples, counted."""

    reference: str
    both: Count
    only_candidate: Count
    only_reference: Count
    neither: Count

    @property
    def total(self) -> int:
        """How many samples there were."""
        return self.both + self.only_candidate + self.only_reference + self.neither


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """Targets of one class that were to be given one label, and the controls that match them."""

    label: Count | None = None
    adversarial: Count | None = None
    targets: Count
    hits: Count
    """Of the targets."""
    controls: Count
    control_hits: Count


T = TypeVar("T")


def read_form(form: type[T], plain: Mapping[str, Any], where: str) -> T:
    """Return evidence as the dataclass `form`; keys that it has no field for are left aside.

    Raises:
        InputError: everything that is missing, of another type, out of range or at odds.
    """
    return from_json(form, json.dumps(plain), where=where, extra="ignore")


def refuse(*wrong: tuple[bool, str]) -> None:
    """Raise ValueError with what is said of each condition that holds; none: all is well."""
    if told := [what for holds, what in wrong if holds]:
        raise ValueError("; ".join(told))
