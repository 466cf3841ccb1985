"""The case on trial: model, forget, retain and test data, and what is known of the poison."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from audit.data.canaries import Canaries
from audit.data.samples import Samples
from audit.models.model import Model
from audit.records import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedCanaries:
    """The canaries of a forget set, with the clean samples they were made from."""

    key: Canaries
    names: tuple[str, ...]
    """Key ids of the canaries in the forget set."""
    bases: Samples
    """The clean sample of each canary, with the label it was trained with, in `names`' order."""
    noise: Tensor
    """What was drawn for each canary, unclipped: float32, the shape of the bases."""
    held_out_noise: Tensor
    """As many held-out keys' noise, scored at the same bases."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is on trial. Retain is train minus forget; neither overlaps test."""

    model: Model
    """The deployed checkpoint, in eval mode."""
    retain: Samples
    forget: Samples
    test: Samples
    recipe: Recipe
    canaries: PlantedCanaries | None = None
    """None: no key was given."""
    attacks: tuple[str, ...] = ()
    """What each forget sample is said to be part of; empty string = unknown."""
    baseline: Tensor | None = None
    """Whether the deployed model answers each test sample correctly: bool, (n,)."""
