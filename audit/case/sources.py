"""Where everything on trial lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from poison_audit.errors import Problem, Problems
from poison_audit.models.reader import Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where everything on trial lies, as flags and audit.toml say; None where neither does."""

    model: Path
    forget: Path | None
    train: Path | None
    test: Path | None
    names: tuple[str, ...] | None = None
    """Label names, in the order of the model's outputs."""
    evidence: Mapping[str, Path] = field(default_factory=dict)
    """What the poisons' probes need, by the name of the `EvidenceFile`; only what is given."""
    references: tuple[Path, ...] = ()
    candidates: Mapping[str, Path] = field(default_factory=dict)
    arch: str | None = None
    factory: str | None = None
    normalize: str | None = None
    reading: Reading = field(default_factory=Reading)
    """Of a language model."""
    allow_pickle: bool = False
    state_key: str | None = None
    base: Path | None = None
    """Of an adapter."""
    trainable: str = "all"
    """What of the model methods train: all, or its adapter."""


WANTED = {
    name: Problem(what, fix=f"Give it by {fix}")
    for name, (what, fix) in {
        "forget": ("the forget set is not given", "--forget forget.csv"),
        "train": (
            "the training table is not given",
            '--train TABLE, or train = "TABLE" under [data] in audit.toml',
        ),
        "test": (
            "the test table is not given",
            '--test TABLE, or test = "TABLE" under [data] in audit.toml',
        ),
    }.items()
}
"""What every trial needs, by the field of `Sources`, and what is said where nobody gave it."""


def missing(sources: Sources) -> Problems:
    """Return what every trial needs and nobody gave."""
    return Problems(each for name, each in WANTED.items() if getattr(sources, name) is None)
