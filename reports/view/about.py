"""What a reader is told about each probe."""

from __future__ import annotations

from dataclasses import replace

from poison_audit.reports.view.words import printable
from poison_audit.statistics.reading import Words
from poison_audit.verdict.readings import reading_of


def about(probe: str) -> Words:
    """Return what a reader is told about a probe, known here or not."""
    words = reading_of(probe).words
    return replace(words, title=printable(words.title))
