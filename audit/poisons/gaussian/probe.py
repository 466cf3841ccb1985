"""Gaussian: does the loss still fall along the noise that the canaries were planted with?

Question: is the model's gradient at the clean base of each canary correlated with its noise? Of a
    text, x is its input embeddings, and the base is the text itself.
Statistic: g = grad_x loss(theta; x_base, y), I = <g, xi> / (sigma |g|); the leak score is -I,
    since a fitted canary makes the loss lower along xi. mu is the mean leak score. The scatter,
    (mean square - 1) / sqrt(2), shows canaries of which some are followed and others fled.
Null: -I ~ N(0, 1) exactly. Why: if theta never saw xi, then xi ~ N(0, sigma^2 I) is independent
    of g, and the projection of xi / sigma on any fixed direction is standard normal. This holds for
    any model and any storage, as long as xi is the noise that was drawn, not what clipping left.
Controls: held-out keys, scored with the same gradients, must look N(0, 1). The keys themselves are
    checked against the stored samples when the case is loaded.
Inconclusive: the held-out keys do not look N(0, 1); more than a twentieth of the gradients vanish.
Source: Pawelczyk et al., ICLR 2025, arXiv 2406.17216, section 3 and Algorithm 1 (GUS). Departs from
    it in the sign, and in judging by the mean's interval rather than by TPR at a fixed FPR.
"""

from __future__ import annotations

import torch
from torch import Tensor

from poison_audit.case.case import Case
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.poisons.gaussian.trial import NOT_GIVEN, planted
from poison_audit.records import Measurement
from poison_audit.statistics.laws import normality
from poison_audit.training.scoring import input_gradients

CONTROL_P = 1e-4
"""A held-out control whose p-value is below this has failed."""
MOST_DROPPED = 0.05
"""Largest share of vanished gradients with which the probe still passes."""


def gaussian(model: Model, case: Case, rng: Rng) -> Measurement:
    """Measure the leak score of every canary in the forget set, and of as many held-out keys."""
    canaries = planted(case)
    if canaries is None:
        return Measurement(probe="gaussian", evidence=None, missing=NOT_GIVEN)
    gradients = input_gradients(model, canaries.bases)
    if not bool(torch.isfinite(gradients).all()):
        return Measurement(
            probe="gaussian", evidence=None, missing="the model's input gradients are not finite"
        )
    used = gradients.flatten(1).norm(dim=1) > 0
    dropped = int((~used).sum())
    if dropped == len(used):
        return Measurement(
            probe="gaussian", evidence=None, missing="every input gradient of the model vanishes"
        )
    sigma = canaries.key.sigma
    scores = leak_scores(gradients[used], canaries.noise[used], sigma=sigma)
    held_out = leak_scores(gradients[used], canaries.held_out_noise[used], sigma=sigma)
    p_value, suspect = normality(held_out), None
    if dropped > MOST_DROPPED * len(used):
        suspect = f"the gradient vanishes at {dropped} of {len(used)} canaries"
    elif p_value < CONTROL_P:
        suspect = f"held-out keys do not look like N(0, 1) (p = {p_value:.1g})"
    return Measurement(
        probe="gaussian",
        evidence={"scores": scores, "held_out": held_out, "dropped": dropped},
        suspect=suspect,
    )


def leak_scores(gradients: Tensor, noise: Tensor, *, sigma: float) -> list[float]:
    """Return -<g, xi> / (sigma |g|) of each row, accumulated in float64.

    Args:
        gradients: (n, ...), none of them zero.
        noise: the canaries' noise, of the same shape.
        sigma: standard deviation of the noise, above 0.
    """
    g, xi = gradients.flatten(1).double(), noise.flatten(1).double()
    scores: list[float] = (-(g * xi).sum(1) / (sigma * g.norm(dim=1))).tolist()
    return scores
