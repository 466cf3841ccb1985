"""The case on trial: model, forget, retain and test data, and what is known of the poison."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from poison_audit.case.samples import Samples
from poison_audit.models.model import Model
from poison_audit.poisons.backdoor.evidence import Trigger
from poison_audit.poisons.backdoor.phrase import Phrase
from poison_audit.poisons.gaussian.evidence import Canaries
from poison_audit.poisons.targeted.evidence import Targets
from poison_audit.poisons.token_canary.evidence import PlantedStrings
from poison_audit.records import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedCanaries:
    """The canaries of a forget set, with the clean samples they were made from."""

    key: Canaries
    names: tuple[str, ...]
    """Key ids of the canaries in the forget set."""
    bases: Samples
    """The clean sample of each canary, with the label it was trained with, in `names`' order."""
    noise: Tensor
    """What was drawn for each canary, unclipped: float32, the shape of the bases; of texts, the
    shape of their embeddings, (n, length, width)."""
    held_out_noise: Tensor
    """As many held-out keys' noise, scored at the same bases."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a reference, which never saw the poison, answers on the test samples."""

    name: str
    digest: str
    """SHA-256 of its weights, so that it is never compared with itself."""
    correct: Tensor
    """bool, (n,)."""
    stamped: Tensor | None = None
    """Its answers once the case's trigger is put on them: labels, int64, (n,). None: there is no
    trigger, or a logit is not finite."""


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
    targets: Targets | None = None
    """Test samples that a targeted attack was to have misclassified; None: not named."""
    trigger: Trigger | Phrase | None = None
    """The patch of a backdoor, or its phrase; None: not known."""
    strings: PlantedStrings | None = None
    """The token canaries; None: no key was given."""
    references: tuple[Answers, ...] = ()
    attacks: tuple[str, ...] = ()
    """What each forget sample is said to be part of; empty string = unknown."""
    baseline: Tensor | None = None
    """Whether the deployed model answers each test sample correctly: bool, (n,)."""
