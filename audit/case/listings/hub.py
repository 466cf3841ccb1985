"""Tables of the library `datasets`: Parquet files, a hub's folder of them, and `save_to_disk`."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

from poison_audit.case.columns import renamed
from poison_audit.case.filetext import read_bytes
from poison_audit.case.listings.listing import Listing, Part, part_of
from poison_audit.case.parquet import (
    cell_text,
    check_columns,
    class_names,
    columns_of,
    read_arrow,
)
from poison_audit.errors import InputError, Problem

NAMES = {
    "image": ("img", "picture"),
    "path": ("file_name", "filename", "file", "filepath", "file_path", "image_path", "img_path"),
    "label": ("labels", "fine_label", "class", "class_name", "target", "category"),
}  # fmt: skip
"""What columns may be called instead. CIFAR-100's `fine_label` has a coarse one beside it."""
_SHARD = re.compile(r"(?P<part>.+?)-(?P<number>\d{5})-of-(?P<count>\d{5})(-[0-9a-f]+)?\.\w+")
_STATE, _DICT = "state.json", "dataset_dict.json"


def list_parquet(path: Path) -> Listing:
    """Return the pictures of one Parquet file, which may not be one of several."""
    shard = _SHARD.fullmatch(path.name)
    if shard and int(shard["count"]) > 1:
        what = f"is one of {int(shard['count'])} files of a table"
        raise InputError(Problem(what, str(path), f"Give their folder: {path.parent}"))
    return _listed(read_arrow([path]), str(path))


def is_hub(path: Path) -> bool:
    """Say whether a folder holds Parquet files, as a data set of a hub does."""
    return bool(_folders(path))


def list_hub(path: Path, part: Part) -> Listing:
    """Return the pictures of the wanted part of a folder of Parquet files.

    Raises:
        InputError: it does not have that part alone, files are missing, or one is damaged.
    """
    folders = _folders(path)
    if len(folders) > 1:
        names = ", ".join(sorted(folder.name for folder in folders))
        what = f"holds Parquet files in several folders ({names})"
        raise InputError(Problem(what, str(path), "Give the one that is meant."))
    parts: defaultdict[str, list[Path]] = defaultdict(list)
    for file in sorted(folders[0].glob("*.parquet")):
        shard = _SHARD.fullmatch(file.name)
        parts[shard["part"] if shard else file.stem].append(file)
    files = parts[_wanted(list(parts), part, str(path))]
    _check_whole(files, str(path))
    return _listed(read_arrow(files), str(path))


def is_saved(path: Path) -> bool:
    """Say whether a folder was written by `save_to_disk`."""
    return (path / _STATE).is_file() or (path / _DICT).is_file()


def list_saved(path: Path, part: Part) -> Listing:
    """Return the pictures of what `save_to_disk` wrote, of several parts of the wanted one.

    Raises:
        InputError: it does not have that part, files are missing, or one is damaged.
    """
    where = str(path)
    if (path / _DICT).is_file():
        splits = _json(path / _DICT).get("splits")
        names = [name for name in splits if isinstance(name, str)] if _is_list(splits) else []
        return list_saved(_inside(path, _wanted(names, part, where)), part)
    stated = _json(path / _STATE).get("_data_files")
    entries = [each for each in stated if isinstance(each, dict)] if _is_list(stated) else []
    files = [_inside(path, str(each.get("filename"))) for each in entries]
    if not files:
        raise InputError(Problem("names no data file", str(path / _STATE)))
    return _listed(read_arrow(files, stream=True), where)


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _folders(path: Path) -> list[Path]:
    """Return the folders with Parquet files: this one, or those directly in it."""
    if any(path.glob("*.parquet")):
        return [] if (path / "metadata.parquet").is_file() else [path]
    return sorted({file.parent for file in path.glob("*/*.parquet")})


def _wanted(parts: Sequence[str], part: Part, where: str) -> str:
    found = part_of(parts, part)
    if found is None and len(parts) == 1 and part_of(parts, "test" if part == "train" else "train"):
        what, fix = f"holds {parts[0]} alone, and is to be the {part} table", "Give another folder."
        raise InputError(Problem(what, where, fix))
    if found is None and len(parts) != 1:
        names = ", ".join(parts) or "nothing"
        what = f"holds {names}: which of them is the {part} table?"
        raise InputError(Problem(what, where, f"Give a folder with one of them, called {part}."))
    return found or parts[0]


def _check_whole(files: Sequence[Path], where: str) -> None:
    shards = [shard for file in files if (shard := _SHARD.fullmatch(file.name))]
    counts = {int(shard["count"]) for shard in shards}
    numbers = sorted(int(shard["number"]) for shard in shards)
    if shards and (len(counts) > 1 or numbers != list(range(max(counts)))):
        what = f"holds files {', '.join(map(str, numbers[:12]))} of {max(counts)} of a table"
        raise InputError(Problem(what, where, "Fetch all of them, and of one version."))


def _json(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(read_bytes(path, most=1 << 20))
    except (ValueError, RecursionError) as error:
        raise InputError(Problem(f"not JSON ({error!s:.200})", str(path))) from error
    return tree if isinstance(tree, dict) else {}


def _inside(folder: Path, name: str) -> Path:
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise InputError(Problem(f"names {name!r:.80}, which is no file of it", str(folder)))
    return folder / name


def _listed(table: Any, where: str) -> Listing:
    columns, doubts = renamed(table.column_names, NAMES, where)
    if doubts:
        raise InputError(doubts)
    label = next((o for o, n in zip(table.column_names, columns, strict=True) if n == "label"), "")
    names = class_names(table, label)
    table = table.rename_columns(columns)
    cells = columns_of(table, ("id", "path", "image", "label"), where)
    source = "image" if "image" in cells else "path"
    check_columns(cells, (source, "label"), where)
    places = [f"{where} index {i}" for i in range(len(cells[source]))]
    pictures = [_picture(cell, place) for cell, place in zip(cells[source], places, strict=True)]
    paths = [cell_text(picture["path"]) for picture in pictures]
    numbered = source == "image" and (not all(paths) or len(set(paths)) < len(paths))
    ids = cells.get("id", range(len(paths)) if numbered else paths)
    labels = [_label(cell, names) for cell in cells["label"]]
    return Listing(
        where=where,
        ids=list(map(cell_text, ids)),
        labels=labels,
        places=places,
        paths=paths,
        encoded=[picture["bytes"] for picture in pictures],
        names=names,
        upright=source == "image",
    )


def _label(cell: Any, names: Sequence[str] | None) -> str:
    """Return a label as a name, where a number stands for one."""
    if names is not None and isinstance(cell, int) and not isinstance(cell, bool):
        # -1 is how `datasets` says that nobody knows.
        return names[cell] if 0 <= cell < len(names) else "" if cell == -1 else str(cell)
    return cell_text(cell)


def _picture(cell: Any, place: str) -> dict[str, Any]:
    if isinstance(cell, bytes):
        return {"bytes": cell, "path": None}
    if cell is None or isinstance(cell, str):
        return {"bytes": None, "path": cell}
    if isinstance(cell, dict) and isinstance(cell.get("bytes"), bytes | None):
        return {"bytes": cell.get("bytes"), "path": cell.get("path")}
    what = f"expected a path, or a picture's bytes and path, got {type(cell).__name__}"
    raise InputError(Problem(what, place))
