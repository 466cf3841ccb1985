"""Tables of texts that no model has read yet: what `plant` reads and writes. No torch."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from poison_audit.atomic import write_atomically
from poison_audit.case.csvfile import first, read_csv
from poison_audit.case.labels import read_labels
from poison_audit.case.parquet import parquet_columns
from poison_audit.case.tables import wrong_ids
from poison_audit.errors import InputError, Problem, Problems


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


def read_text_table(path: Path, *, names: Sequence[str] | None = None) -> TextTable:
    """Read a table of labelled texts as `case.texts.read_texts` does, but for the tokens.

    Args:
        path: a `.csv` or `.parquet` with `text`, `label` and optionally `id`.
        names: what the classes are called, in the model's order.

    Raises:
        InputError: with everything that is wrong with the table.
    """
    where = str(path)
    cells, places = _cells(path)
    ids = cells.get("id", [str(number) for number in range(len(places))])
    problems = Problems(wrong_ids(ids, places, where))
    most = csv.field_size_limit()
    wrong = [
        Problem(f"a text of {len(text):,} letters does not fit in a CSV table" if text
                else "the text is empty", place)
        for text, place in zip(cells["text"], places, strict=True)
        if not 0 < len(text) <= most
    ]  # fmt: skip
    problems += first(wrong, where)
    labels = None
    with problems.collecting():
        labels = read_labels(cells["label"], places, where=where, names=names)
    if problems or labels is None:
        raise InputError(problems)
    return TextTable(
        ids=tuple(ids), texts=tuple(cells["text"]), y=labels.numbers, names=labels.names
    )


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
    if path.suffix.lower() == ".csv":
        table = read_csv(path, needed=("text", "label"))
        names = [name for name in ("id", "text", "label") if name in table.columns]
        return {name: [row[name] for row in table.rows] for name in names}, table.places()
    columns = parquet_columns(path, ("id", "text", "label"))
    missing = [name for name in ("text", "label") if name not in columns]
    if missing:
        raise InputError([Problem(f"the column {n!r} is missing", str(path)) for n in missing])
    cells = {
        name: ["" if cell is None else str(cell).strip() for cell in column]
        for name, column in columns.items()
    }
    if not cells["text"]:
        raise InputError(Problem("the table has no row", str(path)))
    return cells, [f"{path} index {number}" for number in range(len(cells["text"]))]
