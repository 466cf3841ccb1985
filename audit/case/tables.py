"""Sample tables of pictures: CSV, Parquet, `.npz` or an image folder, to `Samples`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from poison_audit.atomic import written_whole
from poison_audit.case.arrays import read_npz
from poison_audit.case.csvfile import first, read_csv
from poison_audit.case.labels import as_integer, read_labels
from poison_audit.case.parquet import cell_text, check_columns, parquet_columns
from poison_audit.case.pictures import Shape, Source, read_pictures
from poison_audit.case.rows import slashed
from poison_audit.errors import InputError, Problem, Problems
from poison_audit.models.samples import Samples

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""What torchvision's ImageFolder takes for a picture: its IMG_EXTENSIONS."""
OF_SYSTEMS = ("thumbs.db", "desktop.ini")
"""Files that systems leave in folders of pictures."""
PARTS = ("train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing")
"""What the parts of a data set are called."""
METADATA = "metadata.csv"
"""The label source of an image folder, where there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listing:
    """A table before its labels are numbered and its pictures decoded."""

    where: str
    """What holds the labels, for messages."""
    ids: Sequence[str]
    labels: Sequence[str]
    places: Sequence[str]
    """Where each sample stands, for messages."""
    x: NDArray[Any] | None = None
    """The pictures, (n, c, h, w), where the table holds them as numbers; else the next two."""
    paths: Sequence[str] = ()
    """Relative to the table's folder."""
    encoded: Sequence[bytes | None] | None = None
    """The pictures' files, where the table holds some."""
    names: Sequence[str] | None = None
    """What the table itself calls its classes, in the order that training numbered them."""
    problems: Sequence[Problem] = ()
    """What is already known to be wrong."""


def read_table(
    path: Path,
    *,
    names: Sequence[str] | None = None,
    size: Shape | None = None,
    sort: bool = True,
) -> Samples:
    """Read a table of labelled pictures.

    A `.csv` or `.parquet` holds `path` (relative to the table), `label` and optionally `id`; a
    Parquet file may hold a Hugging Face `image` column instead of `path`. An `.npz` holds `x`, `y`
    and optionally `id`. In a folder each subfolder is a label, numbered in the order of their
    names as text, as torchvision's ImageFolder does, unless its `metadata.csv`
    (`file_name,label`) says otherwise. Without an id, a sample's id is its path; it is the
    row number from 0 where there is none, and in a Parquet file that holds the pictures where their
    paths are missing or repeat.

    Args:
        path: the file or folder.
        names: what the classes are called, in the model's order; default: labels that are no
            integers are numbered in sorted order.
        sort: whether they may be: in a table, not a folder, whose model has an order of its own,
            that would be a guess.
        size: the required (channels, height, width); default: one size, whichever it is.

    Raises:
        InputError: with everything that is wrong with the table.
    """
    where = str(path)
    listing = _list(path, size)
    sources, refused = _sources(path if path.is_dir() else path.parent, listing)
    problems = Problems([*listing.problems, *refused])
    problems += wrong_ids(listing.ids, listing.places, where)
    labels, x = None, listing.x
    with problems.collecting():
        labels = read_labels(
            listing.labels,
            listing.places,
            where=where,
            names=names or listing.names,
            always_names=listing.names is not None,
            sort=sort,
        )
    if x is None:
        with problems.collecting():
            x = read_pictures(sources, listing.places, where=listing.where, size=size)
    if problems or labels is None or x is None:
        raise InputError(problems)
    return Samples(
        ids=tuple(listing.ids),
        x=torch.from_numpy(x),
        y=torch.tensor(labels.numbers, dtype=torch.int64),
        names=labels.names,
        paths=tuple(map(slashed, listing.paths)) or None,
        folder=(path if path.is_dir() else path.parent) if listing.paths else None,
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
        return _list_metadata(path) if (path / METADATA).exists() else _list_folder(path)
    kind = path.suffix.lower() if path.exists() else ""
    if kind == ".csv":
        return _list_csv(path)
    if kind == ".parquet":
        return _list_parquet(path)
    if kind == ".npz":
        arrays = read_npz(path, size=size)
        places = [f"{path} index {i}" for i in range(len(arrays.ids))]
        return _Listing(
            where=str(path), ids=arrays.ids, labels=arrays.labels, places=places, x=arrays.x
        )
    what = "this is no table of samples" if path.exists() else "no such file or folder"
    fix = "A table is a .csv, a .parquet, an .npz or an image folder."
    raise InputError(Problem(what, str(path), fix))


def _list_csv(path: Path) -> _Listing:
    table = read_csv(path, needed=("path", "label"))
    paths = [row["path"] for row in table.rows]
    return _Listing(
        where=table.where,
        ids=[row["id"] for row in table.rows] if "id" in table.columns else paths,
        labels=[row["label"] for row in table.rows],
        places=table.places(),
        paths=paths,
    )


def _list_parquet(path: Path) -> _Listing:
    where = str(path)
    columns = parquet_columns(path, ("id", "path", "image", "label"))
    source = "image" if "image" in columns else "path"
    check_columns(columns, (source, "label"), where)
    places = [f"{path} index {i}" for i in range(len(columns[source]))]
    cells = [_picture(cell, place) for cell, place in zip(columns[source], places, strict=True)]
    paths = [cell_text(cell["path"]) for cell in cells]
    numbered = source == "image" and (not all(paths) or len(set(paths)) < len(paths))
    ids = columns.get("id", range(len(paths)) if numbered else paths)
    return _Listing(
        where=where,
        ids=list(map(cell_text, ids)),
        labels=list(map(cell_text, columns["label"])),
        places=places,
        paths=paths,
        encoded=[cell["bytes"] for cell in cells],
    )


def _picture(cell: Any, place: str) -> dict[str, Any]:
    if cell is None or isinstance(cell, str):
        return {"bytes": None, "path": cell}
    if isinstance(cell, dict) and isinstance(cell.get("bytes"), bytes | None):
        return {"bytes": cell.get("bytes"), "path": cell.get("path")}
    what = f"expected a path, or a picture's bytes and path, got {type(cell).__name__}"
    raise InputError(Problem(what, place))


def _list_folder(path: Path) -> _Listing:
    ids = _visible_files(path)
    if not ids:
        raise InputError(Problem("the folder holds no picture", str(path)))
    folders = _visible_folders(path)
    if problem := _parts_of_data(path, folders):
        raise InputError(problem)
    fix = f"Or list it in {METADATA}."
    problems = [
        Problem("the file lies in no label's folder", f"{path}/{name}", fix)
        for name in ids
        if "/" not in name
    ]
    return _Listing(
        where=str(path),
        ids=ids,
        labels=[name.split("/")[0] for name in ids],
        places=[f"{path}/{name}" for name in ids],
        paths=ids,
        # Empty folders count, as they do in torchvision's ImageFolder.
        names=folders,
        problems=first(problems, str(path)),
    )


def _parts_of_data(path: Path, folders: Sequence[str]) -> Problem | None:
    """Return the problem of a folder that holds train/ and val/, which are not its labels."""
    parts = [name for name in folders if name.lower() in PARTS]
    train = [name for name in parts if name.lower().startswith("train")]
    # A class may be called train: beside others it is one, unless there is a val or a test too.
    if not parts or (len(parts) < len(folders) and not (train and len(parts) > len(train))):
        return None
    rest = [name for name in parts if name not in train]
    flags = [("--train", name) for name in train[:1]] + [("--test", name) for name in rest[:1]]
    what = f"the folder holds {', '.join(parts)}: whole tables, not labels"
    fix = f"Give {' and '.join(f'{flag} {path / name}' for flag, name in flags)}"
    return Problem(what, str(path), fix)


def _list_metadata(path: Path) -> _Listing:
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
    return _Listing(
        where=table.where,
        ids=ids,
        labels=labels,
        places=places,
        paths=ids,
        problems=first(conflicts, table.where) + first(unlisted, str(path)),
    )


def _sources(folder: Path, listing: _Listing) -> tuple[list[Source | None], list[Problem]]:
    """Return where each picture lies, None where that is refused, and what is refused."""
    sources: list[Source | None] = list(listing.encoded or [None] * len(listing.paths))
    root, refused = folder.resolve(), []
    for i, path in enumerate(listing.paths):
        if sources[i] is not None:
            continue
        if reason := _refusal(path, folder, root):
            refused.append(Problem(reason, listing.places[i]))
        else:
            sources[i] = folder / path
    return sources, first(refused, listing.where)


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
    """Return the files in the order of torchvision's ImageFolder, which positions are counted in.

    It walks through one label's folder after the other; of all folders in it, sorted by their whole
    paths, each gives its own files. Sorting the files' paths would put a-b/1.png before a/1.png.
    """
    found = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    return [file.as_posix() for file in sorted(filter(_counts, found), key=_walked)]


def _walked(file: Path) -> tuple[str, str, str]:
    return file.parts[0], file.parent.as_posix(), file.name


def _counts(file: Path) -> bool:
    """Say whether a file of an image folder is a sample, or else a mistake that is to be named."""
    if file.parts[0].startswith(".") or file.name.lower() in OF_SYSTEMS:
        return False
    if any(part.startswith(".") for part in file.parts):
        # ImageFolder looks at nothing but suffixes; ._a.png is a system's note about a.png.
        return file.suffix.lower() in SUFFIXES and not file.name.startswith("._")
    return True


def _visible_folders(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
