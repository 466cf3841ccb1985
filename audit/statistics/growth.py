"""By how much an attack grew between two models: paired intervals on the same samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from poison_audit.statistics.estimates import paired_loss, student


@dataclass(frozen=True, slots=True, kw_only=True)
class Increase:
    """By how much an attack grew between two models, on the same samples."""

    before: float
    after: float
    low: float
    """Lower end of the interval of after - before."""
    high: float


def of_hits(before: Sequence[int], after: Sequence[int], level: float) -> Increase | None:
    """Compare hits (0 or 1) on the same samples; None where these cannot be paired.

    Tango's score interval, as in `paired_loss`.
    """
    n = len(before)
    if n != len(after):
        return None
    first, second = np.asarray(before, dtype=np.int64), np.asarray(after, dtype=np.int64)
    gone, come = int(np.sum(first > second)), int(np.sum(second > first))
    change = paired_loss(only_before=come, only_after=gone, n=n, level=level, tolerance=1.0)
    return Increase(
        before=float(first.mean()), after=float(second.mean()), low=change.low, high=change.high
    )


def of_scores(before: Sequence[float], after: Sequence[float], level: float) -> Increase | None:
    """Compare scores of the same samples; None where these cannot be paired, or are but one.

    Student's t interval of the differences.
    """
    if len(before) != len(after) or len(before) < 2:
        return None
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    change, n = second - first, len(first)
    half = student(0.5 + level / 2, n - 1) * float(np.std(change, ddof=1)) / math.sqrt(n)
    mean = float(np.mean(change))
    return Increase(
        before=float(first.mean()), after=float(second.mean()), low=mean - half, high=mean + half
    )
