"""A trigger and its controls, ready to be put on inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from poison_audit.models.model import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamps:
    """A trigger and its controls, to be put on inputs."""

    triggers: int
    """How many: the trigger, number 0, and its controls."""
    inputs: Tensor
    """The inputs that the trigger fits on, by place: int64, on the CPU."""
    batch: Callable[[Tensor, Tensor], Batch]
    """(which trigger, which place), int64, both (rows,) -> the stamped inputs."""
    controls: str
    """What is drawn anew in a control."""
