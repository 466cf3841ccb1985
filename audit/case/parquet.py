"""The columns of a Parquet table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from poison_audit.case.filetext import read_bytes
from poison_audit.errors import InputError, Problem, did_you_mean


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


def cell_text(cell: Any) -> str:
    """Return a cell as a CSV table would hold it, stripped."""
    return "" if cell is None else str(cell).strip()
