"""What both hypotheses look at: the penultimate features of the training set, and who is in it.

The features are those of the checkpoint as it is, frozen: what is asked is how its last layer would
change if some of the samples had never been there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poison_audit.case.case import Case
from poison_audit.hypotheses.head import solve, standardised
from poison_audit.hypotheses.subsets import lacking
from poison_audit.models.model import Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.records import Finding, Outcome
from poison_audit.training.penultimate import penultimate

MOST_WORK = 1_000_000_000
"""Most samples times entries of the last layer for which it is solved again and again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """The training set as a convex head sees it."""

    x: Tensor
    """Standardised features and a last column of ones: float64, (n, d + 1)."""
    y: Tensor
    """Labels as trained, (n,)."""
    forgotten: NDArray[np.bool_]
    """Whether each sample is in the forget set, (n,)."""
    classes: int
    samples: int
    """Of the whole training set; n of them, taken at random, are here."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """The labels as an array."""
        return self.y.cpu().numpy()

    @property
    def too_few(self) -> str:
        """Why retain has no random subset with the forget set's class mix; empty: it has."""
        short = ", ".join(map(str, lacking(~self.forgotten, self.forgotten, self.labels)))
        return f"retain holds fewer samples than the forget set of classes {short}" if short else ""


def design(model: Model, case: Case, rng: Rng, *, most: int) -> Design | str:
    """Return the training set as the head sees it, or the reason why it cannot be had.

    Args:
        case: its retain and forget samples together are the training set.
        rng: chooses the samples where there are more than `most`.
        most: samples kept at most; retain and forget are thinned in the same proportion.
    """
    if not len(case.forget) or not len(case.retain):
        return "needs forget and retain samples"
    total, parts = len(case.retain) + len(case.forget), list[Samples]()
    for name, samples in (("retain", case.retain), ("forget", case.forget)):
        keep = max(1, round(len(samples) * min(1.0, most / total)))
        order = rng.named(name).numpy().permutation(len(samples))[:keep]
        parts.append(samples.at(torch.from_numpy(np.sort(order))))
    seen = [penultimate(model, samples) for samples in parts]
    found = [part for part in seen if part is not None]
    if len(found) < len(seen):
        return "the penultimate layer could not be found"
    features, y = torch.cat(found), torch.cat([part.y for part in parts]).to(found[0].device)
    if not bool(torch.isfinite(features).all()):
        return "the penultimate features are not finite"
    if features.numel() * model.classes > MOST_WORK:
        return f"a last layer of {features.shape[1]} x {model.classes} is too large to solve again"
    return Design(
        x=standardised(features),
        y=y,
        forgotten=np.arange(len(y)) >= len(parts[0]),
        classes=model.classes,
        samples=total,
    )


def finding(name: str, **told: Any) -> Finding:
    """Return what a hypothesis found of the deployed model: it never gates."""
    return Finding(probe=name, candidate="deployed", seed=0, gating=False, **told)


def not_measured(name: str, why: str, **told: Any) -> Finding:
    """Return why a hypothesis has no figure."""
    return finding(name, outcome=Outcome.NOT_MEASURED, reason=f"Not measured: {why}.", **told)


def moved(found: Design, whole: Tensor, left_out: NDArray[np.bool_]) -> Tensor:
    """Return theta(train minus `left_out`) - theta(train), given the latter: (classes, d + 1)."""
    kept = torch.from_numpy(~left_out).to(found.x.device)
    return solve(found.x[kept], found.y[kept], classes=found.classes, start=whole) - whole
