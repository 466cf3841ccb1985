"""Sample tables of pictures, whatever they are kept in, to `Samples`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import torch

from poison_audit.atomic import written_whole
from poison_audit.case.arrays import Arrays, read_npz
from poison_audit.case.columns import PICTURE
from poison_audit.case.csvfile import KINDS, first, read_csv
from poison_audit.case.filetext import kind_of
from poison_audit.case.labels import read_labels
from poison_audit.case.listings import folders, hub, metadata, pickles
from poison_audit.case.listings.listing import Listing, Part
from poison_audit.case.pictures import Shape, Source, read_pictures
from poison_audit.case.rows import slashed
from poison_audit.errors import InputError, Problem, Problems
from poison_audit.models.samples import Samples


def read_table(
    path: Path,
    *,
    names: Sequence[str] | None = None,
    size: Shape | None = None,
    channels: int | None = None,
    sort: bool = True,
    part: Part = "train",
    allow_pickle: bool = False,
) -> Samples:
    """Read a table of labelled pictures.

    - `.csv`, `.tsv`, `.jsonl`, packed by gzip or not: `path` (relative to the table), `label` and
      optionally `id`. `.parquet`: the same, or a Hugging Face `image` column instead of `path`.
    - `.npz`: `x`, `y` and optionally `id`, or what these are usually called; with `allow_pickle`
      also `.pt` and `.pkl`.
    - a folder: each subfolder is a label, numbered in the order of their names as text, as
      torchvision's ImageFolder does, unless its metadata.csv or .jsonl (`file_name,label`) says
      otherwise. Or a folder of Parquet files, or what `save_to_disk` wrote; with `allow_pickle`
      also CIFAR's batches.

    Without an id, a sample's id is its path; it is the row number from 0 where there is none, and
    in a Parquet file that holds the pictures where their paths are missing or repeat.

    Args:
        path: the file or folder.
        names: what the classes are called, in the model's order; default: labels that are no
            integers are numbered in sorted order.
        sort: whether they may be: in a table, not a folder, whose model has an order of its own,
            that would be a guess.
        size: the required (channels, height, width); default: one size, whichever it is.
        channels: that gray pictures are to fill, where no size is required.
        part: what it is wanted for, where it holds several parts.
        allow_pickle: whether pickles may be read, arrays and plain values only.

    Raises:
        InputError: with everything that is wrong with the table.
    """
    where, folder = str(path), path if path.is_dir() else path.parent
    listing = _list(path, size, channels, part, allow_pickle=allow_pickle)
    paths = [_inside(name, folder) for name in listing.paths]
    sources, refused = _sources(folder, paths, listing)
    problems = Problems([*listing.problems, *refused])
    ids = paths if listing.ids == listing.paths else listing.ids
    problems += wrong_ids(ids, listing.places, where)
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
            x = read_pictures(
                sources, listing.places, where=listing.where, size=size, channels=channels,
                upright=listing.upright,
            )  # fmt: skip
    if problems or labels is None or x is None:
        raise InputError(problems)
    return Samples(
        ids=tuple(ids),
        x=torch.from_numpy(x),
        y=torch.tensor(labels.numbers, dtype=torch.int64),
        names=labels.names,
        paths=tuple(map(slashed, paths)) or None,
        folder=folder if paths else None,
        doubted_order=listing.doubted_order,
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


def _list(
    path: Path, size: Shape | None, channels: int | None, part: Part, *, allow_pickle: bool
) -> Listing:
    if pickles.is_cifar(path):
        return pickles.list_cifar(path, part, size=size, allow_pickle=allow_pickle)
    if path.is_dir():
        return _list_folder(path, part)
    # A pipe or a device has no end that reading it would come to.
    kind = kind_of(path) if path.is_file() else ""
    if kind in KINDS:
        return _list_csv(path)
    if kind == ".parquet":
        return hub.list_parquet(path)
    if kind == ".npz":
        return _of_arrays(read_npz(path, part=part, size=size, channels=channels), path)
    if kind in pickles.KINDS:
        arrays = pickles.read_pickled(
            path, part, size=size, channels=channels, allow_pickle=allow_pickle
        )
        return _of_arrays(arrays, path)
    what = "this is no table of samples" if path.exists() else "no such file or folder"
    fix = "A table is a .csv, .tsv, .jsonl, .parquet or .npz, or a folder of pictures."
    raise InputError(Problem(what, str(path), fix))


def _list_folder(path: Path, part: Part) -> Listing:
    if hub.is_saved(path):
        return hub.list_saved(path, part)
    if metadata.has_metadata(path):
        return metadata.list_metadata(path)
    return hub.list_hub(path, part) if hub.is_hub(path) else folders.list_folder(path)


def _of_arrays(arrays: Arrays, path: Path) -> Listing:
    places = [f"{path} index {i}" for i in range(len(arrays.ids))]
    return Listing(where=str(path), ids=arrays.ids, labels=arrays.labels, places=places, x=arrays.x)


def _list_csv(path: Path) -> Listing:
    table = read_csv(path, needed=("path", "label"), aliases=PICTURE)
    paths = [row["path"] for row in table.rows]
    return Listing(
        where=table.where,
        ids=[row["id"] for row in table.rows] if "id" in table.columns else paths,
        labels=[row["label"] for row in table.rows],
        places=table.places(),
        paths=paths,
    )


def _inside(path: str, folder: Path) -> str:
    """Return a path that was written on Windows, or an absolute one, relative to the folder."""
    if "\\" in path and not (folder / path).exists():
        path = path.replace("\\", "/")
    whole = PurePosixPath(path)
    for root in (folder.absolute(), folder.resolve()):
        if whole.is_absolute() and whole.is_relative_to(root) and ".." not in whole.parts:
            return whole.relative_to(root).as_posix()
    return path


def _sources(
    folder: Path, paths: Sequence[str], listing: Listing
) -> tuple[list[Source | None], list[Problem]]:
    """Return where each picture lies, None where that is refused, and what is refused."""
    sources: list[Source | None] = list(listing.encoded or [None] * len(paths))
    root, refused = folder.resolve(), []
    for i, path in enumerate(paths):
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
