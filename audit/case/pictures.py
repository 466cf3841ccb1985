"""Encoded pictures to 8-bit arrays, decoded as torchvision's `ImageFolder` would have."""

from __future__ import annotations

import io
import math
import os
import struct
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from poison_audit.case.csvfile import first
from poison_audit.errors import InputError, Problem

Source = Path | bytes
Shape = tuple[int, int, int]
"""Channels, height, width."""

_CHANNELS = {"1": 1, "L": 1, "LA": 1, "La": 1, "P": 3, "PA": 3, "RGB": 3, "RGBA": 3, "RGBa": 3}
_CHANNELS |= {"RGBX": 3, "CMYK": 3, "YCbCr": 3}
_ORIENTATION = 0x0112
"""The EXIF tag that says how a picture is to be turned."""
LARGEST = 4096 * 4096
"""Pixels of the largest picture that is decoded: a small file may claim any size."""

# What Pillow's plugins raise on a damaged file, besides OSError.
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    IndexError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def read_pictures(
    sources: Sequence[Source | None],
    places: Sequence[str],
    *,
    where: str,
    size: Shape | None = None,
    channels: int | None = None,
    upright: bool = False,
) -> NDArray[np.uint8]:
    """Decode pictures of one size: (n, c, h, w).

    Gray pictures among coloured ones get three equal channels; transparency is dropped.

    Args:
        sources: files, or encoded pictures; None for one that is known to be missing.
        places: where each stands in its table, for messages.
        where: the table.
        size: the required shape; default: the height and width of most pictures, and three
            channels if any picture has colour.
        channels: that the pictures are to have, where no size is required: gray ones get three, as
            ImageFolder gives them.
        upright: whether they are turned as their EXIF says.

    Raises:
        InputError: a picture cannot be read, has more than 8 bits a channel, is of another size,
            or has colour where one channel is required.
    """
    shapes: list[Shape | None] = []
    unreadable: list[Problem] = []
    for source, place in zip(sources, places, strict=True):
        try:
            shapes.append(None if source is None else _shape(source, upright=upright))
        except _UNREADABLE as error:
            shapes.append(None)
            unreadable.append(Problem(_reason(error), place))
    wanted = size or _commonest([shape for shape in shapes if shape], channels)
    if len(sources) * math.prod(wanted) > (room := memory()):
        each = f"{len(sources):,} pictures of {spelt(wanted)}"
        what = f"{each} take more than this machine's memory ({room / 2**30:,.0f} GiB)"
        raise InputError(Problem(what, where, "Make them smaller, or fewer."))
    x = np.zeros((len(sources), *wanted), dtype=np.uint8)
    misfits: list[Problem] = []
    for i, (source, place, shape) in enumerate(zip(sources, places, shapes, strict=True)):
        if source is None or shape is None:
            continue
        if not _fits(shape, wanted):
            misfits.append(_misfit(shape, wanted, place, given=size is not None))
            continue
        try:
            x[i] = _pixels(source, channels=wanted[0], upright=upright)
        except _UNREADABLE as error:
            unreadable.append(Problem(_reason(error), place))
    if problems := first(unreadable, where) + first(misfits, where):
        raise InputError(problems)
    return x


def spelt(shape: Sequence[int]) -> str:
    """Return a shape as messages print it.

    >>> spelt((3, 32, 32))
    '3x32x32'
    """
    return "x".join(map(str, shape))


def memory() -> int:
    """Return the bytes of memory that this machine has, used or not."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _opened(source: Source) -> Image.Image:
    if isinstance(source, Path) and source.exists() and not source.is_file():
        raise ValueError("it is a folder, a pipe or a device")
    return Image.open(source if isinstance(source, Path) else io.BytesIO(source))


def _shape(source: Source, *, upright: bool) -> Shape:
    with _opened(source) as picture:
        if picture.mode not in _CHANNELS:
            what = f"its mode is {picture.mode}: 8 bits a channel are read, no more"
            raise ValueError(what)
        if picture.width * picture.height > LARGEST:
            what = f"it is {picture.width}x{picture.height}, above {LARGEST:,} pixels"
            raise ValueError(what)
        height, width = picture.height, picture.width
        if upright and picture.getexif().get(_ORIENTATION) in (5, 6, 7, 8):
            height, width = width, height
        return _CHANNELS[picture.mode], height, width


def _pixels(source: Source, *, channels: int, upright: bool) -> NDArray[np.uint8]:
    with _opened(source) as opened:
        picture: Image.Image = opened
        if upright and picture.getexif().get(_ORIENTATION) is not None:
            picture = ImageOps.exif_transpose(picture)
        if picture.mode in ("P", "PA"):
            # Straight to RGB, Pillow may warn of transparency; the colours are the same.
            picture = picture.convert("RGBA")
        array = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    return array.reshape(*array.shape[:2], channels).transpose(2, 0, 1)


def _commonest(shapes: Sequence[Shape], channels: int | None) -> Shape:
    if not shapes:
        return (1, 1, 1)
    height, width = Counter(shape[1:] for shape in shapes).most_common(1)[0][0]
    return max(channels or 1, *(shape[0] for shape in shapes)), height, width


def _fits(shape: Shape, wanted: Shape) -> bool:
    return shape[1:] == wanted[1:] and (shape[0] == wanted[0] or (shape[0], wanted[0]) == (1, 3))


def _misfit(shape: Shape, wanted: Shape, place: str, *, given: bool) -> Problem:
    expected = "expected" if given else "most pictures are"
    what = f"the picture is {spelt(shape)}, {expected} {spelt(wanted)}"
    fix = "Resize it as training did."
    if shape[1:] == wanted[1:]:
        fix = "It has colour; convert it to gray as training did."
    return Problem(what, place, fix)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "the picture cannot be read (not a picture that Pillow knows)"
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"the picture cannot be read ({reason})"
