"""What a poison says of its planting: the options that it takes, what it needs, how much it is.

Plain values, without torch: the options of `plant` and their help are made from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from types import NoneType
from typing import Any, Literal, get_args, get_type_hints

from poison_audit.errors import PlanError, Problem

Kind = Literal["pictures", "texts"]
PICTURES: tuple[Kind, ...] = ("pictures",)
TEXTS: tuple[Kind, ...] = ("texts",)
KINDS = PICTURES + TEXTS
Storage = Literal["unclipped", "uint8"]
"""How poisoned pictures are stored: float32 as crafted, or clipped and rounded to 8 bits."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option of `plant` that belongs to a poison: it annotates a field of its options."""

    help: str
    """What it says, as half a sentence after the poison's name."""
    _: KW_ONLY
    shown: str = ""
    """Its default in words, where that is no plain value."""
    on: tuple[Kind, ...] = KINDS
    """What DATA holds where it is taken."""
    metavar: str | None = None
    """What `--help` calls its value."""
    of_model: bool = False
    """Whether [model] of audit.toml has a key of its name, which says it to later plantings."""
    form: Any = None
    """Of its value: float, int, str, bool (a flag), Path, tuple[Path, ...] (given several times),
    or a Literal. `Planting.takes` reads it from the field."""


def refuse(*wrong: tuple[bool, str, str]) -> None:
    """Raise PlanError with each (holds, what is wrong, what to do about it) that holds."""
    if told := [Problem(what, fix=fix) for holds, what, fix in wrong if holds]:
        raise PlanError(told)


def flag(name: str) -> str:
    """Return how the command line spells an option.

    >>> flag("max_tokens")
    '--max-tokens'
    """
    return f"--{name.replace('_', '-')}"


@dataclass(frozen=True, slots=True)
class Need:
    """Something that a poison cannot be planted without."""

    option: str
    """The poison's own, or `test`."""
    what: str
    """What is missing, half a sentence."""
    fix: str
    _: KW_ONLY
    on: tuple[Kind, ...] = KINDS
    unless: Callable[[Any], bool] | None = None
    """Of the poison's options: whether they do without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planting:
    """How a poison is planted."""

    options: type
    """A frozen dataclass; each field is Annotated by an `Option`."""
    share: float
    """Of the training table that is poisoned, where nobody says how much."""
    enough: Callable[[], int] | None = None
    """How many samples let a clean model pass nine times in ten, at the usual tolerance and level;
    None: that does not depend on how many are planted."""
    needs: tuple[Need, ...] = ()
    refuses: Mapping[Kind, Problem] = field(default_factory=dict)
    """Why it is not planted where DATA holds this."""

    def takes(self) -> dict[str, Option]:
        """Return the options by name, in their order, with their form and default."""
        hints = get_type_hints(self.options, include_extras=True)
        found = {}
        for own in fields(self.options):
            hint, said = get_args(hints[own.name])
            form = next((part for part in get_args(hint) if NoneType in get_args(hint)), hint)
            shown = said.shown
            if not shown and own.default not in (None, False):
                shown = f"{own.default:.2g}" if isinstance(own.default, float) else f"{own.default}"
            on = tuple(kind for kind in said.on if kind not in self.refuses)
            found[own.name] = replace(said, form=form, shown=shown, on=on)
        return found
