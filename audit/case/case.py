"""The case on trial: model, forget, retain and test data, and what is known of the poison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from poison_audit.models.model import Model
from poison_audit.models.samples import Samples
from poison_audit.records import Recipe


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
    baseline: Tensor | None = None
    """Whether the deployed model answers each test sample correctly: bool, (n,)."""
