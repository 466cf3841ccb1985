"""CSV files of this project: read strictly, with every problem named by the row it stands in."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from poison_audit.errors import InputError, Problem, did_you_mean

MOST = 10
"""Largest number of like problems that are listed one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvFile:
    """The cells of a CSV file, without the whitespace around them."""

    where: str
    """The file's path, as messages print it."""
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    """Column -> cell; a row that is blank throughout is left out."""
    numbers: tuple[int, ...]
    """Each row's number as a spreadsheet shows it: the header is row 1."""
    digest: str
    """SHA-256 of the file's bytes."""

    def places(self) -> list[str]:
        """Return where each row stands, for messages."""
        return [f"{self.where} row {number}" for number in self.numbers]


def read_csv(path: Path, *, needed: Sequence[str], known: Sequence[str] | None = None) -> CsvFile:
    """Read a CSV file with a header.

    Args:
        path: UTF-8, comma-separated, with or without a byte-order mark.
        needed: columns that must be there.
        known: every column that may be there; None: any.

    Raises:
        InputError: the file is missing, empty, not UTF-8 or not CSV; columns are missing, unknown
            or repeated; rows have more or fewer cells than the header. All at once.
    """
    where = str(path)
    raw = read_bytes(path)
    records = _records(raw, where)
    number, header = next(records, (0, []))
    if not header:
        raise InputError(Problem("the file is empty", where))
    problems = _wrong_columns(header, where, needed, known)
    rows: list[dict[str, str]] = []
    numbers: list[int] = []
    ragged: list[Problem] = []
    for number, cells in records:
        if len(cells) != len(header):
            what = f"{len(cells)} cells under {len(header)} columns"
            ragged.append(Problem(what, f"{where} row {number}", "Quote cells that hold commas."))
            continue
        rows.append(dict(zip(header, cells, strict=True)))
        numbers.append(number)
    if not rows and not ragged:
        problems.append(Problem("there is a header but no row", where))
    problems += first(ragged, where)
    if problems:
        raise InputError(problems)
    return CsvFile(
        where=where,
        columns=tuple(header),
        rows=tuple(rows),
        numbers=tuple(numbers),
        digest=hashlib.sha256(raw).hexdigest(),
    )


def read_bytes(path: Path, *, most: int | None = None, fix: str = "") -> bytes:
    """Return a file's bytes; InputError when it cannot be read, or has more than `most`."""
    try:
        with path.open("rb") as file:
            raw = file.read(-1 if most is None else most + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(Problem(f"cannot be read ({reason})", str(path))) from error
    if most is not None and len(raw) > most:
        raise InputError(Problem(f"larger than {most >> 20} MiB", str(path), fix))
    return raw


def first(problems: Sequence[Problem], where: str) -> list[Problem]:
    """Return the first ten of many like problems, and how many more there are."""
    shown = list(problems[:MOST])
    if len(problems) > MOST:
        shown.append(Problem(f"{len(problems) - MOST} more rows have such a problem", where))
    return shown


def _records(raw: bytes, where: str) -> Iterator[tuple[int, list[str]]]:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = raw[: error.start].count(b"\n") + 1
        what = f"not UTF-8 (byte {raw[error.start]:#04x} in line {row})"
        raise InputError(Problem(what, where, "Save it as CSV UTF-8.")) from error
    # Records are counted, not lines: a quoted cell may hold line breaks.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    number = 0
    try:
        for number, cells in enumerate(reader, start=1):
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                yield number, stripped
    except csv.Error as error:
        raise InputError(Problem(f"not CSV ({error})", f"{where} row {number + 1}")) from error


def _wrong_columns(
    header: Sequence[str], where: str, needed: Sequence[str], known: Sequence[str] | None
) -> list[Problem]:
    problems = [
        Problem(f"the column {name!r} is missing", where, did_you_mean(name, header))
        for name in needed
        if name not in header
    ]
    if known is not None:
        problems += [
            Problem(f"unknown column {name!r}", where, did_you_mean(name, known))
            for name in sorted(set(header) - set(known))
        ]
    repeated = sorted({name for name in header if header.count(name) > 1})
    problems += [Problem(f"the column {name!r} appears twice", where) for name in repeated]
    return problems
