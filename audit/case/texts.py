"""Tables of texts: CSV or Parquet with `text,label`, as they stand and as a model reads them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from poison_audit.atomic import write_atomically
from poison_audit.case.csvfile import first, read_csv
from poison_audit.case.labels import read_labels
from poison_audit.case.parquet import cell_text, check_columns, parquet_columns
from poison_audit.case.tables import wrong_ids
from poison_audit.errors import InputError, Problem, Problems
from poison_audit.models.reader import Reader, Tokens
from poison_audit.models.samples import Samples

PICTURES = {"path", "image"}
"""Columns of which a table of pictures has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTable:
    """Labelled texts, as a table holds them."""

    ids: tuple[str, ...]
    """One a text, unique."""
    texts: tuple[str, ...]
    y: tuple[int, ...]
    """Class numbers, as trained."""
    names: tuple[str, ...] | None = None
    """What the classes are called, where the table says."""

    def __len__(self) -> int:
        return len(self.ids)

    def at(self, positions: Sequence[int]) -> TextTable:
        """Return the texts at these positions, in this order."""
        return replace(
            self,
            ids=tuple(self.ids[place] for place in positions),
            texts=tuple(self.texts[place] for place in positions),
            y=tuple(self.y[place] for place in positions),
        )

    def joined(self, other: TextTable) -> TextTable:
        """Return these texts and then those of `other`, parts of the same table."""
        return replace(
            self,
            ids=self.ids + other.ids,
            texts=self.texts + other.texts,
            y=self.y + other.y,
        )


def holds_texts(path: Path) -> bool:
    """Say whether a table's header names texts; False where it cannot be read."""
    names = _header(path)
    return "text" in names and not PICTURES & names


def holds_pictures(path: Path) -> bool:
    """Say whether a table is one of pictures: a folder, an `.npz`, or by its header."""
    names = _header(path)
    by_header = bool(PICTURES & names) and "text" not in names
    return path.is_dir() or path.suffix.lower() == ".npz" or by_header


def _header(path: Path) -> set[str]:
    try:
        if path.suffix.lower() == ".csv" and path.is_file():
            with path.open(encoding="utf-8-sig", newline="") as file:
                return {name.strip() for name in next(csv.reader(file), [])}
        return set(parquet_columns(path, ())) if path.suffix.lower() == ".parquet" else set()
    except (OSError, ValueError, csv.Error, InputError):
        return set()


def read_texts(
    path: Path, *, reader: Reader, names: Sequence[str] | None = None, sort: bool = True
) -> Samples:
    """Read a table of labelled texts, as `list_texts` does, and turn them into tokens.

    Raises:
        InputError: with everything that is wrong with the table; then the texts that the reader
            makes no token of.
    """
    table, places = list_texts(path, names=names, sort=sort)
    tokens = reader.read(table.texts)
    if lost := _lost(tokens, reader):
        what = "the tokenizer makes no token of the text, or none that fits"
        raise InputError(first([Problem(what, places[i]) for i in lost], str(path)))
    return Samples(
        ids=table.ids,
        x=tokens.x,
        y=torch.tensor(table.y, dtype=torch.int64),
        names=table.names,
        texts=table.texts,
        mask=tokens.mask,
        cut=tokens.cut,
    )


def _lost(tokens: Tokens, reader: Reader) -> list[int]:
    """Return the rows that are what the reader makes of no text at all."""
    nothing = reader.read([""])
    length = int(nothing.mask.sum())
    alike = tokens.mask.sum(1) == length
    if length <= tokens.x.shape[1]:
        alike &= (tokens.x[:, :length] == nothing.x[:, :length]).all(1)
    found: list[int] = alike.nonzero().flatten().tolist()
    return found


def read_text_table(path: Path, *, names: Sequence[str] | None = None) -> TextTable:
    """Read a table of labelled texts that can be written as CSV; see `list_texts`."""
    return list_texts(path, names=names, most=csv.field_size_limit())[0]


def list_texts(
    path: Path,
    *,
    names: Sequence[str] | None = None,
    most: float = math.inf,
    sort: bool = True,
) -> tuple[TextTable, list[str]]:
    """Read a table of labelled texts, and where each row stands, for messages.

    A `.csv` or `.parquet` holds `text`, `label` and optionally `id`; other columns are left alone.
    Without an id, a text's id is its row number from 0. Whitespace around a text is taken off.

    Args:
        path: the file.
        names: what the classes are called, in the model's order; default: labels that are no
            integers are numbered in sorted order.
        most: letters that a text may have.
        sort: whether they may be, which for a model with an order of its own is a guess.

    Raises:
        InputError: with everything that is wrong with the table.
    """
    where = str(path)
    cells, places = _cells(path)
    ids = cells.get("id", [str(number) for number in range(len(places))])
    problems = Problems(wrong_ids(ids, places, where))
    wrong = [
        Problem(f"a text of {len(text):,} letters does not fit in a CSV table" if text
                else "the text is empty", place)
        for text, place in zip(cells["text"], places, strict=True)
        if not 0 < len(text) <= most
    ]  # fmt: skip
    problems += first(wrong, where)
    labels = None
    with problems.collecting():
        labels = read_labels(cells["label"], places, where=where, names=names, sort=sort)
    if problems or labels is None:
        raise InputError(problems)
    texts = tuple(cells["text"])
    return TextTable(ids=tuple(ids), texts=texts, y=labels.numbers, names=labels.names), places


def write_text_table(path: Path, table: TextTable) -> None:
    """Write a table of texts as CSV: id, text, label, the latter by name where it has names."""
    text = io.StringIO()
    # Everything is quoted, since a lone carriage return would not be.
    rows = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    rows.writerow(("id", "text", "label"))
    spelt = (spelling(label, table.names) for label in table.y)
    rows.writerows(zip(table.ids, table.texts, spelt, strict=True))
    write_atomically(path, text.getvalue())


def spelling(label: int, names: Sequence[str] | None) -> str:
    """Return a class number as the table spells it."""
    return names[label] if names else str(label)


def _cells(path: Path) -> tuple[dict[str, list[str]], list[str]]:
    """Return the columns text, label and, where there is one, id; and where each row stands."""
    wanted = ("text", "label", "id")
    if path.suffix.lower() == ".csv":
        table = read_csv(path, needed=wanted[:2])
        held = [name for name in wanted if name in table.columns]
        return {name: [row[name] for row in table.rows] for name in held}, table.places()
    if path.suffix.lower() != ".parquet":
        what = "this is no table of texts" if path.exists() else "no such file"
        fix = "A table of texts is a .csv or a .parquet with text,label."
        raise InputError(Problem(what, str(path), fix))
    columns = parquet_columns(path, wanted)
    check_columns(columns, wanted[:2], str(path))
    other = {type(cell).__name__ for cell in columns["text"] if not isinstance(cell, str | None)}
    if other:
        what = f"the column 'text' holds no strings, but {', '.join(sorted(other))}"
        raise InputError(Problem(what, str(path), "Store it as strings."))
    cells = {name: list(map(cell_text, columns[name])) for name in wanted if name in columns}
    return cells, [f"{path} index {number}" for number in range(len(cells["text"]))]
