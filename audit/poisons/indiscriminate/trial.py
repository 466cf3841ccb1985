"""Indiscriminate poison on trial: accuracy against references is all that looks at it."""

from __future__ import annotations

import torch

from poison_audit.case.files import Evidence, Files
from poison_audit.errors import Problems
from poison_audit.poisons.indiscriminate.reading import POISON


def indiscriminate_evidence(
    files: Files, device: torch.device | str, problems: Problems
) -> Evidence:
    """Say which forget samples are looked at: those that say so, where a reference is given."""
    forget = files.forget
    if forget is None or not files.sources.references:
        return Evidence(planted=None, subject={})
    rows = zip(forget.positions, forget.attacks, strict=True)
    said = frozenset(place for place, attack in rows if attack == POISON.name)
    return Evidence(planted=None, subject={}, explains=said)
