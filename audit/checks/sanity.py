"""Does the model work as loaded? Asked before anything else is measured."""

from __future__ import annotations

from dataclasses import replace

import torch

from poison_audit.case.case import Case
from poison_audit.records import Sanity
from poison_audit.statistics import estimates
from poison_audit.training.scoring import correct, exact


def check_sanity(case: Case, *, alpha: float) -> tuple[Case, Sanity]:
    """Measure the accuracy on clean test data: does the model work as loaded?

    A strict load proves little: a stem's max-pool has no tensor and normalisation is nowhere in a
    file. So the adapter is proved by accuracy, before anything else is measured.

    Returns:
        The case with its baseline, and what was seen.
    """
    with exact(case.model.module):
        right = correct(case.model, case.test)
    counts = torch.bincount(case.test.y)
    hits, total = int(right.sum()), len(right)
    low, _ = estimates.clopper_pearson(hits, total, level=1 - alpha, sides=1)
    sanity = Sanity(correct=hits, total=total, low=low, chance=int(counts.max()) / total)
    return replace(case, baseline=right), sanity
