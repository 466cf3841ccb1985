"""A doubt: why the gate may not open, whatever the probes measured. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """One thing that was not as it must be for a pass to mean anything."""

    about: Literal["adapter", "rows", "evidence", "reference", "candidate"]
    """What is doubted: how the model is read, which samples are meant, what is known of the
    poison, what it is compared with, where a candidate comes from."""
    sentence: str
    """What was seen, with its figures and, where one is known, the better reading."""
    step: str
    """What to do about it."""
    spoils: bool = False
    """Whether nothing that was measured can be believed; otherwise only a pass cannot."""
