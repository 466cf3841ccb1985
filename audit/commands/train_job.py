"""What a training run needs, once everything is read and checked."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from poison_audit.case.forget import ForgetSet
from poison_audit.models.model import Model
from poison_audit.models.normalization import Normalize
from poison_audit.models.reader import Reading
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.gaussian.evidence import Canaries
from poison_audit.records import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """What there is more where a language model is trained."""

    reading: Reading
    """As it is read again; `start` is None where training begins with new weights."""
    base: Path
    """The folder that it was made from."""
    config: str
    """What config.json beside the weights is to say."""
    key: Canaries | None
    """Of the noise that was put on embeddings; None: there is none."""
    key_path: Path | None
    told: tuple[str, ...] = ()
    """What the table lost or lacks, in sentences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A training run that has everything it needs."""

    model: Model
    """The architecture, on `device`; its weights are not looked at."""
    arch: str | None
    """As `--arch` takes it; None for a factory's and a language model's."""
    normalize: Normalize | None
    """None: it reads texts."""
    texts: Texts | None
    """None: it takes pictures."""
    data: Samples
    """What is trained on, on the CPU."""
    test: Samples | None
    forget: ForgetSet | None
    """What was left out of `data`."""
    recipe: Recipe
    steps: int
    rng: Rng
    device: torch.device
    train_path: Path
    test_path: Path | None
    names: tuple[str, ...] | None
    """The labels' names, as audit.toml should give them."""
    output: Path
    """As it was given: a file, or a language model's folder."""
    file: Path
    """Of the weights."""

    @property
    def noisy(self) -> bool:
        """Whether something that is trained on carries noise on its embeddings."""
        return self.data.noise is not None


def stated(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe's values; what was assumed before is done now."""
    values = asdict(recipe)
    del values["assumed"]
    return values
