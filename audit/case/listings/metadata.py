"""Image folders with a metadata file, as the library `datasets` reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from poison_audit.case.csvfile import first, read_csv
from poison_audit.case.labels import as_integer
from poison_audit.case.listings.folders import METADATA, visible_files, visible_folders
from poison_audit.case.listings.listing import Listing
from poison_audit.case.parquet import cell_text, check_columns, parquet_columns
from poison_audit.case.rows import slashed
from poison_audit.errors import InputError, Problem

_NAMED: dict[str, Sequence[str]] = {"label": ("labels",)}


def has_metadata(path: Path) -> bool:
    """Say whether a folder has a metadata file."""
    return any((path / name).is_file() for name in METADATA)


def list_metadata(path: Path) -> Listing:
    """Return the pictures that a folder's metadata file lists, in its order.

    Raises:
        InputError: there are several such files, or one is damaged or without labels.
    """
    there = [name for name in METADATA if (path / name).is_file()]
    if len(there) > 1:
        what = f"the folder holds {' and '.join(there)}: which of them has the labels?"
        raise InputError(Problem(what, str(path), "Leave one of them."))
    where, ids, labels, places = _rows(path / there[0])
    files = visible_files(path)
    folders = visible_folders(path, files)
    # Folders such as images/ are no labels.
    numbered = all(as_integer(label) is not None for label in labels)
    named = len(folders) > 1 and (numbered or not set(labels).isdisjoint(folders))
    conflicts = [
        Problem(f"the label is {label!r}, but the file lies in {name.split('/')[0]!r}", place)
        for name, label, place in zip(ids, labels, places, strict=True)
        if named and "/" in name and not _same_label(label, name.split("/")[0], folders)
    ]
    unlisted = [
        Problem(f"the file is not listed in {there[0]}", f"{path}/{name}", "List or remove it.")
        for name in sorted(set(files) - {there[0]} - set(ids))
    ]
    order = [name for name in files if name != there[0]]
    doubted = (
        f"positions in {path} may count the rows of {there[0]}, or its files in their order"
        if ids != order and sorted(ids) == sorted(order)
        else ""
    )
    return Listing(
        where=where,
        ids=ids,
        labels=labels,
        places=places,
        paths=ids,
        upright=True,
        doubted_order=doubted,
        problems=first(conflicts, where) + first(unlisted, str(path)),
    )


def _rows(path: Path) -> tuple[str, list[str], list[str], list[str]]:
    """Return the file, and the files' names, their labels and where they stand."""
    where = str(path)
    try:
        if path.suffix == ".parquet":
            columns = parquet_columns(path, ("file_name", "label"))
            check_columns(columns, ("file_name", "label"), where)
            names, labels = (list(map(cell_text, columns[n])) for n in ("file_name", "label"))
            places = [f"{where} index {number}" for number in range(len(names))]
        else:
            table = read_csv(path, needed=("file_name", "label"), aliases=_NAMED)
            names, labels = ([row[n] for row in table.rows] for n in ("file_name", "label"))
            places = table.places()
    except InputError as error:
        missing = [p for p in error.problems if "column 'label' is missing" in p.what]
        if not missing:
            raise
        fix = f"Add the labels to it, or take {path.name} away so that folders are the labels."
        raise InputError(Problem(missing[0].what, where, fix)) from error
    return where, [slashed(name) if name else "" for name in names], labels, places


def _same_label(label: str, folder: str, folders: Sequence[str]) -> bool:
    number = as_integer(label)
    numbered = number is not None and 0 <= number < len(folders) and folders[number] == folder
    return label == folder or numbered
