"""What lies on the disk: read strictly, written whole or not at all, whatever ends the process.

Records are read by pydantic over their frozen dataclasses as they stand. Importing it takes a
while, so that happens only where something is read, and `records` itself needs nothing but Python.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import math
import os
import re
import stat
import typing
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from poison_audit.errors import InputError, Problem, did_you_mean

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")

_MOST = 20
"""Problems of one text that are told; of more, only how many."""
_EXPECTED = {
    "bool_type": "of type bool",
    "dataclass_type": "an object",
    "dict_type": "an object",
    "finite_number": "a number",
    "float_type": "of type float",
    "int_from_float": "of type int",
    "int_type": "of type int",
    "string_type": "of type str",
    "tuple_type": "a list",
}
"""By pydantic's name of an error: what was expected."""
_ASIDE = 0x10F800 - 0xD800
"""How far lone surrogates, which pydantic refuses, are moved while it reads."""
PARTIAL = ".poison-audit-part"
"""How the names of files end that are not whole yet: nobody else's do."""


def to_json(record: Any) -> str:
    """Return a record as JSON: sorted keys, full precision, no NaN (ValueError on one)."""
    plain = dataclasses.asdict(record)
    return json.dumps(plain, indent=1, sort_keys=True, allow_nan=False) + "\n"


def digest_of(plain: Any) -> str:
    """Return the SHA-256 of what JSON can say, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def from_json(
    cls: type[T],
    text: str,
    *,
    where: str = "report.json",
    extra: Literal["forbid", "ignore"] = "forbid",
) -> T:
    """Read a record back: no key may be missing or mistyped, and no number beyond any float.

    Args:
        cls: a dataclass.
        text: JSON.
        where: what is read, for problems.
        extra: what to do with keys that the record has no field for.

    Raises:
        InputError: everything that is wrong, each with its place.
    """
    from pydantic import ValidationError

    try:
        plain = json.loads(
            text, parse_constant=_no_number, parse_float=_finite, object_pairs_hook=_once
        )
        # A path whose bytes are no UTF-8 holds lone surrogates, and JSON can say them.
        aside = _moved(plain, 0xD800, _ASIDE) if "\\ud" in text.lower() else None
    except (ValueError, RecursionError) as error:
        raise InputError(Problem(f"not JSON ({error})", where)) from error
    read: Any = reader(typing.cast(Any, cls), extra)
    try:
        (record,) = read.validate_json(f"[{json.dumps(aside) if aside else text}]")
    except ValidationError as error:
        raise InputError(_problems(cls, error.errors(include_url=False), where)) from error
    return _moved(record, 0xD800 + _ASIDE, -_ASIDE) if aside else record  # type: ignore[no-any-return]


@cache
def reader(
    cls: Any, extra: Literal["forbid", "ignore"] = "forbid", *, described: bool = False
) -> TypeAdapter[tuple[Any]]:
    """Return pydantic's reader of a list of one such record.

    Args:
        cls: a dataclass.
        extra: what to do with keys that the record has no field for.
        described: whether it knows the docstrings of fields, which stand in the source alone and
            take as long to find as all else together.
    """
    from pydantic import ConfigDict, TypeAdapter

    config = ConfigDict(
        strict=True,
        extra=extra,
        allow_inf_nan=False,
        use_attribute_docstrings=described,
        json_schema_serialization_defaults_required=True,
    )
    # A dataclass has no place for this config, but takes it over from what holds it.
    return TypeAdapter(tuple[cls], config=config)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Of two values one reader would take the first, and another one the last.
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key in counts if counts[key] > 1)
        raise ValueError(f"the key {twice!r:.80} stands twice in one object")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text:.20} is beyond any float")
    return value


def _moved(value: Any, first: int, by: int) -> Any:
    """Return a value whose strings hold the 2048 characters from `first` so much further on."""
    if type(value) is str:  # an enum's member stays one
        place = re.compile(f"[{chr(first)}-{chr(first + 2047)}]")
        return place.sub(lambda match: chr(ord(match[0]) + by), value)
    if isinstance(value, list | tuple):
        return type(value)(_moved(item, first, by) for item in value)
    if isinstance(value, Mapping):
        return {_moved(k, first, by): _moved(v, first, by) for k, v in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        own = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return type(value)(**_moved(own, first, by))
    return value


def _problems(cls: type[Any], errors: Sequence[Any], where: str) -> list[Problem]:
    """Return pydantic's errors in our words; misspelt keys first: they explain what is missing."""
    unknown, others = [], []
    for error in errors:
        at, kind, context = error["loc"][1:], error["type"], error.get("ctx", {})
        steps = [f"[{key}]" if isinstance(key, int) else f".{key}" for key in at]
        here, inside = where + "".join(steps), where + "".join(steps[:-1])
        if kind == "unexpected_keyword_argument":
            hint = did_you_mean(at[-1], _fields(cls, at[:-1]))
            unknown.append(Problem(f"unknown key {at[-1]!r:.80}", inside, hint))
        elif kind == "missing":
            others.append(Problem(f"missing key {at[-1]!r}", inside))
        elif kind in ("json_invalid", "value_error"):
            told = "not JSON ({})" if kind == "json_invalid" else "{}"
            others.append(Problem(told.format(context["error"]), here))
        else:
            expected = _EXPECTED.get(kind) or f"one of {context.get('expected')}"
            known = kind in _EXPECTED or "expected" in context
            told = f"expected {expected}" if known else re.sub(r"^\w+ ", "", error["msg"])
            others.append(Problem(f"{told}, got {error['input']!r:.80}", here))
    found = [*unknown, *others]
    more = len(found) - _MOST
    return found[:_MOST] + [Problem(f"{more} more problems", where)] * (more > 0)


def _fields(kind: Any, at: Sequence[int | str]) -> list[str]:
    """Return the keys of the record that stands at a place of another one."""
    for key in at:
        if dataclasses.is_dataclass(kind):
            kind = typing.get_type_hints(kind)[str(key)]
        else:
            kind = typing.get_args(kind)[isinstance(key, str)]
        if type(None) in typing.get_args(kind):
            kind = typing.get_args(kind)[0]
    return list(typing.get_type_hints(kind))


@contextmanager
def written_whole(path: Path, *, mode: int = 0o666) -> Iterator[Path]:
    """Give the temporary neighbour to write, which takes the file's place once it is on the disk.

    A link that stands in its place is replaced, and not followed.

    Args:
        path: the file; its folder is made where there is none.
        mode: who may read it, before the umask.

    Raises:
        OSError: it cannot be written; what stood at `path` still does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    partial.unlink(missing_ok=True)
    _remove_abandoned(path)
    try:
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode))
        yield partial
        # A machine that dies may otherwise be left with the new name and none of the content.
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: Path, text: str, *, mode: int = 0o666) -> None:
    """Write a UTF-8 text file through a temporary neighbour; `mode`: who may read it."""
    with written_whole(path, mode=mode) as partial:
        partial.write_text(text, encoding="utf-8")


def read_plainly(path: Path, *, most: int | None = None) -> bytes:
    """Return the bytes of a file that may be anybody's, but is a file: no link, pipe or device.

    Args:
        path: the file; links on the way to it are followed.
        most: bytes that are read.

    Raises:
        OSError: it is none, cannot be read, or has more than `most`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is no file", str(path))
        raw = file.read(-1 if most is None else most + 1)
    if most is not None and len(raw) > most:
        raise OSError(errno.EFBIG, f"is larger than {most >> 20} MiB", str(path))
    return raw


def _remove_abandoned(path: Path) -> None:
    """Remove what processes that live no longer had begun to write in a file's place."""
    begun = re.compile(rf"\.{re.escape(path.name)}\.(\d{{1,9}}){re.escape(PARTIAL)}")
    # Elsewhere signal 0 does more than ask whether a process lives.
    for there in path.parent.iterdir() if os.name == "posix" else ():
        if found := begun.fullmatch(there.name):
            try:
                os.kill(int(found[1]), 0)
            except ProcessLookupError:
                there.unlink(missing_ok=True)
            except OSError:
                pass  # somebody else's process, which lives


def remove_partials(folder: Path) -> None:
    """Remove what processes that were killed had begun to write in this folder.

    Call it only where no other process writes.
    """
    for path in folder.glob(f".*{PARTIAL}"):
        if re.fullmatch(rf"\..+\.\d+{PARTIAL}", path.name):
            path.unlink(missing_ok=True)
