"""Sample tables of texts: CSV or Parquet with `text,label`, to `Samples` as a model reads them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import torch

from poison_audit.case.csvfile import first
from poison_audit.case.parquet import parquet_columns
from poison_audit.case.text_tables import list_texts
from poison_audit.errors import InputError, Problem
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
    """Read a table of labelled texts, as `list_texts` does, and turn them into tokens.

    Raises:
        InputError: with everything that is wrong with the table; then the texts that the reader
            makes no token of.
    """
    table, places = list_texts(path, names=names)
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
