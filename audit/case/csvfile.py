"""Tables of text cells: CSV, TSV and JSON lines, read strictly; problems are named by the row."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from poison_audit.case.columns import renamed
from poison_audit.case.filetext import as_text, kind_of, read_bytes
from poison_audit.case.jsonrows import object_lines
from poison_audit.errors import InputError, Problem, did_you_mean

MOST = 10
"""Largest number of like problems that are listed one by one."""
LINES = (".jsonl", ".ndjson")
"""Suffixes of files of one JSON object a line."""
KINDS = (".csv", ".tsv", ".tab", *LINES)
"""Suffixes of tables of text cells; each may be packed, `.gz` after it."""


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
    unit: str = "row"
    """What is numbered."""

    def place(self, number: int) -> str:
        """Return where the row of a number stands, for messages."""
        return f"{self.where} {self.unit} {number}"

    def places(self) -> list[str]:
        """Return where each row stands, for messages."""
        return [self.place(number) for number in self.numbers]


def read_csv(
    path: Path,
    *,
    needed: Sequence[str],
    known: Sequence[str] | None = None,
    aliases: Mapping[str, Sequence[str]] | None = None,
) -> CsvFile:
    """Read a table with a header.

    Args:
        path: commas, semicolons or tabs part its cells, whichever part the header into most; in a
            `.jsonl` each line is an object. UTF-8, or UTF-16 with a byte-order mark; packed by
            gzip or not.
        needed: columns that must be there.
        known: every column that may be there; None: any.
        aliases: by column, what else it may be called.

    Raises:
        InputError: the file is missing, empty, not UTF-8 or not CSV; columns are missing, unknown
            or repeated; rows have more or fewer cells than the header. All at once.
    """
    where, raw = str(path), read_bytes(path)
    lines = kind_of(path) in LINES
    text, unit = as_text(raw, where), "line" if lines else "row"
    records = object_lines(text, where) if lines else _records(text, where, kind_of(path))
    _, header = next(records, (0, []))
    if not header:
        raise InputError(Problem("the file is empty", where))
    header, problems = renamed(header, aliases or {}, where)
    problems += _wrong_columns(header, where, needed, known)
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
        unit=unit,
    )


def first(problems: Sequence[Problem], where: str) -> list[Problem]:
    """Return the first ten of many like problems, and how many more there are."""
    shown = list(problems[:MOST])
    if len(problems) > MOST:
        shown.append(Problem(f"{len(problems) - MOST} more rows have such a problem", where))
    return shown


def cells_of(text: str, kind: str = ".csv") -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of every record of a CSV text, blank ones too, and the line it begins in.

    Args:
        kind: the file's suffix, as `kind_of` gives it: in a `.tsv` tabs go before commas.

    Raises:
        csv.Error: it is no CSV.
    """
    lines = io.StringIO(text, newline="")
    stated = lines.readline().strip()
    skipped = stated.casefold().startswith("sep=") and len(stated) <= 5
    # A line of Excel's says what parts the cells.
    mark = stated[4:] or "\t" if skipped else _delimiter(text, kind)
    if skipped:
        yield 1, []
    else:
        lines.seek(0)
    reader = csv.reader(lines, strict=True, delimiter=mark)
    # A quoted cell may hold line breaks: a record begins after the last one's end.
    before = 0
    for cells in reader:
        yield before + 1 + skipped, [cell.strip() for cell in cells]
        before = reader.line_num


def _delimiter(text: str, kind: str) -> str:
    """Return what parts the header into most cells."""
    marks = "\t,;" if kind in (".tsv", ".tab") else ",;\t"
    head = text.lstrip("\r\n")
    widths = {}
    for mark in marks:
        try:
            header = next(csv.reader(io.StringIO(head, newline=""), delimiter=mark), [])
        except csv.Error:
            header = []
        widths[mark] = len(header)
    return max(marks, key=lambda mark: widths[mark])


def _records(text: str, where: str, kind: str) -> Iterator[tuple[int, list[str]]]:
    # Records are counted, not lines: a quoted cell may hold line breaks.
    number = 0
    try:
        for number, (_, cells) in enumerate(cells_of(text, kind), start=1):
            if any(cells):
                yield number, cells
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
        unknown = sorted(set(header) - set(known))
        problems += [
            Problem(f"unknown column {name!r:.80}", where, did_you_mean(name, known))
            for name in unknown[:MOST]
        ]
        problems += _more(len(unknown) - MOST, "unknown columns", where)
    # Of columns without a name, such as pandas writes before the others, nobody asks anything.
    repeated = sorted(name for name, times in Counter(header).items() if name and times > 1)
    problems += [
        Problem(f"the column {name!r:.80} appears twice", where) for name in repeated[:MOST]
    ]
    return problems + _more(len(repeated) - MOST, "columns appear twice", where)


def _more(count: int, what: str, where: str) -> list[Problem]:
    return [Problem(f"{count:,} more {what}", where)] if count > 0 else []
