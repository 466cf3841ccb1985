"""The samples to look at, checked before a page shows them: report.json may be anybody's."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from audit.records import AuditRecord, Exhibit
from reports.words import printable, quoted

_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_BYTES = 40_000
"""Largest picture."""
EDGE = 96
"""Longest edge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One sample on the page."""

    name: str
    label: str
    png: str
    """base64 of a PNG; empty: it is a text."""
    width: int
    height: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wall:
    """Samples of one kind under one title."""

    title: str
    shown: tuple[Shown, ...]


def walls(record: AuditRecord) -> tuple[Wall, ...]:
    """Return the exhibits by what they are; what is no picture and no text is left out."""
    groups: dict[str, list[Shown]] = {}
    for each in record.exhibits:
        shown = _shown(each)
        if shown is not None:
            groups.setdefault(_title(each), []).append(shown)
    return tuple(Wall(title=title, shown=tuple(shown)) for title, shown in groups.items())


def _title(each: Exhibit) -> str:
    if each.role == "target":
        return "Targets of the attack"
    if each.role == "trigger":
        return "The trigger on clean test samples"
    attack = printable(each.attack)
    return f"Forget samples, {attack}" if attack else "Forget samples of no named attack"


def _shown(each: Exhibit) -> Shown | None:
    size = None if each.png is None else png_size(each.png)
    if size is None and each.text is None:
        return None
    return Shown(
        name=printable(each.name),
        label=printable(each.label),
        png=each.png or "" if size is not None else "",
        width=size[0] if size else 0,
        height=size[1] if size else 0,
        text=quoted(each.text, most=400) if size is None and each.text is not None else "",
    )


def png_size(text: str) -> tuple[int, int] | None:
    """Return width and height of a small PNG in base64; None if it is none."""
    if len(text) > 4 * MOST_BYTES // 3 + 4 or not _BASE64.fullmatch(text):
        return None
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    if raw[:8] != _SIGNATURE or raw[12:16] != b"IHDR" or len(raw) < 33:
        return None
    width, height = (int.from_bytes(raw[at : at + 4], "big") for at in (16, 20))
    return (width, height) if 0 < width <= EDGE and 0 < height <= EDGE else None
