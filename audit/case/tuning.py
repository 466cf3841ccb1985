"""The search for a method's numbers, as plain values: what was tried, what was chosen. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from poison_audit.records import Amount, Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One trial of tuning: a method with some numbers, seen on the tuning halves alone."""

    params: Mapping[str, Json]
    residue: Amount | None = None
    """Distance of the canaries' figure from that of a model that never saw them, in tolerances."""
    lost: float | None = None
    """Accuracy lost against the deployed model, in tolerances."""
    gradients: Amount = 0.0
    """Gradient evaluations spent."""
    seconds: Amount = 0.0
    error: str | None = None
    """Why there are no figures."""

    @property
    def score(self) -> float | None:
        """The worse of the two figures, the smaller the better; None if there are none."""
        if self.residue is None or self.lost is None:
            return None
        return max(self.residue, self.lost)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """The search for a method's numbers."""

    method: str
    attempts: tuple[Attempt, ...]
    """In order; the first has the numbers that the plan gave."""
    chosen: int
    """Place of the attempt whose numbers were audited."""

    def __post_init__(self) -> None:
        if not 0 <= self.chosen < len(self.attempts):
            raise ValueError("the chosen attempt is one of the attempts")
