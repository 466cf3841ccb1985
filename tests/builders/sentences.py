"""The sentences of texts that people read, with one word for each name and figure."""

from __future__ import annotations

import re

from poison_audit.reports.view.view import view
from poison_audit.verdict.record import AuditRecord

NAME, FIGURE = "name", "ten"
"""What stands for what is no English word."""
_CODE = re.compile(
    r"`[^`]*`|https?://\S+|--[\w-]+(?:[= ][A-Z][A-Z=,._]+\b)?|\b[\w@-]*[/_@][\w./@\u2026-]*"
    r"|\b\w+\.(?:json|csv|toml|npz|npy|png|safetensors|html|md|py|jsonl)\b|\[\[?[\w. -]+\]\]?"
)
_FIGURE = re.compile(r"[-+\u2212]?\d[\d,.:e-]*\d%?|[-+\u2212]?\d%?")
_END = re.compile(r"(?<=[.!?:])\s+(?=[A-Z\u201c`(-])|;\s|\n+")


def plain(text: str) -> str:
    """Return a text with one word for each name and figure.

    >>> plain("Mean leak score: 0.38 (95% interval 0.26 to 0.50); see `check --out DIR`.")
    'Mean leak score: ten (ten interval ten to ten); see name.'
    """
    text = re.sub(r"\s+", " ", _CODE.sub(NAME, text))
    return _FIGURE.sub(FIGURE, text).strip()


def sentences(text: str) -> list[str]:
    """Return the sentences of a text; those without two words are labels, and left out.

    >>> sentences("CLEAN. It is 0.5 of it. Do this: --out DIR then; that")
    ['It is ten of it', 'Do this', 'name then', 'that']
    """
    found = (plain(part).strip(" .:;-") for part in _END.split(text))
    return [part for part in found if re.search(r"[a-z]{2}", part)]


def first_screen(record: AuditRecord) -> list[str]:
    """Return the sentences above the table of a report's page."""
    seen = view(record)
    parts = (
        seen.answer, seen.sentence, seen.tested, seen.untested, seen.how_sure, seen.next_step,
        seen.sanity, *seen.doubts, *seen.found,
    )  # fmt: skip
    return [one for part in parts for one in sentences(part)]
