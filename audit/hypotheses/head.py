"""The convex head: multinomial logistic regression on fixed features, for many subsets at once.

    f(theta) = 1/m sum_{i kept} CE(x_i theta', y_i) + RIDGE/2 ||theta||^2

The ridge covers the bias too, so f is strongly convex: the minimiser exists and is unique even
where a class has lost its last sample, and its class mean is zero. Solved by Newton's method, the
steps by preconditioned conjugate gradients (Nocedal and Wright 2006, Algorithm 7.1), all subsets
in the same matrix products.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

RIDGE = 1e-3
"""Weight of the squared norm, on standardised features."""
TOLERANCE = 1e-10
"""Largest entry of the gradient at the solution, relative to that at theta = 0."""
LARGEST_BLOCK = 20_000_000
"""Most logits held at once: subsets are solved in blocks, so that memory is bounded."""


@dataclass(frozen=True, slots=True)
class _Point:
    """The objective at one theta a subset."""

    value: Tensor
    """(s,)"""
    gradient: Tensor
    """(s, c, d)"""
    chances: Tensor
    """Softmax: (n, s, c)"""


def standardised(features: Tensor) -> Tensor:
    """Return features with mean 0 and variance 1, and a last column of ones: (n, d + 1).

    A feature that is constant becomes 0. Float64.
    """
    x = features.double()
    spread, centred = x.std(dim=0, correction=0), x - x.mean(dim=0)
    varies = spread > 1e-12 * x.abs().amax(dim=0)
    scaled = torch.where(varies, centred / torch.where(varies, spread, 1.0), 0.0)
    return torch.cat([scaled, torch.ones_like(x[:, :1])], dim=1)


def solve(x: Tensor, y: Tensor, kept: Tensor, *, classes: int, start: Tensor | None = None) -> Tensor:
    """Return the minimiser for every subset of the samples: (s, classes, d), float64.

    Args:
        x: features (n, d) with their column of ones, float64.
        y: labels (n,), below `classes`.
        kept: which samples each subset keeps: bool (s, n), at least one a subset.
        classes: number of classes.
        start: where to begin, (classes, d); decides the speed, not the answer.

    Raises:
        ArithmeticError: Newton's method did not reach the tolerance.
    """
    size = max(1, LARGEST_BLOCK // (len(x) * classes))
    if start is None:
        start = x.new_zeros(classes, x.shape[1])
    blocks = [_solve_block(x, y, part, start) for part in kept.split(size)]
    return torch.cat(blocks)


def _solve_block(x: Tensor, y: Tensor, kept: Tensor, start: Tensor, most: int = 100) -> Tensor:
    weights = (kept / kept.sum(dim=1, keepdim=True)).to(x.dtype).T  # (n, s)
    onehot = F.one_hot(y, len(start)).to(x.dtype)[:, None, :]  # (n, 1, c)
    goal = TOLERANCE * _at(x, onehot, weights, torch.zeros_like(start).expand(len(kept), -1, -1)).gradient.abs().amax(dim=(1, 2))
    theta = start.expand(len(kept), -1, -1).clone()
    active = torch.arange(len(kept), device=x.device)
    precondition = _preconditioner(x, start)
    for _ in range(most):
        part = weights[:, active]
        point = _at(x, onehot, part, theta[active])
        left = point.gradient.abs().amax(dim=(1, 2)) > goal[active]
        if not bool(left.any()):
            return theta
        active = active[left]
        point = _Point(point.value[left], point.gradient[left], point.chances[:, left])
        step = _newton_step(x, part[:, left], point, precondition)
        theta[active] = _search(x, onehot, part[:, left], theta[active], step, point)
    raise ArithmeticError(f"the convex head was not solved in {most} Newton steps")


def _scores(x: Tensor, theta: Tensor) -> Tensor:
    s, c, d = theta.shape
    return (x @ theta.reshape(s * c, d).T).view(len(x), s, c)


def _back(x: Tensor, errors: Tensor) -> Tensor:
    n, s, c = errors.shape
    return (errors.reshape(n, s * c).T @ x).view(s, c, -1)


def _at(x: Tensor, onehot: Tensor, weights: Tensor, theta: Tensor) -> _Point:
    logs = _scores(x, theta).log_softmax(dim=2)  # (n, s, c)
    value = -(weights * (logs * onehot).sum(dim=2)).sum(dim=0)
    chances = logs.exp()
    gradient = _back(x, weights[:, :, None] * (chances - onehot))
    return _Point(
        value + RIDGE / 2 * theta.square().sum(dim=(1, 2)), gradient + RIDGE * theta, chances
    )


def _curved(x: Tensor, weights: Tensor, chances: Tensor, v: Tensor) -> Tensor:
    """The Hessian at `chances`, times v: (s, c, d)."""
    moved = chances * _scores(x, v)
    moved -= chances * moved.sum(dim=2, keepdim=True)
    return _back(x, weights[:, :, None] * moved) + RIDGE * v
