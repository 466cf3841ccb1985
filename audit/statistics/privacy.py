"""A lower bound of epsilon from one training: how well members are told from what was held out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from poison_audit.statistics.estimates import clopper_pearson


def epsilon_at_least(
    members: Sequence[float], others: Sequence[float], *, level: float = 0.95
) -> float:
    """Return an epsilon that the training surely exceeds, in the sense of pure DP; 0: none.

    Whoever scores above the mean of all scores is guessed to be a member. In a training that is
    epsilon-DP each guess is right with probability at most e^epsilon / (1 + e^epsilon), whatever
    the others are, so that the right ones are at most binomial (Steinke, Nasr and Jagielski,
    "Privacy auditing with one training run", arXiv 2305.08846, theorem 5.2, no guess withheld).
    The bound inverts that: the logit of the share's exact lower end. The mean of all scores does
    not look at who is a member. The best threshold would, and is above 0 for one in five trainings
    that know nothing.

    Args:
        members: scores of noise that was trained on, higher where it is known better; one at least.
        others: of as many keys as that were drawn alike and held out; one at least.
        level: of the one-sided bound.

    >>> round(epsilon_at_least([2.0, 3.0] * 50, [-1.0, 0.0] * 50), 3)
    4.194
    >>> epsilon_at_least([1.0, -1.0], [1.0, -1.0])
    0.0
    """
    mine, theirs = np.asarray(members), np.asarray(others)
    middle = float(np.mean(np.concatenate([mine, theirs])))
    right, total = int((mine >= middle).sum() + (theirs < middle).sum()), len(mine) + len(theirs)
    low, _ = clopper_pearson(right, total, level=level, sides=1)
    return max(0.0, math.log(low / (1 - low))) if low > 0 else 0.0
