"""The samples to look at, checked before a page shows them: report.json may be anybody's."""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from poison_audit.case.shown import Exhibit
from poison_audit.reports.view.words import printable, quoted
from poison_audit.verdict.record import AuditRecord

_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNKS = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))
"""All that a still picture without a word of text is made of."""
MOST_BYTES = 40_000
"""Largest picture."""
EDGE = 96
"""Longest edge."""
ROOM = 800_000
"""Characters of base64 that all pictures of a page take together at most."""
FOLDED = 12
"""From more samples than this on, those of one kind are folded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One sample on the page."""

    name: str
    label: str
    told: str
    """Its labels, and what the deployed model answers, as far as they are known."""
    png: str
    """base64 of a PNG; empty: it is a text."""
    width: int
    height: int
    alt: str
    text: str
    bare: str = ""
    """The picture without the trigger, as large; empty: there is none."""
    answer: str = ""
    """What the model answers to it; empty: it was not asked."""
    without: str = ""
    """What it answers without the trigger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wall:
    """Samples of one kind under one title."""

    role: str
    """`trigger`, `target`, `flip` or `forget`."""
    title: str
    note: str
    """What they are and how they were chosen; empty where the title says it."""
    shown: tuple[Shown, ...]
    more: int
    """Pictures left out so that the page stays small."""
    fold: bool


def walls(record: AuditRecord) -> tuple[Wall, ...]:
    """Return the exhibits by what they are; what is no picture and no text is left out."""
    groups: dict[tuple[str, str], Wall] = {}
    room = ROOM
    for each in record.exhibits:
        shown = _shown(each)
        if shown is None:
            continue
        title, note = _title(each, record), _note(each)
        empty = Wall(role=each.role, title=title, note=note, shown=(), more=0, fold=False)
        wall = groups.setdefault((each.role, title), empty)
        if not wall.note and note:
            wall = replace(wall, note=note)
        if (size := len(shown.png) + len(shown.bare)) > room:
            wall = replace(wall, more=wall.more + 1)
        else:
            room -= size
            wall = replace(wall, shown=(*wall.shown, shown), fold=len(wall.shown) >= FOLDED)
        groups[each.role, title] = wall
    return tuple(groups.values())


def _title(each: Exhibit, record: AuditRecord) -> str:
    if each.role == "trigger":
        trigger = record.subject.get("trigger")
        recovered = isinstance(trigger, Mapping) and "recovered" in trigger
        return f"The {'recovered ' * recovered}trigger on clean test samples"
    named = f", {printable(each.attack)}" if each.attack else " of no named attack"
    titles = {"target": "Targets of the attack", "flip": "Wrong labels"}
    return titles.get(each.role, f"Forget samples{named}")


def _note(each: Exhibit) -> str:
    if each.role == "flip":
        return "Those first whose wrong label the deployed model gives most surely."
    if each.role == "trigger" and each.wanted is not None:
        return f"The attacker wants the answer {printable(each.wanted)}."
    return ""


def _shown(each: Exhibit) -> Shown | None:
    size = None if each.png is None else png_size(each.png)
    if size is None and each.text is None:
        return None
    name = printable(each.name)
    whole = size is not None and each.bare is not None and png_size(each.bare) == size
    return Shown(
        name=name,
        label=printable(each.label),
        told=_told(each),
        png=each.png or "" if size is not None else "",
        width=size[0] if size else 0,
        height=size[1] if size else 0,
        alt=f"{name} with the trigger" if whole else f"Picture of the sample {name}",
        text=quoted(each.text, most=400) if size is None and each.text is not None else "",
        bare=(each.bare or "") if whole else "",
        answer=printable(each.answer or ""),
        without=printable(each.without or ""),
    )


def _told(each: Exhibit) -> str:
    """Return the labels of a sample, and the model's answer, in words.

    >>> sample = Exhibit(role="flip", name="a", label="cat", true="dog", answer="cat")
    >>> _told(sample)
    'labelled cat, truly dog; the model answers cat'
    """
    label, answer = printable(each.label), printable(each.answer or "")
    if each.true is not None:
        label = f"labelled {label}, truly {printable(each.true)}"
    else:
        label = f"label {label}"
    if not answer:
        return label
    if each.without is None:
        return f"{label}; the model answers {answer}"
    return f"{label}; answered {printable(each.without)} without the trigger, {answer} with it"


def png_size(text: str) -> tuple[int, int] | None:
    """Return width and height of a small PNG in base64; None if it is none, or is not whole."""
    if len(text) > 4 * MOST_BYTES // 3 + 4 or not _BASE64.fullmatch(text):
        return None
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    if not raw.startswith(_SIGNATURE):
        return None
    chunks = list(_chunks(raw))
    names = [name for name, _ in chunks]
    if not chunks or names[0] != b"IHDR" or names[-1] != b"IEND" or b"IDAT" not in names:
        return None
    if not _CHUNKS.issuperset(names) or names.count(b"IHDR") > 1 or len(chunks[0][1]) != 13:
        return None
    width, height = (int.from_bytes(chunks[0][1][at : at + 4], "big") for at in (0, 4))
    return (width, height) if 0 < width <= EDGE and 0 < height <= EDGE else None


def _chunks(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (name, body) of a PNG's chunks (PNG 1.2, section 3.2); none where one is damaged."""
    at, found = len(_SIGNATURE), []
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 4], "big")
        end = at + 12 + size
        checked = raw[at + 4 : end - 4]
        if end > len(raw) or zlib.crc32(checked) != int.from_bytes(raw[end - 4 : end], "big"):
            return
        found.append((checked[:4], checked[4:]))
        at = end
    yield from found
