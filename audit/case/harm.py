"""What repairs do to a model that there is nothing to repair in, as plain values. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from poison_audit.records import Count, Interval
from poison_audit.statistics.estimates import paired_loss

LEVEL = 0.95
"""Of the interval, which decides nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Harm:
    """One method on a reference, with random samples to forget: what accuracy it costs there.

    The figures follow from the counts, of the same test samples before and after.
    """

    method: str
    reference: str
    forgotten: Count
    """Random retain samples that it was given as forget set."""
    both: Count = 0
    """Test samples that are answered correctly before and after."""
    only_before: Count = 0
    only_after: Count = 0
    neither: Count = 0
    lost: float | None = None
    """Share of test samples: accuracy before less accuracy after; None where there is none."""
    interval: Interval | None = None
    """Tango's, of `LEVEL`."""
    missing: str | None = None
    """Why there are no figures."""

    def __post_init__(self) -> None:
        n = self.both + self.only_before + self.only_after + self.neither
        if (self.missing is None) != (n > 0) or (n != 0 and self.interval is None):
            raise ValueError("the harm of a method is counted, or missing for a reason")
        if (self.lost, self.interval) != figures_of(self.only_before, self.only_after, n):
            raise ValueError("the harm of a method is not what its counts say")


def figures_of(only_before: int, only_after: int, n: int) -> tuple[float | None, Interval | None]:
    """Return the accuracy that is lost, and its interval; nothing where nothing was counted."""
    if n == 0:
        return None, None
    told = paired_loss(
        only_before=only_before, only_after=only_after, n=n, level=LEVEL, tolerance=1.0
    )
    return told.value, Interval(low=told.low, high=told.high, level=LEVEL)
