"""What a plan, a search and a report must know of an unlearning method."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from poison_audit.case.case import Case
from poison_audit.models.model import Model

Range = tuple[float | None, float | None]
"""Smallest and largest value of a number, both allowed; None: no bound."""

POSITIVE: Range = (sys.float_info.min, None)
"""Above 0."""
NOT_NEGATIVE: Range = (0, None)
STEPS: Mapping[str, Range] = {
    "lr": POSITIVE, "momentum": (0, 1), "weight_decay": NOT_NEGATIVE, "batch_size": (1, None),
}  # fmt: skip
"""Of the numbers that most methods' steps have."""
DEFAULT = "default"
"""The preset that changes nothing."""


@dataclass(frozen=True, slots=True)
class Search:
    """Where tuning looks for a number."""

    low: float
    high: float
    scale: Literal["linear", "log", "rate", "whole", "blocks"] = "log"
    """`rate`: logarithmic, in multiples of the recipe's peak rate; `whole`: integers; `blocks`:
    integers, at most the model's number of blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """An unlearning method, and what a plan and a report must know of it."""

    run: Callable[..., Model]
    title: str
    source: str
    """Where it comes from: authors, year, arXiv."""
    needs: frozenset[str]
    """The sample sets it trains on or measures: `retain`, `forget`."""
    ranges: Mapping[str, Range] = field(default_factory=dict)
    """What each number may be, by its name; what is chosen by a word says so in its type."""
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Numbers as a source has them, by the name that a plan takes."""
    search: Mapping[str, Search] = field(default_factory=dict)
    """Where tuning looks for each number, by its name; the others stay as the plan says."""
    anew: bool = False
    """Whether it makes several descents, so that a larger budget goes on from no smaller one's."""
    spends: Callable[[float, Case, Mapping[str, Any]], float] = lambda allowed, *_: allowed
    """(gradient evaluations allowed, case, numbers) -> about how many of them it makes."""
    idle: Callable[[Mapping[str, Any], int, int], str | None] = lambda params, train, forget: None
    """(numbers, training samples, forget samples) -> why it can change nothing; None: it can."""
    unfit: Callable[[Case], str | None] = lambda case: None
    """case -> why it cannot be run on it, as the end of a sentence about it; None: it can."""
    reference: bool = False
    """Whether the recipe bounds it and no budget, and what it makes never saw the forget samples it
    was given: a yardstick, never on trial."""
    candidate: str = ""
    """What the models it makes are called; empty: as the method."""
    paced_by: str = ""
    """The method whose step costs what one of its own does, where no ledger ends it early."""
