"""Bytes and text of a user's files, unpacked and decoded within bounds."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path

from poison_audit.errors import InputError, Problem

TIGHTEST = 100
"""Times that an unpacked file may be larger than the packed one: text packs some tenfold."""
ROOM = 64 << 20
"""Bytes that however few may unpack to."""


def kind_of(path: Path) -> str:
    """Return a file's suffix in lower case, not counting the `.gz` of a packed one.

    >>> kind_of(Path("train.CSV.gz")), kind_of(Path("x.tar.npz")), kind_of(Path("folder"))
    ('.csv', '.npz', '')
    """
    return Path(path.name.lower().removesuffix(".gz")).suffix


def read_bytes(path: Path, *, most: int | None = None, fix: str = "") -> bytes:
    """Return a file's bytes; InputError when it cannot be read, or has more than `most`."""
    what = "is a pipe or a device, expected a file"
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise InputError(Problem(what, str(path), "Store it."))
        with path.open("rb") as file:
            raw = file.read(-1 if most is None else most + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(Problem(f"cannot be read ({reason})", str(path))) from error
    except ValueError as error:  # half of a character, a NUL: no file's name holds it
        raise InputError(Problem("no file can have this name", str(path))) from error
    if most is not None and len(raw) > most:
        raise InputError(Problem(f"larger than {most >> 20} MiB", str(path), fix))
    return raw


def as_text(raw: bytes, where: str) -> str:
    """Return a file's text: UTF-8, or UTF-16 with a byte-order mark, packed by gzip or not.

    Raises:
        InputError: it is neither, or damaged, or unpacks to far more than a text would.
    """
    raw = unpacked(raw, where)
    # Excel's "Unicode text" is UTF-16.
    coding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return raw.decode(coding)
    except UnicodeDecodeError as error:
        row = raw[: error.start].count(b"\n") + 1
        name = "UTF-16" if coding == "utf-16" else "UTF-8"
        what = f"not {name} (byte {raw[min(error.start, len(raw) - 1)]:#04x} in line {row})"
        raise InputError(Problem(what, where, "Save it as CSV UTF-8.")) from error


def unpacked(raw: bytes, where: str) -> bytes:
    """Return what gzip packed, or the bytes themselves where it packed none."""
    if raw[:2] != b"\x1f\x8b":
        return raw
    most = max(ROOM, TIGHTEST * len(raw))
    try:
        found = gzip.GzipFile(fileobj=io.BytesIO(raw)).read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(Problem(f"not a whole gzip file ({error})", where)) from error
    if len(found) > most:
        what = f"more than {most >> 20} MiB once unpacked"
        raise InputError(Problem(what, where, "Unpack it first, if it is meant to be."))
    return found
