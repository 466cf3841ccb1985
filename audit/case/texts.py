"""Sample tables of texts: CSV or Parquet with `text,label`, to `Samples` as a model reads them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import torch

from poison_audit.case.csvfile import first, read_csv
from poison_audit.case.labels import read_labels
from poison_audit.case.parquet import parquet_columns
from poison_audit.case.tables import wrong_ids
from poison_audit.errors import InputError, Problem, Problems
from poison_audit.models.reader import Reader, Tokens
from poison_audit.models.samples import Samples

PICTURES = {"path", "image"}
"""Columns of which a table of pictures has one."""


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
        if path.suffix.lower() == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                return {name.strip() for name in next(csv.reader(file), [])}
        return set(parquet_columns(path, ())) if path.suffix.lower() == ".parquet" else set()
    except (OSError, ValueError, csv.Error, InputError):
        return set()


def read_texts(path: Path, *, reader: Reader, names: Sequence[str] | None = None) -> Samples:
    """Read a table of labelled texts.

    A `.csv` or `.parquet` holds `text`, `label` and optionally `id`; other columns are left alone.
    Without an id, a text's id is its row number from 0. Whitespace around a text is taken off.

    Args:
        path: the file.
        reader: turns the texts into tokens.
        names: what the classes are called, in the model's order; default: labels that are no
            integers are numbered in sorted order.

    Raises:
        InputError: with everything that is wrong with the table.
    """
    where = str(path)
    columns, places = _columns(path)
    problems = Problems(wrong_ids(columns["id"], places, where))
    empty = [
        Problem("the text is empty", place)
        for text, place in zip(columns["text"], places, strict=True)
        if not text
    ]
    problems += first(empty, where)
    labels = None
    with problems.collecting():
        labels = read_labels(columns["label"], places, where=where, names=names)
    if problems or labels is None:
        raise InputError(problems)
    tokens = reader.read(columns["text"])
    if lost := _lost(tokens, reader):
        what = "the tokenizer makes no token of the text, or none that fits"
        raise InputError(first([Problem(what, places[i]) for i in lost], where))
    return Samples(
        ids=tuple(columns["id"]),
        x=tokens.x,
        y=torch.tensor(labels.numbers, dtype=torch.int64),
        names=labels.names,
        texts=tuple(columns["text"]),
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


def _columns(path: Path) -> tuple[dict[str, list[str]], list[str]]:
    """Return the columns id, text and label, and where each row stands."""
    if path.suffix.lower() == ".csv":
        table = read_csv(path, needed=("text", "label"))
        columns = {name: [row[name] for row in table.rows] for name in ("text", "label")}
        ids = [row["id"] for row in table.rows] if "id" in table.columns else None
        places = table.places()
    elif path.suffix.lower() == ".parquet":
        wanted = parquet_columns(path, ("id", "text", "label"))
        missing = [name for name in ("text", "label") if name not in wanted]
        if missing:
            raise InputError([Problem(f"the column {n!r} is missing", str(path)) for n in missing])
        other = sorted({type(c).__name__ for c in wanted["text"] if not isinstance(c, str | None)})
        if other:
            what = f"the column 'text' holds no strings, but {', '.join(other)}"
            raise InputError(Problem(what, str(path), "Store it as strings."))
        spelt = {name: ["" if c is None else str(c).strip() for c in cells]
                 for name, cells in wanted.items()}  # fmt: skip
        columns, ids = {name: spelt[name] for name in ("text", "label")}, spelt.get("id")
        places = [f"{path} index {i}" for i in range(len(columns["text"]))]
        if not places:
            raise InputError(Problem("the table has no row", str(path)))
    else:
        what = "this is no table of texts" if path.exists() else "no such file"
        fix = "A table of texts is a .csv or a .parquet with text,label."
        raise InputError(Problem(what, str(path), fix))
    columns["id"] = ids if ids is not None else [str(n) for n in range(len(places))]
    return columns, places
