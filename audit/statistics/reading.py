"""Readings: what the numbers of one probe mean."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one probe's numbers mean."""

    name: str
    """The probe's."""
    title: str
    question: str
    needs: str
    """The evidence that it takes."""
    texts_only: bool = False
    """Whether it is asked of language models alone."""
