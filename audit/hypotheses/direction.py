"""How much of what sets forget samples apart lies in one direction of the penultimate features.

In units of retain's covariance A (with a ridge), z = A^-1/2 (feature - mean of retain). What the
forget samples have beyond retain is T = E|z|^2 - E_retain|z|^2, and along their mean direction u it
is S = E(u z)^2 - E_retain(u z)^2. The share is S / T: 1 for a shift that is the same in every
sample, 1 / d for a spread that is alike in all d directions.

Where it is large, an edit of the last layer in that direction can take the poison's effect out of
it. It explains, and decides nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

RIDGE = 0.1
"""In units of the mean variance of retain's features."""


def held_by_one_direction(kept: Tensor, lost: Tensor) -> float | None:
    """Return the share S / T, in [0, 1]; None where forget samples do not lie apart.

    Args:
        kept: features of retain samples, float64, (n, d).
        lost: of forget samples, (m, d).
    """
    centre = kept.mean(0)
    centred, apart = kept - centre, lost - centre
    spread = centred.T @ centred / len(kept)
    ridge = RIDGE * spread.diagonal().mean().clamp(min=torch.finfo(spread.dtype).tiny)
    lower = torch.linalg.cholesky(spread + ridge * torch.eye(len(spread)).to(spread))
    own, usual = (
        torch.linalg.solve_triangular(lower, part.T, upper=False).T for part in (apart, centred)
    )
    mean = own.mean(0)
    along = mean / mean.norm().clamp(min=torch.finfo(mean.dtype).tiny)
    total, one = (
        float(a.square().mean(0).sum() - b.square().mean(0).sum())
        for a, b in ((own, usual), ((own @ along)[:, None], (usual @ along)[:, None]))
    )
    if total <= 1e-9 * float(usual.square().mean(0).sum()):
        return None
    return min(1.0, max(0.0, one / total))
