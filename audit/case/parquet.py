"""The columns of Parquet and Arrow tables, and what the library `datasets` says of them."""

from __future__ import annotations

import json
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
    return columns_of(read_arrow([path]), names, str(path))


def columns_of(table: Any, names: Sequence[str], where: str) -> dict[str, list[Any]]:
    """Return the columns of these names that a table has, and every other one as empty.

    Raises:
        InputError: it holds text that is none, or more of one kind than there can be.
    """
    import pyarrow

    wanted = [name for name in names if name in table.column_names]
    try:
        columns: dict[str, list[Any]] = table.select(wanted).to_pydict()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(Problem(f"not a readable table ({error!s:.200})", where)) from error
    return columns | {name: [] for name in table.column_names if name not in columns}


def read_arrow(paths: Sequence[Path], *, stream: bool = False) -> Any:
    """Return the rows of files, one after the other, as one pyarrow table.

    Args:
        paths: Parquet files, of the same columns.
        stream: whether they are Arrow files instead, as `datasets` saves them to disk.

    Raises:
        InputError: pyarrow is missing; a file is damaged, or of other columns than the first.
    """
    where = str(paths[0])
    try:
        import pyarrow
        from pyarrow import ipc, parquet
    except ImportError as error:
        fix = "Run: pip install 'poison-audit[parquet]'"
        raise InputError(Problem("reading Parquet needs pyarrow", where, fix)) from error
    kind, tables = "Arrow" if stream else "Parquet", []
    for path in paths:
        where = str(path)
        buffer = pyarrow.BufferReader(read_bytes(path))
        try:
            # ParquetFile, since read_table would add columns from folders named `key=value`.
            table = (
                ipc.open_stream(buffer).read_all() if stream else parquet.ParquetFile(buffer).read()
            )
            table.validate(full=True)
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            what = f"not a readable {kind} file ({error})"
            raise InputError(Problem(what, where)) from error
        tables.append(table)
    try:
        return pyarrow.concat_tables(tables)
    except pyarrow.ArrowException as error:
        what = f"is of other columns than the files before it ({error!s:.200})"
        raise InputError(Problem(what, where)) from error


def class_names(table: Any, column: str) -> tuple[str, ...] | None:
    """Return what `datasets` calls the classes that a column numbers, None if it does not say."""
    stated = (table.schema.metadata or {}).get(b"huggingface")
    try:
        tree: Any = json.loads(stated) if stated else None
        for key in ("info", "features", column):
            tree = tree.get(key) if isinstance(tree, dict) else None
    except (ValueError, RecursionError):
        return None
    names = tree.get("names") if isinstance(tree, dict) else None
    usable = isinstance(names, list) and all(isinstance(name, str) and name for name in names)
    return tuple(names) if usable and names and len(set(names)) == len(names) else None


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
