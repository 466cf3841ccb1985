"""Names, numbers and times in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from poison_audit.records import Json
from poison_audit.statistics.reading import Words
from poison_audit.verdict.readings import reading_of

DEEPEST = 12
"""Levels of lists and objects that are shown; deeper ones are cut."""
FARTHEST = 1e9
"""Largest number that any probe could write, and that a chart can be drawn with."""


def about(probe: str) -> Words:
    """Return what a reader is told about a probe, known here or not."""
    words = reading_of(probe).words
    return replace(words, title=printable(words.title))


def printable(text: str) -> str:
    r"""Return `text` with everything invisible or reordering written out as an escape.

    >>> print(printable("a\nb\u202ec"))
    a\nb\u202ec
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(text: str, most: int = 1000) -> str:
    r"""Return a text of a user's in quotation marks, on one line and of bounded length.

    Args:
        text: any.
        most: characters shown; of more, their number is told.

    >>> print(quoted("cf\nmn"), quoted("abcdef", most=3))
    “cf\nmn” “abc…” (6 characters)
    """
    if len(text) <= most:
        return f"\u201c{printable(text)}\u201d"
    return f"\u201c{printable(text[:most])}\u2026\u201d ({len(text):,} characters)"


def spelt(text: str, most: int = 1000) -> str:
    r"""Return a text of a user's as `quoted` does, and its letters again where they may deceive.

    Letters of other scripts look like those of this one, and are no less another word.

    >>> print(spelt("cf\u200b"), spelt("\u0441f"))
    “cf\u200b” “сf” (\u0441f)
    """
    shown = quoted(text, most)
    if printable(text).isascii():
        return shown
    letters = text[: min(most, 80)].encode("unicode_escape").decode()
    return f"{shown} ({letters}{'…' if len(text) > min(most, 80) else ''})"


def shallow(plain: Json, deepest: int = DEEPEST) -> Json:
    """Return a JSON value with everything below so many levels cut, so that no page is endless.

    >>> shallow([1, [2, [3]]], 2)
    [1, [2, '...']]
    """
    if not isinstance(plain, list | tuple | Mapping):
        return plain
    if deepest == 0:
        return "..."
    if isinstance(plain, Mapping):
        return {str(key): shallow(item, deepest - 1) for key, item in plain.items()}
    return [shallow(item, deepest - 1) for item in plain]


def drawable(*numbers: float | None, most: float = FARTHEST) -> bool:
    """Say whether a chart can be drawn with these numbers, all of them at most `most` in size.

    >>> drawable(0.5, -3.0), drawable(None), drawable(1e300)
    (True, False, False)
    """
    return all(number is not None and abs(number) <= most for number in numbers)


def is_number(plain: Json) -> bool:
    """Say whether a value is a number that some probe could have written."""
    return not isinstance(plain, bool) and isinstance(plain, int | float) and drawable(plain)


def value(plain: Json) -> str:
    """Return a value of a JSON file in words, cut where it is deep.

    >>> value(11173962), value(0.0500001), value([0.5, 0.25]), value(None), value(True)
    ('11,173,962', '0.0500001', '0.5, 0.25', 'none', 'yes')
    """
    plain = shallow(plain)
    if plain is None or plain == "":
        return "none"
    if isinstance(plain, bool):
        return "yes" if plain else "no"
    if isinstance(plain, int):
        return f"{plain:,}"
    if isinstance(plain, float):
        return f"{plain:.6g}"
    if isinstance(plain, str):
        return printable(plain)
    if isinstance(plain, list | tuple) and plain:
        nested = any(isinstance(item, list | tuple) for item in plain)
        return ("; " if nested else ", ").join(value(item) for item in plain)
    return printable(json.dumps(plain, sort_keys=True, ensure_ascii=False))


def p_value(p: float) -> str:
    """Return a p-value in words.

    >>> p_value(0.0321), p_value(0.00078), p_value(3e-5), p_value(1e-80)
    ('p = 0.032', 'p = 0.0008', 'p = 3e-05', 'p < 1e-6')
    """
    if p < 1e-6:
        return "p < 1e-6"
    if p < 1e-4:
        return f"p = {p:.0e}"
    return f"p = {p:.3f}" if p >= 0.001 else f"p = {p:.4f}"


def percent(share: float) -> str:
    """Return a share in [0, 1] as a percentage; 100.0% and 0.0% only where nothing is missing.

    >>> percent(0.8312), percent(0.99996), percent(1.0)
    ('83.1%', '99.996%', '100.0%')
    """
    places = next((p for p in range(1, 6) if 0 < round(100 * share, p) < 100), 1)
    return f"{100 * share:.{places}f}%"


def duration(seconds: float) -> str:
    """Return a time in words.

    >>> duration(0.04), duration(12.34), duration(245), duration(7800)
    ('0.04 s', '12.3 s', '4 min 05 s', '2 h 10 min')
    """
    if seconds < 0.995:
        return f"{seconds:.2g} s" if seconds >= 0.01 else "under 0.01 s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def memory(size: int) -> str:
    """Return a number of bytes in words.

    >>> memory(3 * 2**30), memory(5 * 2**20), memory(7)
    ('3.0 GiB', '5 MiB', 'under 1 MiB')
    """
    if size >= 2**30:
        return f"{size / 2**30:.1f} GiB"
    return f"{size / 2**20:.0f} MiB" if size >= 2**20 else "under 1 MiB"
