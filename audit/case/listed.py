"""Forget sets that are bare lists: positions, ids, paths or a mask, told apart beyond doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from poison_audit.case.csvfile import CsvFile
from poison_audit.case.jsonrows import cell_of, table_of
from poison_audit.case.labels import as_whole
from poison_audit.errors import InputError, Problem
from poison_audit.models.samples import Samples

NAMES = {
    "": ("forget", "forget_set", "forget_list", "poison", "poisoned", "poisons", "deletion"),
    "index": (
        "index", "indices", "idx", "idxs", "position", "positions", "forget_index", "forget_idx",
        "forget_indices", "forget_positions", "poison_idx", "poison_indices", "poisoned_indices",
        "poison_index",
    ),
    "id": ("id", "ids", "forget_id", "forget_ids", "poison_ids", "sample_ids"),
    "path": ("path", "paths", "file", "files", "forget_paths", "forget_files", "file_names"),
    "mask": ("mask", "forget_mask", "poison_mask", "is_forget", "is_poison"),
}  # fmt: skip
"""What files call a list of samples to forget, by what it must then hold; empty: anything."""
WORDS = {"true": True, "false": False}
"""How a mask spells what it says of a sample."""
BOTH = "Write them as a CSV with the header index (positions from 0) or id."


def rows_of(found: Any, train: Samples, *, where: str, where_train: str, digest: str) -> CsvFile:
    """Return what a value of lists and plain values says, as the rows of a table.

    Args:
        found: a list of positions from 0, ids, paths, or one boolean a sample; a list of objects,
            whose keys are columns; or an object that holds one of these under a usual name.
        train: what it names samples of.
        where: what messages call the file.
        where_train: what messages call the training table.
        digest: SHA-256 of the file.

    Raises:
        InputError: it is none of these, or can be read in two ways.
    """
    kind = ""
    for _ in range(3):
        if not isinstance(found, Mapping):
            break
        if columns := _columns(found):
            found = [
                dict(zip(columns, cells, strict=True))
                for cells in zip(*columns.values(), strict=True)
            ]
            break
        kind, found = _chosen(found, where)
    if not isinstance(found, list):
        what = f"expected a list of samples to forget, got {type(found).__name__}"
        raise InputError(Problem(what, where, "Give positions from 0, ids, or paths."))
    if found and all(isinstance(each, dict) for each in found):
        numbers = range(len(found))
        records = table_of(found, numbers, where, unit="entry")
        header = next(records, (0, []))[1]
        rows = tuple(dict(zip(header, cells, strict=True)) for _, cells in records)
        return _table(tuple(header), rows, numbers, where=where, digest=digest, unit="entry")
    if strange := {type(each).__name__ for each in found if isinstance(each, list | dict)}:
        what = f"expected positions, ids or paths, got a {min(strange)} among them"
        raise InputError(Problem(what, where))
    values = [cell_of(each) for each in found]
    return values_of(
        values, range(len(values)), train, where=where, where_train=where_train, digest=digest,
        unit="entry", kind=kind,
    )  # fmt: skip


def values_of(
    values: Sequence[str],
    numbers: Sequence[int],
    train: Samples,
    *,
    where: str,
    where_train: str,
    digest: str,
    unit: str,
    kind: str = "",
) -> CsvFile:
    """Return a list of values as the rows of a table of one column, which says what they are.

    Args:
        numbers: where each value stands, for messages; `unit` says what is counted.
        kind: what the file itself says that they are: a key of `NAMES`.

    Raises:
        InputError: they name nothing, or it is in doubt what they name.
    """
    if not values:
        raise InputError(Problem("there is no sample in it", where))
    if kind in ("", "mask") and (mask := _mask(values, sure=kind == "mask")) is not None:
        _check_mask(mask, train.rows, where, where_train)
        marked = [place for place, is_marked in enumerate(mask) if is_marked]
        rows = tuple({"index": str(place)} for place in marked)
        at = [numbers[place] for place in marked]
        return _table(("index",), rows, at, where=where, digest=digest, unit=unit)
    if kind == "mask":
        raise InputError(Problem("is called a mask, and holds other values than booleans", where))
    column = kind or _column(values, train, where, where_train)
    if column == "index" and (problem := _beyond(values, train.rows, where, where_train)):
        raise InputError(problem)
    rows = tuple({column: value} for value in values)
    return _table((column,), rows, numbers, where=where, digest=digest, unit=unit)


def _table(
    columns: tuple[str, ...], rows: tuple[dict[str, str], ...], numbers: Sequence[int], **more: Any
) -> CsvFile:
    return CsvFile(columns=columns, rows=rows, numbers=tuple(numbers), **more)


def _columns(found: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return lists of one length that stand under names of columns, empty if they do not."""
    known = {"id", "path", "text", "index", "label", "attack", "campaign", "canary", "base"}
    lists = {name: each for name, each in found.items() if isinstance(each, list)}
    alike = len({len(each) for each in lists.values()}) == 1
    return lists if len(lists) == len(found) > 1 and alike and set(lists) <= known else {}


def _chosen(found: Mapping[str, Any], where: str) -> tuple[str, Any]:
    """Return the list that is to be forgotten, and what it must hold."""
    kinds = {name: kind for kind, names in NAMES.items() for name in names}
    spelt = {name: str(name).casefold().replace("-", "_").replace(" ", "_") for name in found}
    there = [name for name in found if spelt[name] in kinds]
    if len(there) == 1:
        return kinds[spelt[there[0]]], found[there[0]]
    names = ", ".join(repr(str(name))[:40] for name in list(found)[:8]) or "nothing"
    if len(found) > 1 and not any(isinstance(each, list | dict) for each in found.values()):
        what = f"maps {names} to single values: do the names or the values say what to forget?"
        raise InputError(Problem(what, where, "Write a list of those alone, as JSON."))
    what = f"holds {names}: which of them is to be forgotten?"
    raise InputError(Problem(what, where, 'Call that one "forget", and leave out the others.'))


def _mask(values: Sequence[str], *, sure: bool) -> list[bool] | None:
    """Return a mask: booleans, or zeros and ones that repeat, which positions never do."""
    words = [WORDS.get(value.casefold()) for value in values]
    if all(word is not None for word in words):
        return [bool(word) for word in words]
    numbers = [as_whole(value) for value in values]
    if set(numbers) <= {0, 1} and (sure or len(numbers) > 2):
        return [number == 1 for number in numbers]
    return None


def _check_mask(mask: Sequence[bool], count: int, where: str, where_train: str) -> None:
    if len(mask) != count:
        what = f"is a mask of {len(mask):,} samples, and {where_train} has {count:,}"
        fix = "Give one boolean for each of its rows, or the positions of those to forget."
        raise InputError(Problem(what, where, fix))
    marked = sum(mask)
    if not marked:
        raise InputError(Problem("is a mask that marks no sample", where))
    if 2 * marked > count:
        what = f"is a mask of {marked:,} of {count:,} samples: does it mark what is to be kept?"
        fix = "Turn it round if so; else give their positions, as numpy.flatnonzero(mask) does."
        raise InputError(Problem(what, where, fix))


def _column(values: Sequence[str], train: Samples, where: str, where_train: str) -> str:
    """Return which column the values would stand in, if there is but one that they can."""
    places = {name: place for place, name in enumerate(train.ids)}
    whole = [as_whole(value) for value in values]
    are_ids = all(value in places for value in values)
    if None in whole:
        return "id" if are_ids else "path" if train.paths is not None else "id"
    gone = {out.position for out in train.left_out}
    rows = [row for row in range(train.rows) if row not in gone]
    if not any(as_whole(name) not in (None, rows[at]) for name, at in places.items()):
        return "index"
    within = [number is not None and 0 <= number < train.rows for number in whole]
    if are_ids and not all(within):
        return "id"
    what = f"holds numbers, which may be ids of {where_train} or positions in it"
    if (shared := next((v for v in values if v in places), None)) is not None:
        what += f" ({shared} is the id of the sample at {places[shared]})"
    raise InputError(Problem(what, where, BOTH))


def _beyond(values: Sequence[str], count: int, where: str, where_train: str) -> Problem | None:
    """Return the problem of values that are no position of a table of so many samples."""
    whole = [as_whole(value) for value in values]
    wrong = [
        value
        for value, number in zip(values, whole, strict=True)
        if number is None or not 0 <= number < count
    ]
    if not wrong:
        return None
    what = (
        f"{len(wrong):,} of {len(values):,} entries are no position in {where_train}, which has "
        f"0 to {count - 1} (the first: {wrong[0]!r:.60})"
    )
    numbers = [number for number in whole if number is not None]
    if len(numbers) == len(values) and min(numbers) >= 1 and max(numbers) == count:
        return Problem(what, where, "Positions count from 0; these may count from 1.")
    return Problem(what, where, "Were they saved for another table?")
