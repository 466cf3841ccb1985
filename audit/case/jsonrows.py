"""Rows from JSON: a file of one object a line, or a list of objects."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from poison_audit.errors import InputError, Problem


def read_json(text: str, where: str) -> Any:
    """Return what a text of JSON holds; of an object whose keys repeat nothing is taken.

    Raises:
        InputError: it is no JSON, or holds what nobody can have meant.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise InputError(Problem(f"not JSON ({error!s:.200})", where)) from error


def object_lines(text: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the columns of a file of one object a line as row 0, then each line's number and cells.

    Raises:
        InputError: a line is no object.
    """
    objects, numbers = [], []
    # Not splitlines(), which parts at characters that may stand in a string.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            objects.append(read_json(line, f"{where} line {number}"))
            numbers.append(number)
    yield from table_of(objects, numbers, where, unit="line")


def table_of(
    objects: Sequence[Any], numbers: Sequence[int], where: str, *, unit: str
) -> Iterator[tuple[int, list[str]]]:
    """Yield the columns of several objects as row 0, then each one's number and cells.

    Raises:
        InputError: one is no object, or holds text that is none.
    """
    columns: dict[str, None] = {}
    for each, number in zip(objects, numbers, strict=True):
        if not isinstance(each, dict):
            what = f"expected an object {{...}}, got {type(each).__name__}"
            raise InputError(Problem(what, f"{where} {unit} {number}"))
        columns |= dict.fromkeys(each)
    if columns:
        yield 0, [_text(name, where) for name in columns]
    for each, number in zip(objects, numbers, strict=True):
        place = f"{where} {unit} {number}"
        yield number, [_text(cell_of(each.get(name)), place) for name in columns]


def cell_of(value: Any) -> str:
    """Return a value as a CSV table would hold it, stripped.

    >>> [cell_of(value) for value in (" a ", 3, 12.0, True, None, [1])]
    ['a', '3', '12.0', 'true', '', '[1]']
    """
    if value is None:
        return ""
    return value.strip() if isinstance(value, str) else json.dumps(value)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        what = f"the key {repeated!r:.60} appears twice"
        raise ValueError(what)
    return found


def _text(cell: str, place: str) -> str:
    try:
        cell.encode()
    except UnicodeEncodeError as error:
        what = f"a text holds half a character ({cell[error.start]!r})"
        raise InputError(Problem(what, place)) from error
    return cell
