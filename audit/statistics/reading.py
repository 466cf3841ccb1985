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
    tolerance: float | None = None
    """Largest figure that counts as clean, unless a policy says otherwise; None: it decides
    nothing."""
    least: float = 0.0
    """Above this a tolerance must lie."""
    most: float = 1.0
    """Below this a tolerance must lie."""
    texts_only: bool = False
    """Whether it is asked of language models alone."""
