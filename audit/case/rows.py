"""Rows of a CSV file that name samples of a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from poison_audit.case.csvfile import CsvFile, first
from poison_audit.case.labels import as_integer
from poison_audit.errors import InputError, Problem
from poison_audit.models.samples import Samples


def find_samples(table: CsvFile, samples: Samples, *, where: str) -> list[int | Problem]:
    """Return for each row the position of the sample it names, or what is wrong with it.

    The first of the columns `id`, `path` (an id of a table without ids), `text` and `index` (the
    position from 0) that is there is used in every row.

    Args:
        table: the file.
        samples: what its rows name.
        where: what messages call the samples' table.

    Raises:
        InputError: no column names the samples.
    """
    column = next((name for name in ("id", "path", "text", "index") if name in table.columns), None)
    if column is None:
        fix = "Name them by id, path, text or index."
        raise InputError(Problem("no column names the samples", table.where, fix))

    def spell(text: str) -> str:
        return PurePosixPath(text).as_posix() if column == "path" else text

    named = (samples.texts or ()) if column == "text" else samples.ids
    times = Counter(named)
    places = {spell(name): position for position, name in enumerate(named)}
    found: list[int | Problem] = []
    for row, place in zip(table.rows, table.places(), strict=True):
        text = row[column]
        position = as_integer(text) if column == "index" else places.get(spell(text))
        if not text:
            found.append(Problem(f"the {column} is empty", place))
        elif position is None or not 0 <= position < len(samples):
            found.append(Problem(f"no sample of {where} has the {column} {text!r:.200}", place))
        elif column == "text" and times[text] > 1:
            what = f"{times[text]} samples of {where} have the text {text!r:.200}"
            found.append(Problem(what, place, "Name it by id or index."))
        else:
            found.append(position)
    return found


def repeated(noun: str, values: Sequence[object], table: CsvFile) -> list[Problem]:
    """Return the rows whose value stands in an earlier row as well; None counts as no value."""
    row_of: dict[object, int] = {}
    problems = []
    for value, number in zip(values, table.numbers, strict=True):
        if value is not None and (other := row_of.setdefault(value, number)) != number:
            what = f"the same {noun} as in row {other}"
            problems.append(Problem(what, f"{table.where} row {number}", "Remove one."))
    return first(problems, table.where)


def wrong_label(row: dict[str, str], samples: Samples, position: int, where: str) -> str:
    """Say that a row's `label`, a name or a number, is not its sample's; empty if it is."""
    stated, trained = row.get("label", ""), int(samples.y[position])
    name = label_name(samples, trained)
    if not stated or stated == name or as_integer(stated) == trained:
        return ""
    return f"the label is {stated!r}, but {where} says {label_spelt(samples, trained)}"


def label_name(samples: Samples, label: int) -> str | None:
    """Return what a class is called, where its table says."""
    return samples.names[label] if samples.names and label < len(samples.names) else None


def label_spelt(samples: Samples, label: int) -> str:
    """Return a class number and, where there is one, its name."""
    name = label_name(samples, label)
    return f"{label} ({name!r})" if name else str(label)
