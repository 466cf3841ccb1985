"""Exposure: does the model prefer the noise it may have been trained on to fresh noise?

Question: among K fresh draws of the same noise on the same base, where does the true one rank?
Statistic: the share of fresh draws whose logit margin is below that of the true noise; its mean
    over canaries is the chance that true noise beats fresh noise.
Null: uniform ranks, mean 1/2. Why: if theta never saw xi, then xi and the fresh draws are
    exchangeable, and so are their margins after the same clipping and rounding; ties are broken at
    random. Nothing is linearised, so this holds for any pipeline.
Inconclusive: too few canaries.
Source: ours; the rank is that of Carlini et al., "The Secret Sharer", arXiv 1802.08232, section 4.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poison_audit.case.case import Case
from poison_audit.case.planting import Storage
from poison_audit.models.folding import folded
from poison_audit.models.model import Batch, Model
from poison_audit.models.seeds import Rng
from poison_audit.poisons.gaussian.trial import NOT_GIVEN, planted
from poison_audit.records import Measurement
from poison_audit.training.scoring import exact, margins


def exposure(
    model: Model, case: Case, rng: Rng, *, draws: int = 12, size: int = 256
) -> Measurement:
    """Measure the rank of every canary's true noise.

    Args:
        draws: fresh draws a canary, at least 1. The variance is 1 + 2 / draws of what endless draws
            would leave: 32 instead of 12 narrow an interval by 5%.
        size: samples a forward pass.
    """
    canaries = planted(case)
    if canaries is None:
        return Measurement(probe="exposure", evidence=None, missing=NOT_GIVEN)
    key, bases = canaries.key, canaries.bases
    generator = rng.named("fresh").torch(bases.y.device)
    fates = rng.named("ties").numpy()
    found: list[int] = []
    with exact(model.module):
        quick = folded(model)
        for start in range(0, len(bases), size):
            batch = model.inputs(model.module, bases.batch(slice(start, start + size)))
            noise = canaries.noise[start : start + size]
            if batch.mask is not None:  # a batch is as long as its longest text
                noise = noise[:, : batch.mask.shape[1]]
            true = _margins_with(quick, batch, noise, key.storage)
            if not bool(torch.isfinite(true).all()):
                return Measurement(
                    probe="exposure", evidence=None, missing="the model's logits are not finite"
                )
            others = []
            for _ in range(draws):
                fresh = torch.randn(batch.x.shape, generator=generator, device=batch.x.device)
                others.append(_margins_with(quick, batch, key.sigma * fresh, key.storage))
            found += wins(true.cpu(), torch.stack(others).cpu(), fates).tolist()
    return Measurement(probe="exposure", evidence={"wins": found, "draws": draws})


def wins(mine: Tensor, others: Tensor, fates: np.random.Generator) -> NDArray[np.int64]:
    """Return how many of its column's margins each of mine exceeds, ties at random: (n,).

    Args:
        mine: (n,).
        others: (draws, n).
        fates: decides the ties.
    """
    tied = (others == mine).sum(0).numpy()
    ranks: NDArray[np.int64] = (others < mine).sum(0).numpy()
    return ranks + fates.integers(0, tied, endpoint=True)


def _margins_with(model: Model, batch: Batch, noise: Tensor, storage: Storage) -> Tensor:
    x = batch.x + noise
    if storage == "uint8":
        x = torch.round(x.clamp(0, 1) * 255) / 255
    return margins(model, replace(batch, x=x))
