"""The columns of Parquet and Arrow tables, and what the library `datasets` says of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from poison_audit.case.filetext import read_bytes
from poison_audit.errors import InputError, Problem, did_you_mean

MOST_BYTES, MOST_ROWS = 1 << 30, 1 << 20
"""What a table may hold however small its file is."""
TIGHTEST = 100
"""Times that it may hold more bytes than its file: pictures are packed already, texts tenfold."""
AT_ONCE = 4096
"""Rows that are unpacked before their size is looked at."""
_FIX = "It is damaged, or was made to fill the memory."


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
        columns = {name: _cells(table.column(name)) for name in wanted}
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(Problem(f"not a readable table ({error!s:.200})", where)) from error
    return columns | {name: [] for name in table.column_names if name not in columns}


def _cells(column: Any) -> list[Any]:
    """Return the cells of a column; a word that many rows name is made once."""
    import pyarrow

    if not pyarrow.types.is_dictionary(column.type):
        found: list[Any] = column.to_pylist()
        return found
    cells: list[Any] = []
    for chunk in column.chunks:
        words = chunk.dictionary.to_pylist()
        cells += [None if i is None else words[i] for i in chunk.indices.to_pylist()]
    return cells


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
        raw = read_bytes(path)
        buffer = pyarrow.BufferReader(raw)
        try:
            # ParquetFile, since read_table would add columns from folders named `key=value`.
            file = ipc.open_stream(buffer) if stream else parquet.ParquetFile(buffer)
            schema = file.schema if stream else file.schema_arrow
            if strange := [field.name for field in schema if _hides(field.type)]:
                what = f"the column {strange[0]!r:.80} is of a type that is not read"
                raise InputError(Problem(what, where, "Store it as plain text or numbers."))
            if not stream:
                _refuse_many(file.metadata.num_rows, len(raw), where)
            parts = file if stream else file.iter_batches(batch_size=AT_ONCE)
            table = pyarrow.Table.from_batches(_bounded(parts, len(raw), where), schema)
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


def _hides(kind: Any) -> bool:
    """Return whether a few bytes of a type may stand for any number of large cells."""
    import pyarrow

    types, views = pyarrow.types, ("string_view", "binary_view", "list_view", "large_list_view")
    # Older ones do not have them all.
    tests = [getattr(types, f"is_{view}", None) for view in ("run_end_encoded", *views)]
    inner = [kind.value_type] if types.is_dictionary(kind) else []
    inner += [kind.field(i).type for i in range(kind.num_fields)]
    # Of words within a list or a structure each cell would have its own.
    return any(test(kind) for test in tests if test is not None) or any(
        types.is_dictionary(each) or _hides(each) for each in inner
    )


def _refuse_many(rows: int, size: int, where: str) -> None:
    """Refuse a table with more rows than bytes."""
    if rows > max(MOST_ROWS, size):
        raise InputError(Problem(f"holds {rows:,} rows in {size:,} bytes", where, _FIX))


def _bounded(batches: Iterable[Any], size: int, where: str) -> Iterator[Any]:
    """Yield the parts of a table until they hold far more than a file of `size` bytes would."""
    held = rows = 0
    for batch in batches:
        held, rows = held + batch.nbytes, rows + batch.num_rows
        _refuse_many(rows, size, where)
        if held > max(MOST_BYTES, TIGHTEST * size):
            what = f"holds more than {MOST_BYTES >> 30} GiB in {size:,} bytes"
            raise InputError(Problem(what, where, _FIX))
        yield batch


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
