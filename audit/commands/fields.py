"""What can be said by a flag, by a key of audit.toml, or by both: the forms, and one declaration.

A setting is a field of a frozen dataclass (`settings.py`) that `said` declares. Its flag and help,
its key in audit.toml, what `init` drafts and the table in the README are made from that.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

T = TypeVar("T")


class RefusedError(ValueError):
    """A text that is no value, with words of its own about why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A form that values have."""

    expected: str
    """What a refusal says was expected."""
    metavar: str
    holds: Callable[[Any], bool]
    """Whether a value is one, of audit.toml or as read from the command line."""
    read: Callable[[str], Any]
    """The value of the command line's text; ValueError if there is none."""
    kept: Callable[[Path, Any], Any] = lambda folder, value: value
    """(folder of audit.toml, value there) -> value."""
    joined: bool = False
    """Whether several texts make one list."""

    def parse(self, text: str) -> Any:
        """Return the value of the command line's text; ValueError: what was expected, and got."""
        try:
            value = self.read(text)
            if self.holds(value):
                return value
        except RefusedError:
            raise
        except ValueError:
            pass
        raise ValueError(f"expected {self.expected}, got {text!r:.60}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One thing that can be said."""

    kind: Kind
    help: str
    flag: str = ""
    """`--train`; empty: it is the command's argument."""
    short: str = ""
    """`-o`."""
    table: str = ""
    """Of audit.toml; empty: only the command line says it."""
    key: str = ""
    group: str = "output"
    """The heading of `--help` that it stands under."""
    told: str = ""
    """What holds where nobody says it."""
    metavar: str = ""
    several: bool = False
    """Whether the flag may be given several times."""
    needed: bool = False
    optional: bool = False
    """Of an argument."""
    of: str = ""
    """What it says something of: models of pictures, of texts, causal ones of texts, any."""
    asked: bool = False
    """Whether `init` asks for it where it cannot tell."""


def is_number(value: Any) -> bool:
    """Return whether a value is a number that a float can hold."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max  # a whole number may be too large


def number_in(text: str) -> int | float | str:
    """Return the number that a flag's text spells, or the text.

    >>> number_in("3"), number_in("1e-3"), number_in("x")
    (3, 0.001, 'x')
    """
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def parts_of(text: str) -> tuple[str, ...]:
    """Return the parts of `A,B,..`, without the spaces around them.

    >>> parts_of("a, b,")
    ('a', 'b')
    """
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)


def _are_shares(value: Any) -> bool:
    several = isinstance(value, list | tuple) and value
    return all(map(is_number, value if several else [value]))


def _said(text: str) -> str:
    # Empty is nobody's file, name or word: somebody's variable was not set.
    if not text.strip():
        raise ValueError
    return text


def is_pipe(path: Path) -> bool:
    """Return whether a path is neither a file nor a folder: to open one may wait for ever."""
    try:
        return path.exists() and not path.is_file() and not path.is_dir()
    except (OSError, ValueError):  # said where it is opened
        return False


def _path(text: str) -> Path:
    path = Path(_said(text))
    if is_pipe(path):
        raise RefusedError(f"{text} is a pipe or a device, expected a file or a folder")
    return path


def _listed(text: str) -> tuple[str, ...]:
    return parts_of(text) or (_said(""),)


def _shares(text: str) -> tuple[float, ...]:
    values = [number_in(part) for part in _listed(text)]
    if wrong := [f"{value}" for value in values if not is_number(value)]:
        raise RefusedError(f"expected numbers such as 0.02,0.1, got {', '.join(wrong)}")
    return tuple(map(float, values))


def _share(value: Any) -> float | None:
    """Return the share that a number from 0 to 1 is, or a text such as `93%`; None: it is none."""
    parts = 1
    if isinstance(value, str):
        parts = 100 if value.rstrip().endswith("%") else 1
        value = number_in(value.rstrip().removesuffix("%"))
    return value / parts if is_number(value) and 0 <= value <= parts else None


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return _said(key).strip(), _said(value).strip()


def _is_day(value: Any) -> bool:
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
        try:
            return bool(datetime.date.fromisoformat(value))
        except ValueError:
            return False
    return isinstance(value, datetime.date) and not isinstance(value, datetime.datetime)


TEXT = Kind(expected="a string", metavar="TEXT", holds=_is_text, read=_said)
PATH = Kind(
    expected="a string", metavar="PATH", holds=lambda value: isinstance(value, str | Path),
    read=_path, kept=lambda folder, value: folder / value,
)  # fmt: skip
PATHS = Kind(
    expected="a list of strings", metavar="PATH", joined=True, read=lambda text: (PATH.read(text),),
    holds=lambda value: _are_texts(value) or isinstance(value, tuple),
    kept=lambda folder, value: tuple(folder / item for item in value),
)  # fmt: skip
NAMES = Kind(expected="a list of strings", metavar="A,B,..", holds=_are_texts, read=_listed)
WORDS = Kind(
    expected="a list of strings", metavar="A,B,..", holds=_are_texts,
    # A word's leading space is a part of its token.
    read=lambda text: tuple(_said(text).split(",")),
)  # fmt: skip
WHOLE = Kind(expected="a whole number", metavar="NUMBER", holds=_is_whole, read=int)
NUMBER = Kind(expected="a number", metavar="NUMBER", holds=is_number, read=float)
FLOAT = dataclasses.replace(NUMBER, kept=lambda folder, value: float(value))
SHARES = Kind(
    expected="a number or a list of them", metavar="SHARE,..", holds=_are_shares,
    read=_shares,
    kept=lambda folder, value: tuple(value) if isinstance(value, list) else (value,),
)  # fmt: skip
SHARE = Kind(
    expected="a share such as 0.93 or 93%", metavar="SHARE", read=lambda text: _share(text),
    holds=lambda value: _share(value) is not None, kept=lambda folder, value: _share(value),
)  # fmt: skip
PAIR = Kind(expected="KEY=VALUE", metavar="KEY=VALUE", holds=lambda value: True, read=_pair)
TRUTH = Kind(
    expected="true or false", metavar="true|false", holds=lambda value: isinstance(value, bool),
    read=lambda text: {"true": True, "false": False}.get(text.lower(), text),
)  # fmt: skip
SWITCH = Kind(expected="a truth value", metavar="", holds=lambda v: isinstance(v, bool), read=bool)


SENTENCE = Kind(
    expected="words", metavar="TEXT", holds=lambda value: _is_text(value) and bool(value.strip()),
    read=_said, kept=lambda folder, value: value.strip(),
)  # fmt: skip
DAY = Kind(
    expected="a day such as 2027-03-31", metavar="DAY", holds=_is_day, read=_said,
    kept=lambda folder, value: str(value),
)  # fmt: skip


def choice(*names: str) -> Kind:
    """Return the form of one of several words."""
    expected = f"one of {', '.join(names)}"
    return Kind(expected=expected, metavar="|".join(names), holds=lambda value: value in names,
                read=str)  # fmt: skip


def bounded(*, whole: bool = False, above: float | None = None, below: float | None = None) -> Kind:
    """Return the form of numbers above a bound, or of at least 0, and below another, if any."""
    kind = WHOLE if whole else NUMBER
    bound = "of at least 0" if above is None else f"above {above:g}"
    bound += "" if below is None else f" and below {below:g}"

    def holds(value: Any) -> bool:
        inside = below is None or value < below
        return kind.holds(value) and inside and (value >= 0 if above is None else value > above)

    return dataclasses.replace(kind, expected=f"{kind.expected} {bound}", holds=holds,
                               read=number_in)  # fmt: skip


def said(
    kind: Kind,
    text: str,
    *,
    at: str = "",
    flag: str | None = None,
    default: Any = None,
    **more: Any,
) -> Any:
    """Declare one field of a settings dataclass.

    Args:
        text: the flag's help, and audit.toml's hint.
        at: TABLE.KEY of audit.toml.
        flag: where it is not the field's own name; "" for the command's argument.
        default: what holds where nobody says it.
    """
    table, _, key = at.rpartition(".")
    if kind is PAIR and "metavar" in more:
        kind = dataclasses.replace(PAIR, expected=more["metavar"])
    declared = Field(kind=kind, help=text, flag="?" if flag is None else flag, table=table, key=key,
                     **more)  # fmt: skip
    if not declared.told and default is not None and default is not False and default != ():
        plain = default if isinstance(default, tuple) else (default,)
        declared = dataclasses.replace(declared, told=",".join(map(str, plain)))
    return dataclasses.field(default=default, metadata={"said": declared})


def fields_of(kind: type) -> dict[str, Field]:
    """Return what a settings dataclass declares, by the name of its field."""
    found = {}
    for each in dataclasses.fields(kind):
        if declared := each.metadata.get("said"):
            flag = f"--{each.name.replace('_', '-')}" if declared.flag == "?" else declared.flag
            found[each.name] = dataclasses.replace(declared, flag=flag)
    return found


def origins_of(
    kind: type | Mapping[str, Field],
    given: Mapping[str, Any],
    values: Mapping[tuple[str, str], Any],
    file: Path | None,
) -> dict[str, str]:
    """Return where each field of a settings object comes from: its flag, or a file and its table.

    Args:
        kind: a dataclass of fields that `said` declares, or such fields by name.
        given: the command line's values by name.
        values: those of audit.toml, by table and key.
        file: that audit.toml.
    """
    found = {}
    for name, declared in (fields_of(kind) if isinstance(kind, type) else kind).items():
        if given.get(name) is not None:
            found[name] = declared.flag or "the command line"
        elif (declared.table, declared.key) in values:
            found[name] = f"{file} [{declared.table}]"
    return found


def settled(
    kind: type[T],
    given: Mapping[str, Any],
    values: Mapping[tuple[str, str], Any] = MappingProxyType({}),
) -> T:
    """Return a settings object: the flag over audit.toml over the default, of each field.

    Args:
        kind: a dataclass of fields that `said` declares.
        given: the command line's values by name; None alone means that nothing was said.
        values: those of audit.toml, by table and key.
    """
    chosen = {}
    for name, declared in fields_of(kind).items():
        value = given.get(name)
        if value is None:
            value = values.get((declared.table, declared.key))
        if value is not None:
            chosen[name] = value
    return kind(**chosen)
