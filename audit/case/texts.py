"""Tables of texts: `text,label` or pairs, as they stand and as a model reads them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from poison_audit.atomic import write_atomically
from poison_audit.case.csvfile import KINDS, cells_of, first, read_csv
from poison_audit.case.filetext import as_text, kind_of, read_bytes
from poison_audit.case.jsonrows import object_lines
from poison_audit.case.labels import read_labels
from poison_audit.case.pairs import separators
from poison_audit.case.parquet import cell_text, check_columns, parquet_columns
from poison_audit.case.tables import wrong_ids
from poison_audit.case.text_columns import JOINED, Columns, columns_of, names_pictures, names_texts
from poison_audit.errors import InputError, Problem, Problems
from poison_audit.models.reader import PLACE, Reader, Tokens
from poison_audit.models.samples import LeftOut, Samples

MOST_EMPTY = 0.01
"""Largest share of a table's rows that are left out for holding no text."""
MANY_JOINED = 0.01
"""Share of texts that hold a tokenizer's own separators, from which on they are asked about."""


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
    pairs: tuple[str, ...] | None = None
    """Of pairs: the second text of each."""
    whole: bool = False
    """Whether the table says that its texts are meant to hold separators."""

    def __len__(self) -> int:
        return len(self.ids)

    def at(self, positions: Sequence[int]) -> TextTable:
        """Return the texts at these positions, in this order."""
        return replace(
            self,
            ids=tuple(self.ids[place] for place in positions),
            texts=tuple(self.texts[place] for place in positions),
            pairs=None if self.pairs is None else tuple(self.pairs[place] for place in positions),
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
    return names_texts(_header(path))


def holds_pictures(path: Path) -> bool:
    """Say whether a table is one of pictures: a folder, an `.npz`, or by its header."""
    by_header = names_pictures(_header(path))
    return path.is_dir() or path.suffix.lower() == ".npz" or by_header


def _header(path: Path) -> list[str]:
    kind = kind_of(path)
    try:
        # What is no plain file, such as a pipe, has no end that reading it would come to.
        if not path.is_file():
            return []
        if kind == ".parquet":
            return list(parquet_columns(path, ()))
        if kind not in KINDS:
            return []
        text = as_text(read_bytes(path), str(path))
        if kind in (".csv", ".tsv", ".tab"):
            return next((cells for _, cells in cells_of(text, kind) if any(cells)), [])
        line = next((line for line in text.split("\n") if line.strip()), "")
        return next(object_lines(line, str(path)), (0, []))[1]
    except (OSError, ValueError, csv.Error, InputError):
        return []


def read_texts(
    path: Path, *, reader: Reader, names: Sequence[str] | None = None, sort: bool = True
) -> Samples:
    """Read a table of labelled texts, as `list_texts` does, and turn them into tokens.

    A few rows without a text, or of which no token is left, are left out and named.

    Raises:
        InputError: with everything that is wrong with the table; then the texts that the reader
            makes no token of, where they are many; or texts that were joined by separators.
    """
    table, places = list_texts(path, names=names, sort=sort, spare=MOST_EMPTY)
    if table.pairs is not None and reader.prompt != PLACE:
        what = "stands around one text, and the table holds pairs of texts"
        raise InputError(Problem(what, "--prompt", "Leave it out."))
    if problem := _joined(table, reader, places, str(path)):
        raise InputError(problem)
    tokens = reader.read(table.texts, table.pairs)
    lost = sorted({*_lost(tokens, reader, pairs=table.pairs is not None), *_empty(table)})
    if len(lost) > MOST_EMPTY * len(table):
        what = "the tokenizer makes no token of the text, or none that fits"
        raise InputError(first([Problem(what, places[i]) for i in lost], str(path)))
    samples = Samples(
        ids=table.ids,
        x=tokens.x,
        y=torch.tensor(table.y, dtype=torch.int64),
        names=table.names,
        texts=table.texts,
        pairs=table.pairs,
        mask=tokens.mask,
        cut=tokens.cut,
        types=tokens.types,
    )
    if not lost:
        return samples
    gone = set(lost)
    kept = samples.at([at for at in range(len(table)) if at not in gone])
    left_out = (LeftOut(position=at, id=table.ids[at], where=places[at]) for at in lost)
    return replace(kept, left_out=tuple(left_out))


def _empty(table: TextTable) -> list[int]:
    both = zip(table.texts, table.pairs or table.texts, strict=True)
    return [at for at, (text, pair) in enumerate(both) if not (text and pair)]


def _joined(table: TextTable, reader: Reader, places: list[str], where: str) -> Problem | None:
    """Return the problem of texts in which a tokenizer's own separators are spelt out.

    As one text they are read otherwise than as two, and pass for what nobody trained.
    """
    marks = separators(reader)
    firsts = [next((mark for mark in marks if mark in text), "") for text in table.texts]
    found = [(at, mark) for at, mark in enumerate(firsts) if mark]
    if table.whole or not found or len(found) < MANY_JOINED * len(table):
        return None
    place, mark = found[0]
    what = (
        f"{len(found):,} of {len(table):,} texts hold the tokenizer's own "
        f"{mark!r} (first in {places[place]}), as pairs do that were joined into one text"
    )
    fix = (
        "Give the two texts in columns of their own, text and text_pair: they are read as the "
        f"tokenizer reads pairs. If training read each as one text, call the column {JOINED}."
    )
    return Problem(what, where, fix)


def _lost(tokens: Tokens, reader: Reader, *, pairs: bool) -> list[int]:
    """Return the rows that are what the reader makes of no text at all."""
    nothing = reader.read([""], [""] if pairs else None)
    length = int(nothing.mask.sum())
    alike = tokens.mask.sum(1) == length
    if length <= tokens.x.shape[1]:
        alike &= (tokens.x[:, :length] == nothing.x[:, :length]).all(1)
    found: list[int] = alike.nonzero().flatten().tolist()
    return found


def read_text_table(path: Path, *, names: Sequence[str] | None = None) -> TextTable:
    """Read a table of labelled texts that can be written as CSV; see `list_texts`.

    Raises:
        InputError: as there; and where it holds pairs, in which nothing is planted.
    """
    table = list_texts(path, names=names, most=csv.field_size_limit())[0]
    if table.pairs is not None:
        what = "the table holds pairs of texts, and nothing is planted in pairs"
        raise InputError(Problem(what, str(path), "Plant in a table of texts that stand alone."))
    return table


def list_texts(
    path: Path,
    *,
    names: Sequence[str] | None = None,
    most: float = math.inf,
    sort: bool = True,
    spare: float = 0,
) -> tuple[TextTable, list[str]]:
    """Read a table of labelled texts, and where each row stands, for messages.

    A table, `.parquet` or of text cells, holds `text`, `label` and optionally `id`, or columns of
    other usual names (`text_columns`); pairs have two of texts. Other columns are left alone.
    Without an id, a text's id is its row number from 0. Whitespace around a text is taken off.

    Args:
        path: the file.
        names: what the classes are called, in the model's order; default: labels that are no
            integers are numbered in sorted order.
        most: letters that a text may have.
        sort: whether they may be, which for a model with an order of its own is a guess.
        spare: share of texts that may be empty.

    Raises:
        InputError: with everything that is wrong with the table.
    """
    where = str(path)
    cells, places, columns = _cells(path)
    ids = cells.get("id", [str(number) for number in range(len(places))])
    problems = Problems(wrong_ids(ids, places, where))
    second = cells.get("pair")
    wrong = [
        Problem(f"a text of {len(text):,} letters does not fit in a CSV table" if text and pair
                else "the text is empty", place)
        for text, pair, place in zip(cells["text"], second or cells["text"], places, strict=True)
        if not (pair and 0 < len(text) <= most)
    ]  # fmt: skip
    if len(wrong) > spare * len(places):
        problems += first(wrong, where)
    labels = None
    with problems.collecting():
        labels = read_labels(cells["label"], places, where=where, names=names, sort=sort)
    if problems or labels is None:
        raise InputError(problems)
    table = TextTable(
        ids=tuple(ids),
        texts=tuple(cells["text"]),
        y=labels.numbers,
        names=labels.names,
        pairs=None if second is None else tuple(second),
        whole=columns.joined,
    )
    return table, places


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


def _cells(path: Path) -> tuple[dict[str, list[str]], list[str], Columns]:
    """Return the columns text, label and, where there are, pair and id; and where each row stands.

    And which columns of the table they are.
    """
    where, kind = str(path), kind_of(path)
    if kind in KINDS:
        table = read_csv(path, needed=())
        columns = columns_of(table.columns, where)
        found = {role: [row[name] for row in table.rows] for role, name in columns.roles.items()}
        return found, table.places(), columns
    if kind != ".parquet":
        what = "this is no table of texts" if path.exists() else "no such file"
        fix = "A table of texts is a .csv, .tsv, .jsonl or .parquet with text,label."
        raise InputError(Problem(what, where, fix))
    columns = columns_of(list(parquet_columns(path, ())), where)
    held = parquet_columns(path, list(columns.roles.values()))
    check_columns(held, (columns.text, columns.label), where)
    for name in filter(None, (columns.text, columns.pair)):
        other = {type(cell).__name__ for cell in held[name] if not isinstance(cell, str | None)}
        if other:
            what = f"the column {name!r} holds no strings, but {', '.join(sorted(other))}"
            raise InputError(Problem(what, where, "Store it as strings."))
    cells = {role: list(map(cell_text, held[name])) for role, name in columns.roles.items()}
    return cells, [f"{path} index {number}" for number in range(len(cells["text"]))], columns
