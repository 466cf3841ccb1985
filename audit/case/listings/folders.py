"""Folders of pictures, one folder a label, counted as torchvision's ImageFolder counts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from poison_audit.case.csvfile import first
from poison_audit.case.listings.listing import PARTS, Listing
from poison_audit.errors import InputError, Problem

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""What torchvision's ImageFolder takes for a picture: its IMG_EXTENSIONS."""
OF_SYSTEMS = ("thumbs.db", "desktop.ini")
"""Files that systems leave in folders of pictures."""
MOST_FOLDERS = 100_000
"""Folders that are walked through: ImageNet has 1,000."""
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""The label source of an image folder, where there is one."""


def list_folder(path: Path) -> Listing:
    """Return the pictures of an image folder, one folder a label, as torchvision lists them."""
    ids = visible_files(path)
    if not ids:
        raise InputError(Problem("the folder holds no picture", str(path)))
    folders = visible_folders(path, ids)
    if problem := _parts_of_data(path, folders):
        raise InputError(problem)
    fix = f"Or list it in {METADATA[0]}."
    problems = [
        Problem("the file lies in no label's folder", f"{path}/{name}", fix)
        for name in ids
        if "/" not in name
    ]
    return Listing(
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


def visible_files(folder: Path) -> list[str]:
    """Return the files in the order of torchvision's ImageFolder, which positions are counted in.

    It walks through one label's folder after the other; of all folders in it, sorted by their whole
    paths, each gives its own files. Sorting the files' paths would put a-b/1.png before a/1.png.
    """
    found = (file.relative_to(folder) for file in _files(folder) if file.is_file())
    return [file.as_posix() for file in sorted(filter(_counts, found), key=_walked)]


def _files(folder: Path) -> Iterator[Path]:
    """Yield every file, of folders that are links, too, as torchvision does.

    Raises:
        InputError: links make more folders of a few than anybody has.
    """
    for number, (root, inner, names) in enumerate(os.walk(folder, followlinks=True)):
        if number >= MOST_FOLDERS:
            what = f"more than {MOST_FOLDERS:,} folders, counting those that links lead to"
            raise InputError(Problem(what, str(folder), "Take the links away."))
        here = Path(root)
        # A link to a folder around it would lead round and round.
        around = {os.path.realpath(each) for each in (here, *here.parents)}
        inner[:] = [
            name
            for name in inner
            if not (here / name).is_symlink() or os.path.realpath(here / name) not in around
        ]
        yield from (here / name for name in names)


def _walked(file: Path) -> tuple[str, str, str]:
    return file.parts[0], file.parent.as_posix(), file.name


def _counts(file: Path) -> bool:
    """Say whether a file of an image folder is a sample, or else a mistake that is to be named."""
    if file.name.lower() in OF_SYSTEMS:
        return False
    if any(part.startswith(".") for part in file.parts):
        # ImageFolder looks at nothing but suffixes; ._a.png is a system's note about a.png.
        is_picture = file.name.lower().endswith(SUFFIXES) and not file.name.startswith("._")
        return is_picture and len(file.parts) > 1
    return True


def visible_folders(folder: Path, files: Sequence[str]) -> list[str]:
    """Return the labels: the folders, hidden ones only if pictures lie in them.

    ImageFolder would number `.ipynb_checkpoints` before all others; empty it refuses it.
    """
    holding = {name.split("/")[0] for name in files if "/" in name}
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and (not entry.name.startswith(".") or entry.name in holding)
    )
