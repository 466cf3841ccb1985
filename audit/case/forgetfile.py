"""A forget set as people keep it, to the rows of a table: files, lists, masks, and exports."""

from __future__ import annotations

import csv
import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from poison_audit.case import listed, pickled
from poison_audit.case.arrays import array_in, arrays_in
from poison_audit.case.columns import PICTURE
from poison_audit.case.csvfile import LINES, CsvFile, cells_of, first, read_csv
from poison_audit.case.filetext import as_text, kind_of, read_bytes
from poison_audit.case.jsonrows import read_json
from poison_audit.case.labels import as_whole
from poison_audit.case.parquet import cell_text, parquet_columns
from poison_audit.case.rows import NAMING
from poison_audit.errors import InputError, Problem, did_you_mean
from poison_audit.models.samples import Samples

COLUMNS = (
    "id", "path", "text", "index", "label", "attack", "campaign", "canary", "base", "sha256",
    "clean_label", "chosen",
)  # fmt: skip
ALIASES: Mapping[str, Sequence[str]] = {
    "path": PICTURE["path"],
    "index": ("idx", "indices", "position", "positions", "sample_index", "sample_idx"),
    "id": ("ids", "sample_id"),
    "label": ("given_label",),
    "clean_label": ("true_label", "correct_label"),
}
"""What other programs call them; cleanlab's given_label is the one that was trained on."""
MARKERS = ("forget", "is_forget", "poison", "is_poison", "poisoned", "is_poisoned")
"""Columns that say of every row whether it is to be forgotten; is_label_issue is another."""
UNNAMED = ("", "Unnamed: 0", "__index_level_0__")
"""What becomes of the index of a pandas DataFrame, in a file and read again."""
BESIDE = ("predicted_label", "label_quality", "label_score")
"""What cleanlab says beside is_label_issue."""
CHANCE = 1e-6
"""So rarely may labels agree by chance where they alone prove what a column means."""
_FIX = "Save a list of positions as .npy, .json or .txt."


def read_rows(
    path: Path, train: Samples, *, where_train: str, allow_pickle: bool = False
) -> CsvFile:
    """Read which samples a file names, as the rows of a table with the columns of `COLUMNS`.

    Args:
        path: a table as `read_csv` or Parquet has it; or a list of positions from 0, of ids or of
            paths, or a mask: `.npy`, `.npz`, `.json`, a text file of one a line, and with
            `allow_pickle` `.pt` and `.pkl`.
        train: what it names samples of.
        where_train: what messages call that.
        allow_pickle: whether a pickle may be read, plain values and arrays only.

    Raises:
        InputError: it is none of these, or can be read in two ways.
    """
    where, kind = str(path), kind_of(path)
    if path.is_dir():
        raise InputError(Problem("is a folder", where, "Give a file that lists the samples."))
    raw = read_bytes(path)
    told = {"where": where, "where_train": where_train, "digest": hashlib.sha256(raw).hexdigest()}
    if kind == ".npy":
        return listed.rows_of(pickled.plain(array_in(path)), train, **told)
    if kind == ".npz":
        arrays = arrays_in(path)
        lone = next(iter(arrays.values())) if len(arrays) == 1 else arrays
        return listed.rows_of(pickled.plain(lone), train, **told)
    if kind in (*pickled.TORCH, *pickled.PLAIN):
        read = pickled.read_torch if kind in pickled.TORCH else pickled.read_pickle
        found = pickled.plain(read(path, allow_pickle=allow_pickle, fix=_FIX))
        return listed.rows_of(found, train, **told)
    if kind == ".parquet":
        return _meant(_parquet(path, told["digest"]), train, where_train)
    if kind in LINES:
        return _meant(read_csv(path, needed=(), aliases=ALIASES), train, where_train)
    text = as_text(raw, where)
    if text.lstrip()[:1] in ("[", "{"):
        return listed.rows_of(read_json(text, where), train, **told)
    return _of_text(path, text, train, told)


def _of_text(path: Path, text: str, train: Samples, told: Mapping[str, str]) -> CsvFile:
    """Return the rows of a table with a header, or of a list without one."""
    kind = kind_of(path)
    try:
        records = [(line, cells) for line, cells in cells_of(text, kind) if any(cells)]
    except csv.Error:
        records = []  # read_csv says what is wrong, and where
    header = records[0][1] if records else []
    if not header or not _is_list(records, train):
        return _meant(read_csv(path, needed=(), aliases=ALIASES), train, told["where_train"])
    if len(records) == 1:
        # All of them in one line, parted by commas or by blanks.
        values = [part for cell in header for part in cell.split()]
        return listed.values_of(values, range(len(values)), train, unit="entry", **told)
    values, numbers = [cells[0] for _, cells in records], [line for line, _ in records]
    if values[0] == "0" and as_whole(values[1]) is not None and not set(values) <= {"0", "1"}:
        what = "its first line is 0: a position, or the header that pandas writes over a list"
        fix = "Put the line index above it if it is a position, or write that instead of it."
        raise InputError(Problem(what, told["where"], fix))
    return listed.values_of(values, numbers, train, unit="line", **told)


def _is_list(records: Sequence[tuple[int, list[str]]], train: Samples) -> bool:
    """Say whether a text has no header: numbers, or one column that begins with an id or path."""
    header = records[0][1]
    parts = [part for cell in header for part in cell.split()]
    if len(records) == 1 or len(header) == 1:
        if all(as_whole(part) is not None for part in parts):
            return len(records) == 1 or len(parts) == 1
        if header[0].casefold() in ("true", "false"):
            return len(header) == 1
        known = {name for names in ALIASES.values() for name in names} | {*COLUMNS, *UNNAMED}
        name = header[0].replace("\\", "/")
        names = {*train.ids, *(train.paths or ())}
        return len(header) == 1 and name.casefold() not in known and (name in names or "/" in name)
    return False


def _parquet(path: Path, digest: str) -> CsvFile:
    names = tuple(parquet_columns(path, ()))
    columns = parquet_columns(path, names)
    cells = [list(map(cell_text, columns[name])) for name in names]
    header = [_canonical(name, names) for name in names]
    rows = tuple(dict(zip(header, row, strict=True)) for row in zip(*cells, strict=True))
    if not rows:
        raise InputError(Problem("the table has no row", str(path)))
    return CsvFile(
        where=str(path), columns=tuple(header), rows=rows, numbers=tuple(range(len(rows))),
        digest=digest, unit="index",
    )  # fmt: skip


def _canonical(name: str, names: Sequence[str]) -> str:
    found = [each for each, others in ALIASES.items() if name in others and each not in names]
    return found[0] if found else name


def _meant(table: CsvFile, train: Samples, where_train: str) -> CsvFile:
    """Return the rows that are to be forgotten, each with a column that names its sample."""
    columns = list(table.columns)
    issues = [name for name in columns if name.startswith("is_") and name.endswith("_issue")]
    markers = issues + [name for name in columns if name in MARKERS]
    if len(markers) > 1:
        what = f"the columns {', '.join(markers)} each mark rows: which of them is meant?"
        raise InputError(Problem(what, table.where, "Leave one of them."))
    scores = [name for name in columns if issues and name.endswith("_score")]
    beside = {*markers, *scores, *(BESIDE if issues else ())}
    unnamed = [name for name in columns if name in UNNAMED or name.startswith("Unnamed: ")]
    unknown = [
        Problem(f"unknown column {name!r:.80}", table.where, did_you_mean(name, COLUMNS))
        for name in sorted(set(columns) - set(COLUMNS) - beside - set(unnamed))
    ]
    if unknown:
        raise InputError(first(unknown, table.where))
    if not set(NAMING) & set(columns):
        table = _counted(table, train, where_train, unnamed, marked=bool(markers))
    rows, numbers = table.rows, table.numbers
    if markers:
        rows, numbers = _marked(table, markers[0])
    kept = tuple(name for name in (*table.columns, "index") if name in COLUMNS)
    kept = tuple(name for name in dict.fromkeys(kept) if name in table.rows[0])
    rows = tuple({name: row[name] for name in kept} for row in rows)
    return replace(table, columns=kept, rows=rows, numbers=numbers)


def _marked(table: CsvFile, marker: str) -> tuple[tuple[dict[str, str], ...], tuple[int, ...]]:
    """Return the rows that a column marks, and their numbers."""
    words = {**listed.WORDS, "1": True, "0": False, "1.0": True, "0.0": False}
    said = [words.get(row[marker].casefold()) for row in table.rows]
    if None in said:
        at = said.index(None)
        what = f"the {marker} is {table.rows[at][marker]!r:.60}, expected True or False"
        raise InputError(Problem(what, table.place(table.numbers[at])))
    chosen = [at for at, is_marked in enumerate(said) if is_marked]
    if not chosen:
        raise InputError(Problem(f"no row is marked by {marker}", table.where))
    return tuple(table.rows[at] for at in chosen), tuple(table.numbers[at] for at in chosen)


def _counted(
    table: CsvFile, train: Samples, where_train: str, unnamed: Sequence[str], *, marked: bool
) -> CsvFile:
    """Return a table without a naming column with the positions that its rows surely have.

    A table of as many rows as there are samples, which marks some, goes through them in order. A
    column without a name is the index of a DataFrame: positions in the training table, or in this
    very file, if somebody numbered its rows again.
    """
    name = unnamed[0] if unnamed else None
    whole = [as_whole(row[name]) for row in table.rows] if name is not None else None
    in_order = whole is None or whole == list(range(len(table.rows)))
    if marked and in_order and len(table.rows) == train.rows:
        places = list(range(train.rows))
    elif whole is None:
        fix = "Name them by id, path, text or index."
        raise InputError(Problem("no column names the samples", table.where, fix))
    elif not in_order and _proved(table, whole, train):
        places = [number for number in whole if number is not None]
    else:
        what = (
            "the column without a name may hold positions in "
            f"{where_train}, or count the rows of this file"
        )
        fix = "Call it index if it holds positions from 0; else name the samples by id or path."
        raise InputError(Problem(what, table.where, fix))
    rows = tuple(
        {**row, "index": str(place)} for row, place in zip(table.rows, places, strict=True)
    )
    return replace(table, rows=rows)


def _proved(table: CsvFile, places: Sequence[int | None], train: Samples) -> bool:
    """Say whether the stated labels are those at the places, which chance would hardly give."""
    if "label" not in table.columns or len(set(places)) < len(places):
        return False
    labels, shares = train.y.tolist(), Counter(train.y.tolist())
    chance = 0.0
    for row, place in zip(table.rows, places, strict=True):
        if place is None or not 0 <= place < len(train):
            return False
        name = train.names[labels[place]] if train.names else None
        if row["label"] != name and as_whole(row["label"]) != labels[place]:
            return False
        chance += math.log(shares[labels[place]] / len(train))
    return chance < math.log(CHANCE)
