"""The case on trial: model, forget, retain and test data, and what is known of the poison."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from poison_audit.models.model import Model
from poison_audit.models.samples import Samples
from poison_audit.records import Json, Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a reference, which never saw the poison, answers on the test samples."""

    name: str
    digest: str
    """SHA-256 of its weights, so that it is never compared with itself."""
    correct: Tensor
    """bool, (n,)."""
    asked: Mapping[str, Any] = field(default_factory=dict)
    """What else a poison's probe has asked it, by poison."""

    def compared(self, theirs: Tensor, mine: Tensor) -> dict[str, Json]:
        """Count the samples on which it, a model on trial, both or neither did something.

        Args:
            theirs: whether it did: bool, (n,).
            mine: the same of the model on trial.
        """
        return {
            "reference": self.name,
            "both": int((mine & theirs).sum()),
            "only_reference": int((~mine & theirs).sum()),
            "only_candidate": int((mine & ~theirs).sum()),
            "neither": int((~mine & ~theirs).sum()),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is on trial. Retain is train minus forget; neither overlaps test."""

    model: Model
    """The deployed checkpoint, in eval mode."""
    retain: Samples
    forget: Samples
    test: Samples
    recipe: Recipe
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """What is known of each poison, by its name; read it by what that poison's `trial` offers.
    A poison that nothing is known of is not in it."""
    references: tuple[Answers, ...] = ()
    attacks: tuple[str, ...] = ()
    """What each forget sample is said to be part of; empty string = unknown."""
    stamp: Callable[[Samples], Samples] | None = None
    """What puts the trigger, given or recovered, on samples, their labels kept; None: there is no
    trigger that anybody knows of."""
    baseline: Tensor | None = None
    """Whether the deployed model answers each test sample correctly: bool, (n,)."""
