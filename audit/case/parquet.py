"""The columns of a Parquet table of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poison_audit.case.csvfile import read_bytes
from poison_audit.errors import InputError, Problem, did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetTable:
    """One entry a sample in each field."""

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    paths: tuple[str, ...]
    """Empty where there is none."""
    encoded: tuple[bytes | None, ...]
    """The picture's file, where the table holds it."""


def read_parquet(path: Path) -> ParquetTable:
    """Read `path` or a Hugging Face `image` (`bytes`, `path`), `label` and optionally `id`.

    Without an id, a sample's id is its path; where the table holds the pictures and their paths
    are missing or repeat, it is the row number from 0.

    Raises:
        InputError: pyarrow is missing, the file is damaged, or columns are missing.
    """
    where = str(path)
    columns = parquet_columns(path, ("id", "path", "image", "label"))
    source = "image" if "image" in columns else "path"
    check_columns(columns, (source, "label"), where)
    cells = [_picture(cell, f"{where} index {i}") for i, cell in enumerate(columns[source])]
    paths = tuple(cell_text(cell["path"]) for cell in cells)
    numbered = source == "image" and (not all(paths) or len(set(paths)) < len(paths))
    ids = range(len(paths)) if numbered else paths
    return ParquetTable(
        ids=tuple(map(cell_text, columns.get("id", ids))),
        labels=tuple(map(cell_text, columns["label"])),
        paths=paths,
        encoded=tuple(cell["bytes"] for cell in cells),
    )


def parquet_columns(path: Path, names: Sequence[str]) -> dict[str, list[Any]]:
    """Return the columns of these names that a Parquet file has, and every other one as empty.

    Raises:
        InputError: pyarrow is missing, or the file is damaged.
    """
    where = str(path)
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        fix = "Run: pip install 'poison-audit[parquet]'"
        raise InputError(Problem("reading Parquet needs pyarrow", where, fix)) from error
    raw = read_bytes(path)
    try:
        # ParquetFile, since read_table would add columns from folders named `key=value`.
        table = parquet.ParquetFile(pyarrow.BufferReader(raw)).read()
        wanted = [name for name in names if name in table.column_names]
        columns: dict[str, list[Any]] = table.select(wanted).to_pydict()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(Problem(f"not a readable Parquet file ({error})", where)) from error
    return columns | {name: [] for name in table.column_names if name not in columns}


def check_columns(columns: Mapping[str, Sequence[Any]], needed: Sequence[str], where: str) -> None:
    """Raise InputError where a table lacks columns that it needs, or has no row."""
    problems = [
        Problem(f"the column {name!r} is missing", where, did_you_mean(name, columns))
        for name in needed
        if name not in columns
    ]
    if not problems and not columns[needed[0]]:
        problems = [Problem("the table has no row", where)]
    if problems:
        raise InputError(problems)


def _picture(cell: Any, place: str) -> dict[str, Any]:
    if cell is None or isinstance(cell, str):
        return {"bytes": None, "path": cell}
    if isinstance(cell, dict) and isinstance(cell.get("bytes"), bytes | None):
        return {"bytes": cell.get("bytes"), "path": cell.get("path")}
    what = f"expected a path, or a picture's bytes and path, got {type(cell).__name__}"
    raise InputError(Problem(what, place))


def cell_text(cell: Any) -> str:
    """Return a cell as a CSV table would hold it, stripped."""
    return "" if cell is None else str(cell).strip()
