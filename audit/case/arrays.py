"""Pictures and labels from an `.npz`, checked before anything trusts them."""

from __future__ import annotations

import lzma
import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poison_audit.case.csvfile import first
from poison_audit.case.listings.listing import PARTS, Part, part_of
from poison_audit.case.pictures import Shape, spelt
from poison_audit.errors import InputError, Problem, did_you_mean

BRIGHTEST = 8.0
"""A floating-point value beyond this is not in units where 1 is white, canary or not."""

# What NumPy and zipfile raise on damaged, truncated, encrypted or pickled content.
_DAMAGED = (
    ArithmeticError,
    EOFError,
    KeyError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
MOST_BYTES = 1 << 30
"""Arrays of more bytes than this are inflated only if they are packed no tighter than pictures."""
TIGHTEST = 100
"""Times that a member may be larger than its packed bytes: pictures pack hardly tenfold."""


_CALLED = {
    "x": ("x", "images", "image", "imgs", "img", "data", "inputs", "input", "samples", "features"),
    "y": ("y", "labels", "label", "targets", "target", "classes"),
    "id": ("id", "ids"),
}  # fmt: skip
"""What files call their arrays, besides what part of the data they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrays:
    """Pictures and labels that are numbers."""

    x: NDArray[Any]
    """(n, c, h, w): uint8, or float32 or float64 in units where 1 is white."""
    labels: tuple[str, ...]
    ids: tuple[str, ...]


def read_npz(
    path: Path, *, part: Part = "train", size: Shape | None = None, channels: int | None = None
) -> Arrays:
    """Read pictures, labels and, where present, `id` from an `.npz`; see `arrays_of`."""
    where = str(path)
    found = arrays_in(path, lambda names: list(chosen(names, part, where)))
    renamed = {chosen(list(found), part, where)[name]: array for name, array in found.items()}
    return arrays_of(renamed, where, size=size, channels=channels)


def chosen(names: Sequence[str], part: Part, where: str) -> dict[str, str]:
    """Return which arrays are `x`, `y` and, where there is one, `id`, by their names.

    Args:
        names: of all arrays of a file.
        part: of several parts, `x_train` and `test_images`, say, the one that is wanted.
        where: what messages call the file.

    Raises:
        InputError: there is none, or more than one, for x or for y.
    """
    parts: dict[str, dict[str, list[str]]] = {}
    for name in names:
        words = re.split(r"[_\- ]+", name.casefold())
        of = next((word for word in words if word in PARTS), "")
        rest = "_".join(word for word in words if word not in PARTS)
        for kind, others in _CALLED.items():
            if rest in others:
                parts.setdefault(of, {}).setdefault(kind, []).append(name)
    stated = [of for of in parts if of]
    wanted = part_of(stated, part) or ""
    held = parts.get(wanted, {})
    if not wanted and stated and "x" not in held:
        what = f"holds {', '.join(names[:12])}: nothing for {part}"
        raise InputError(Problem(what, where, "Call them x and y."))
    exact = {kind: [kind] if kind in found else found for kind, found in held.items()}
    problems = [
        Problem(f"the arrays {' and '.join(found)} may both be {kind}", where, f"Call it {kind}.")
        for kind, found in exact.items()
        if len(found) > 1
    ]
    problems += [
        Problem(f"the array {kind!r} is missing", where, _hint(kind, list(names)))
        for kind in ("x", "y")
        if kind not in exact
    ]
    if problems:
        raise InputError(problems)
    return {found[0]: kind for kind, found in exact.items()}


def arrays_of(
    found: Mapping[str, NDArray[Any]],
    where: str,
    *,
    size: Shape | None = None,
    channels: int | None = None,
) -> Arrays:
    """Return checked pictures and labels.

    Args:
        found: `x`: (n, h, w), (n, h, w, c) or (n, c, h, w) with 1 or 3 channels; channels are last
            if the last axis can be channels and axis 1 cannot. float16 becomes float32. `y`: class
            numbers or names, one hot or not. `id`: default the row number from 0.
        where: what messages call their file.
        size: the required (channels, height, width); gray pictures fill three channels.
        channels: that the pictures are to have, where no size is required.

    Raises:
        InputError: with everything that is wrong with them.
    """
    x, y = found["x"], _labels(found["y"])
    ids = found.get("id", np.arange(len(x) if x.ndim else 0))
    problems = _wrong_pictures(x, where)
    problems += _wrong_column(y, "y", x, where) + _wrong_column(ids, "id", x, where)
    if not problems:
        x = _channels_first(x)
        problems = _wrong_values(x, where) + _wrong_size(x, size, where)
    if problems:
        raise InputError(problems)
    filled = size[0] if size is not None else channels or x.shape[1]
    if x.shape[1] == 1 < filled:
        x = np.repeat(x, filled, axis=1)
    dtype = np.float32 if x.dtype == np.float16 else x.dtype.newbyteorder("=")
    try:
        labels, names = tuple(map(str, y.tolist())), tuple(map(str, ids.tolist()))
    except SystemError as error:  # as Python calls a letter beyond Unicode's last
        raise InputError(Problem(f"holds no text ({error})", where)) from error
    if lone := [i for i, texts in enumerate(zip(labels, names, strict=True)) if _lone(*texts)]:
        what = "id or label holds half of a character (a lone surrogate), which is no text"
        raise InputError(first([Problem(what, f"{where} index {i}") for i in lone], where))
    return Arrays(x=np.ascontiguousarray(x, dtype=dtype), labels=labels, ids=names)


def _lone(*texts: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for text in texts for letter in text)


def _labels(y: NDArray[Any]) -> NDArray[Any]:
    """Return labels that stand in a column, one hot, or as whole fractions as plain numbers."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2 and y.shape[1] > 1 and y.dtype.kind in "biuf":
        hot = y.astype(bool)
        if (hot == y).all() and (hot.sum(axis=1) == 1).all():
            return np.asarray(hot.argmax(axis=1))
    if y.dtype.kind == "f" and y.size and (np.abs(y) < 2**31).all() and (y == np.round(y)).all():
        return y.astype(np.int64)
    return y


def array_in(path: Path) -> NDArray[Any]:
    """Return the array of an `.npy`; InputError: it is damaged, or holds objects."""
    where = str(path)
    try:
        # Mapped, so that no more is claimed than the file holds.
        with np.errstate(all="ignore"):
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(found, np.ndarray):
            raise InputError(Problem("not a single array", where))
        return np.array(found)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(Problem(f"cannot be read ({reason})", where)) from error
    except _DAMAGED as error:
        raise _damaged("npy", error, where) from error


def arrays_in(path: Path, names: Callable[[list[str]], Sequence[str]] = list) -> dict[str, Any]:
    """Return arrays of an `.npz`: those that `names` chooses of all their names.

    Raises:
        InputError: the file is damaged, or holds objects, or much more than it seems to.
    """
    where = str(path)
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise InputError(Problem("one array, not an .npz of x and y", where))
            if archive.zip is not None and (problem := _bomb(archive.zip, where)):
                raise InputError(problem)
            # A member that is no array comes as bytes.
            return {name: np.asarray(archive[name]) for name in names(archive.files)}
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(Problem(f"cannot be read ({reason})", where)) from error
    except _DAMAGED as error:
        raise _damaged("npz", error, where) from error


def _damaged(kind: str, error: Exception, where: str) -> InputError:
    what = f"not a readable .{kind} ({str(error) or type(error).__name__})"
    return InputError(Problem(what, where, "Pickled objects are never read."))


def _bomb(archive: zipfile.ZipFile, where: str) -> Problem | None:
    """Return the problem of a small file that would fill the memory once it is inflated."""
    members = archive.infolist()
    size, packed = (sum(getattr(m, key) for m in members) for key in ("file_size", "compress_size"))
    if size <= max(MOST_BYTES, TIGHTEST * packed):
        return None
    what = f"would be {size / 2**30:,.0f} GiB once inflated, {size / max(1, packed):,.0f} times"
    return Problem(f"{what} the file", where, "Store it by numpy.savez, uncompressed.")


def _hint(name: str, present: list[str]) -> str:
    return did_you_mean(name, present) if present else "The file holds no array."


def _wrong_pictures(x: NDArray[Any], where: str) -> list[Problem]:
    problems = []
    if x.dtype != np.uint8 and not (x.dtype.kind == "f" and x.dtype.itemsize <= 8):
        what = f"x is {x.dtype}, expected uint8, float16, float32 or float64"
        problems.append(Problem(what, where))
    if x.ndim not in (3, 4) or (x.ndim == 4 and not {x.shape[1], x.shape[3]} & {1, 3}):
        what = f"x has the shape {x.shape}, expected (n, h, w), (n, h, w, c) or (n, c, h, w)"
        problems.append(Problem(what, where, "Channels are 1 or 3."))
    elif x.ndim == 4 and {x.shape[1], x.shape[3]} <= {1, 3} and x.shape[1:] != (1, 1, 1):
        what = f"x has the shape {x.shape}: the channels may be its second axis or its last"
        fix = "Give pictures that are larger than 3 pixels, as the model takes them."
        problems.append(Problem(what, where, fix))
    elif not x.size:
        problems.append(Problem(f"x has the shape {x.shape}: there is no sample", where))
    return problems


def _wrong_column(column: NDArray[Any], name: str, x: NDArray[Any], where: str) -> list[Problem]:
    problems = []
    if column.dtype.kind not in "iuU":
        what = f"{name} is {column.dtype}, expected integers or text"
        problems.append(Problem(what, where))
    if x.ndim and column.shape != x.shape[:1]:
        what = (
            f"{name} has the shape {column.shape}, expected ({len(x)},) as x has {len(x)} samples"
        )
        problems.append(Problem(what, where))
    return problems


def _channels_first(x: NDArray[Any]) -> NDArray[Any]:
    if x.ndim == 3:
        return x[:, None]
    channels_last = x.shape[3] in (1, 3) and x.shape[1] not in (1, 3)
    return x.transpose(0, 3, 1, 2) if channels_last else x


def _wrong_values(x: NDArray[Any], where: str) -> list[Problem]:
    if x.dtype == np.uint8:
        return []
    flat = x.reshape(len(x), -1)
    broken = np.flatnonzero(~np.isfinite(flat).all(axis=1)).tolist()
    if broken:
        places = [f"{where} index {i}" for i in broken]
        return first([Problem("x is not finite", place) for place in places], where)
    extreme = float(flat.flat[np.abs(flat).argmax()])
    if abs(extreme) > BRIGHTEST:
        what = f"x holds {extreme:g}, but 1 is white in floating-point pictures"
        return [Problem(what, where, "Divide x by 255, or store it as uint8.")]
    return []


def _wrong_size(x: NDArray[Any], size: Shape | None, where: str) -> list[Problem]:
    shape = x.shape[1:]
    if size is None or shape == tuple(size) or shape == (1, *size[1:]):
        return []
    return [Problem(f"the pictures are {spelt(shape)}, expected {spelt(size)}", where)]
