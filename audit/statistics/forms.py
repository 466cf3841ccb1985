"""The forms of evidence: what the numbers in it may be, and reading it with every problem at once.

A report.json may be anybody's. Its measurements are judged and drawn only if they have the types
and the ranges that the probes write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Le

from poison_audit.atomic import from_json
from poison_audit.errors import InputError, Problem

MOST = 1e6
"""Farthest score: |xi| / sigma of a canary is about the root of its dimension."""
_MANY = 10**9

Count = Annotated[int, Ge(0), Le(_MANY)]
Some = Annotated[int, Ge(1), Le(_MANY)]
Bit = Annotated[int, Ge(0), Le(1)]
Number = Annotated[float, Ge(-MOST), Le(MOST)]
Share = Annotated[float, Ge(0), Le(1)]


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
    known: Any = form
    kept = {each.name: plain[each.name] for each in fields(known) if each.name in plain}
    try:
        text = json.dumps(kept)
    except RecursionError as error:
        raise InputError(Problem("is nested too deep", where)) from error
    return from_json(form, text, where=where)


def refuse(*wrong: tuple[bool, str]) -> None:
    """Raise ValueError with what is said of each condition that holds; none: all is well."""
    if told := [what for holds, what in wrong if holds]:
        raise ValueError("; ".join(told))
