"""Sample tables of pictures: CSV, Parquet, `.npz` or an image folder, to `Samples`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from poison_audit.atomic import written_whole
from poison_audit.case.arrays import read_npz
from poison_audit.case.csvfile import first, read_csv
from poison_audit.case.labels import as_integer, read_labels
from poison_audit.case.parquet import read_parquet
from poison_audit.case.pictures import Shape, Source, read_pictures
from poison_audit.errors import InputError, Problem, Problems
from poison_audit.models.samples import Samples

METADATA = "metadata.csv"
"""The label source of an image folder, where there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listing:
    """A table before its labels are numbered and its pictures decoded."""

    ids: Sequence[str]
    labels: Sequence[str]
    places: Sequence[str]
    """Where each sample stands, for messages."""
    pixels: Callable[[], NDArray[Any]]
    """Returns (n, c, h, w), or raises InputError."""
    names: Sequence[str] | None = None
    """What the table itself calls its classes."""
    problems: Sequence[Problem] = ()
    """What is already known to be wrong."""


def read_table(
    path: Path, *, names: Sequence[str] | None = None, size: Shape | None = None
) -> Samples:
    """Read a table of labelled pictures.

    A `.csv` or `.parquet` holds `path` (relative to the table), `label` and optionally `id`; a
    Parquet file may hold a Hugging Face `image` column instead of `path`. An `.npz` holds `x`, `y`
    and optionally `id`. In a folder each subfolder is a label, unless its `metadata.csv`
    (`file_name,label`) says otherwise. Without an id, a sample's id is its path, else its row
    number from 0.

    Args:
        path: the file or folder.
        names: what the classes are called, in the model's order; default: labels that are no
            integers are numbered in sorted order.
        size: the required (channels, height, width); default: one size, whichever it is.

    Raises:
        InputError: with everything that is wrong with the table.
    """
    where = str(path)
    listing = _list(path, size)
    problems = Problems([*listing.problems, *wrong_ids(listing.ids, listing.places, where)])
    labels = x = None
    with problems.collecting():
        labels = read_labels(
            listing.labels, listing.places, where=where, names=names or listing.names
        )
    with problems.collecting():
        x = listing.pixels()
    if problems or labels is None or x is None:
        raise InputError(problems)
    return Samples(
        ids=tuple(listing.ids),
        x=torch.from_numpy(x),
        y=torch.tensor(labels.numbers, dtype=torch.int64),
        names=labels.names,
    )


def write_table(path: Path, samples: Samples) -> None:
    """Write pictures as an npz table, which is there whole or not at all."""
    with written_whole(path) as partial_path, partial_path.open("wb") as file:
        np.savez_compressed(
            file, id=np.array(samples.ids), x=samples.x.numpy(), y=samples.y.numpy()
        )


def check_labels(samples: Samples, classes: int, where: str) -> list[Problem]:
    """Return what is wrong with labels that a model of so many classes cannot answer."""
    beyond = [
        Problem(
            f"the sample {samples.ids[i]!r} has the label {int(samples.y[i])}",
            where,
            f"The model has {classes} classes: use 0..{classes - 1}.",
        )
        for i in ((samples.y < 0) | (samples.y >= classes)).nonzero().flatten().tolist()
    ]
    return first(beyond, where)


def _list(path: Path, size: Shape | None) -> _Listing:
    if path.is_dir():
        has_metadata = (path / METADATA).exists()
        return _list_metadata(path, size) if has_metadata else _list_folder(path, size)
    readers = {".csv": _list_csv, ".parquet": _list_parquet, ".npz": _list_npz}
    if not path.exists() or path.suffix.lower() not in readers:
        what = "this is no table of samples" if path.exists() else "no such file or folder"
        fix = "A table is a .csv, a .parquet, an .npz or an image folder."
        raise InputError(Problem(what, str(path), fix))
    return readers[path.suffix.lower()](path, size)


def _list_csv(path: Path, size: Shape | None) -> _Listing:
    table = read_csv(path, needed=("path", "label"))
    paths = [row["path"] for row in table.rows]
    return _list_files(
        path.parent,
        paths,
        table.places(),
        where=table.where,
        size=size,
        ids=[row["id"] for row in table.rows] if "id" in table.columns else paths,
        labels=[row["label"] for row in table.rows],
    )


def _list_parquet(path: Path, size: Shape | None) -> _Listing:
    table = read_parquet(path)
    return _list_files(
        path.parent,
        table.paths,
        [f"{path} index {i}" for i in range(len(table.labels))],
        where=str(path),
        size=size,
        ids=table.ids,
        labels=table.labels,
        encoded=table.encoded,
    )


def _list_npz(path: Path, size: Shape | None) -> _Listing:
    arrays = read_npz(path, size=size)
    return _Listing(
        ids=arrays.ids,
        labels=arrays.labels,
        places=[f"{path} index {i}" for i in range(len(arrays.ids))],
        pixels=lambda: arrays.x,
    )


def _list_folder(path: Path, size: Shape | None) -> _Listing:
    ids = _visible_files(path)
    if not ids:
        raise InputError(Problem("the folder holds no picture", str(path)))
    problems = [
        Problem(
            "the file lies in no label's folder", f"{path}/{name}", f"Or list it in {METADATA}."
        )
        for name in ids
        if "/" not in name
    ]
    return _list_files(
        path,
        ids,
        [f"{path}/{name}" for name in ids],
        where=str(path),
        size=size,
        ids=ids,
        labels=[name.split("/")[0] for name in ids],
        # Empty folders count, as they do in torchvision's ImageFolder.
        names=_visible_folders(path),
        problems=first(problems, str(path)),
    )


def _list_metadata(path: Path, size: Shape | None) -> _Listing:
    table = read_csv(path / METADATA, needed=("file_name", "label"))
    places = table.places()
    ids = [row["file_name"] for row in table.rows]
    labels = [row["label"] for row in table.rows]
    folders = _visible_folders(path)
    conflicts = [
        Problem(f"the label is {label!r}, but the file lies in {name.split('/')[0]!r}", place)
        for name, label, place in zip(ids, labels, places, strict=True)
        if "/" in name and not _same_label(label, name.split("/")[0], folders)
    ]
    unlisted = [
        Problem(f"the file is not listed in {METADATA}", f"{path}/{name}", "List or remove it.")
        for name in sorted(set(_visible_files(path)) - {METADATA} - set(ids))
    ]
    return _list_files(
        path,
        ids,
        places,
        where=table.where,
        size=size,
        ids=ids,
        labels=labels,
        problems=first(conflicts, table.where) + first(unlisted, str(path)),
    )


def _list_files(
    folder: Path,
    paths: Sequence[str],
    places: Sequence[str],
    *,
    where: str,
    size: Shape | None,
    ids: Sequence[str],
    labels: Sequence[str],
    encoded: Sequence[bytes | None] | None = None,
    names: Sequence[str] | None = None,
    problems: Sequence[Problem] = (),
) -> _Listing:
    inside = encoded or [None] * len(paths)
    root = folder.resolve()
    refusals = [
        _refusal(path, folder, root) if picture is None else ""
        for path, picture in zip(paths, inside, strict=True)
    ]
    refused = [
        Problem(reason, place) for reason, place in zip(refusals, places, strict=True) if reason
    ]
    sources: list[Source | None] = [
        picture if picture is not None else None if reason else folder / path
        for path, picture, reason in zip(paths, inside, refusals, strict=True)
    ]
    return _Listing(
        ids=ids,
        labels=labels,
        places=places,
        pixels=partial(read_pictures, sources, places, where=where, size=size),
        names=names,
        problems=[*problems, *first(refused, where)],
    )


def _refusal(path: str, folder: Path, root: Path) -> str:
    # Windows' rules see every anchor and both separators, wherever the table was written.
    parsed = PureWindowsPath(path)
    if not path:
        return "the path is empty"
    if parsed.anchor or ".." in parsed.parts:
        return f"the path {path!r} leaves the table's folder"
    try:
        real = (folder / path).resolve()
        # A pipe or a device has no end that reading it would come to.
        strange = real.exists() and not real.is_file()
    except (OSError, ValueError, RuntimeError) as error:
        return f"the path {path!r:.80} cannot be followed ({error!s:.80})"
    if not real.is_relative_to(root):
        return f"the path {path!r} is a link that leaves the table's folder"
    return f"the path {path!r} is no file" if strange else ""


def wrong_ids(ids: Sequence[str], places: Sequence[str], where: str) -> list[Problem]:
    """Return what is wrong with a table's ids: empty ones, and those that appear twice."""
    empty = [Problem("the id is empty", p) for i, p in zip(ids, places, strict=True) if not i]
    seen: defaultdict[str, list[str]] = defaultdict(list)
    for name, place in zip(ids, places, strict=True):
        if name:
            seen[name].append(place)
    repeated = [
        Problem(f"the id {name!r} appears {len(at)} times (first in {at[0]})", at[1])
        for name, at in seen.items()
        if len(at) > 1
    ]
    return first(empty, where) + first(repeated, where)


def _same_label(label: str, folder: str, folders: Sequence[str]) -> bool:
    number = as_integer(label)
    numbered = number is not None and 0 <= number < len(folders) and folders[number] == folder
    return label == folder or numbered


def _visible_files(folder: Path) -> list[str]:
    found = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    visible = (file for file in found if not any(part.startswith(".") for part in file.parts))
    return sorted(file.as_posix() for file in visible)


def _visible_folders(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
