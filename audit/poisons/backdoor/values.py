"""The values of a pattern or mask: nested lists, or an array or a PNG beside trigger.json."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from poison_audit.case.arrays import array_in, arrays_in
from poison_audit.case.filetext import read_bytes
from poison_audit.case.pictures import spelt
from poison_audit.errors import InputError, Problem, did_you_mean

MOST_BYTES = 16 << 20
"""Largest file that is read: nested lists of 500,000 values."""
_GREY, _COLOURS = ("1", "L"), "RGB"


def values_of(
    value: object, path: Path, key: str, shape: tuple[int, ...], *, low: float
) -> NDArray[np.float32]:
    """Return what one key of a trigger.json holds: (c, h, w), of a mask also (h, w).

    Args:
        value: nested lists, or the name of a .npy, .npz or .png file in the same folder.
        path: trigger.json.
        key: `pattern`, `pixels` or `mask`.
        shape: of the pictures, (c, H, W), which it has to fit on.
        low: the smallest value there may be; the largest is 1.

    Raises:
        InputError: it is something else.
    """
    place, mask = f"{path} {key}", key == "mask"
    if isinstance(value, str) and value.endswith((".npy", ".npz", ".png")):
        found = _beside(value, path, key, place)
    else:
        found = _listed(value, place, mask=mask)
    if found.ndim != 3 and not (mask and found.ndim == 2):
        what = f"has the shape {found.shape}, expected channels, rows, columns"
        raise InputError(Problem(what, place))
    wrong = ~((found >= low) & (found <= 1))
    if bool(wrong.any()):
        what = f"expected values from {low:g} to 1, got {float(found[wrong][0])!r:.60}"
        fix = "Divide 8-bit values by 255; undo a normalisation: x * std + mean."
        raise InputError(Problem(what, place, fix))
    if found.ndim == 3 and found.shape[0] not in ((1, shape[0]) if mask else (shape[0],)):
        what = f"{found.shape[0]} channels, but the pictures have {shape[0]}"
        raise InputError(Problem(what, place))
    if found.shape[-2] > shape[1] or found.shape[-1] > shape[2]:
        size, whole = (spelt(s[-2:]) for s in (found.shape, shape))
        what = f"a patch of {size} is larger than the pictures, {whole}"
        raise InputError(Problem(what, place))
    return found.astype(np.float32)


def _listed(value: object, place: str, *, mask: bool) -> NDArray[np.float64]:
    fix = "Give them as nested lists: channels, rows, columns."
    if mask and isinstance(value, list) and all(_is_row(row) for row in value):
        value = [value]
    channels = value if isinstance(value, list) else []
    rows = [row for channel in channels if isinstance(channel, list) for row in channel]
    cells = [cell for row in rows if isinstance(row, list) for cell in row]
    if not cells or not all(type(cell) in (int, float) for cell in cells):
        what = "expected numbers in three levels of lists, not empty"
        raise InputError(Problem(what, place, f"{fix} Or name a .npy, .npz or .png file beside."))
    try:
        found = np.array(value, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        found = np.empty(0)
    if found.ndim != 3:
        what = "the rows or channels are of different sizes"
        raise InputError(Problem(what, place, fix))
    return found


def _is_row(row: object) -> bool:
    return isinstance(row, list) and bool(row) and all(type(cell) in (int, float) for cell in row)


def _beside(name: str, path: Path, key: str, place: str) -> NDArray[np.float64]:
    file = path.parent / name
    # Neither a path nor a link leads out of the folder.
    if Path(name).name != name or file.resolve().parent != path.parent.resolve():
        what = f"{name!a:.60} is no file of the folder that trigger.json lies in"
        raise InputError(Problem(what, place, "Put it there, and give its name alone."))
    read_bytes(file, most=MOST_BYTES, fix="No picture needs as many values.")
    if name.endswith(".png"):
        return _png(file)
    if name.endswith(".npy"):
        found: NDArray[Any] = array_in(file)
    else:
        found = _member(file, key)
    if found.dtype != bool and (found.dtype.kind != "f" or found.dtype.itemsize > 8):
        what = f"{file.name} holds {found.dtype}, expected floating point from 0 to 1, or bool"
        raise InputError(Problem(what, place, "Divide 8-bit values by 255."))
    if not found.size:
        raise InputError(Problem(f"{file.name} holds no value", place))
    return found.astype(np.float64)


def _member(file: Path, key: str) -> NDArray[Any]:
    names: list[str] = []

    def chosen(held: list[str]) -> list[str]:
        names.extend(held)
        return [key] if key in held else []

    held = arrays_in(file, chosen)
    if key not in held:
        what = f"the array {key!r} is missing"
        raise InputError(Problem(what, str(file), did_you_mean(key, names)))
    return np.asarray(held[key])


def _png(file: Path) -> NDArray[np.float64]:
    try:
        with Image.open(io.BytesIO(read_bytes(file, most=MOST_BYTES)), formats=["PNG"]) as picture:
            if picture.mode not in (*_GREY, _COLOURS):
                what = f"a PNG of mode {picture.mode}, expected grey or RGB of 8 bits"
                fix = "Save it without transparency and palette; what it covers is the mask."
                raise InputError(Problem(what, str(file), fix))
            if picture.width * picture.height > MOST_BYTES:
                raise InputError(Problem("more pixels than a picture needs", str(file)))
            wide = picture.convert("L" if picture.mode in _GREY else _COLOURS)
            found = np.asarray(wide, dtype=np.float64) / 255
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        what = f"not a readable PNG ({str(error) or type(error).__name__:.80})"
        raise InputError(Problem(what, str(file))) from error
    return found[None] if found.ndim == 2 else found.transpose(2, 0, 1)
