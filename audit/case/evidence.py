"""What a poison brings to a case. The case knows no poison: each has a reader of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from poison_audit.case.files import Files
from poison_audit.errors import Problems
from poison_audit.models.samples import Samples
from poison_audit.records import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was read of one poison, and what the report is to say of it."""

    planted: Any
    """What its probes need, on the device; None: not given. It becomes `Case.evidence`."""
    subject: Mapping[str, Json]
    """Its part of the report's `subject`, None where a file is not given."""
    train: Samples | None = None
    """The training table as it was trained on; None: as it is stored."""
    limits: tuple[str, ...] = ()
    """What this case cannot show, in sentences."""
    trust: tuple[str, ...] = ()
    """What no file proves and has to be taken on trust, in sentences."""


Reader = Callable[[Files, torch.device | str, Problems], Evidence]
"""(what was read so far, where the evidence is to lie, problems to add to) -> the evidence.

It is asked whatever was given and whatever could be read, so that all problems are said at once.
"""
