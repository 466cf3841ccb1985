"""How much of a direction lies in the span of some gradients: from matrices, nothing else.

    share = |V V' delta|^2 / |delta|^2,    V = the top r right singular vectors of G (n, d)

With G = U S V', row j of V' delta is u_j' (G delta) / s_j: the share follows from the Gram matrix
G G' and the products G delta, and V, which may be too long to hold, is never formed.

Under the null of a random direction in d dimensions the share is Beta(r/2, (d - r)/2).
"""

from __future__ import annotations

import torch
from scipy import special
from torch import Tensor

SMALLEST = 1e-10
"""An eigenvalue of the Gram matrix below this, relative to the largest, is rounding."""


def span_share(gram: Tensor, products: Tensor, length: float, *, rank: int) -> float:
    """Return the share of a direction's squared length inside the span of the top gradients.

    Args:
        gram: inner products of the gradients, G G', float64, (n, n).
        products: of each gradient with the direction, G delta, (n,).
        length: squared length of the direction, above 0.
        rank: r, singular directions taken, at least 1; fewer where the gradients span fewer.
    """
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values[-rank:], vectors[:, -rank:]
    kept = values > SMALLEST * values[-1]
    if not bool(kept.any()):
        return 0.0
    along = (vectors[:, kept].T @ products).square() / values[kept]
    # Rounding may leave a direction that lies in the span a little more than its length.
    return min(1.0, float(along.sum()) / length)


def cosine(a: Tensor, b: Tensor) -> float | None:
    """Return the cosine of the angle between two tensors; None where one is zero."""
    lengths = float(a.norm()) * float(b.norm())
    return float((a * b).sum()) / lengths if lengths > 0 else None


def random_share(rank: int, dimension: int) -> dict[str, float]:
    """Return mean and central 95% of a random direction's share, 0 < rank < dimension.

    >>> random_share(1, 4)["mean"]
    0.25
    """
    law = special.betaincinv(rank / 2, (dimension - rank) / 2, [0.025, 0.975])
    return {"mean": rank / dimension, "low": float(law[0]), "high": float(law[1])}


def outside(residual: float, length: float, *, rank: int, sketch: int) -> dict[str, float]:
    """Estimate the share inside a span from a sketch, and its central 95% interval.

    A part of the direction outside of the span is sketched to noise, of which rank / sketch falls
    into the sketched span. For a Gaussian sketch from d to k dimensions and a fixed span the
    sketched residual is (1 - share) |delta|^2 chi2(k - r) / k exactly, which gives both.

    Args:
        residual: squared length of the sketched direction outside of the sketched span.
        length: squared length of the direction itself, above 0.
        rank: r, dimensions of the span, below `sketch`.
        sketch: k.
    """
    left = residual / length * sketch
    free = sketch - rank
    return {
        "share": _clipped(1 - left / free),
        "share_low": _clipped(1 - left / float(special.chdtri(free, 0.975))),
        "share_high": _clipped(1 - left / float(special.chdtri(free, 0.025))),
    }


def _clipped(share: float) -> float:
    return min(1.0, max(0.0, share))
