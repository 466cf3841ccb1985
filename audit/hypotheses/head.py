"""The convex head: multinomial logistic regression on fixed features.

    f(theta) = mean_i CE(theta x_i, y_i) + RIDGE/2 ||theta||^2

The ridge covers the bias too, so f is strongly convex: the minimiser exists and is unique even
where a class has lost its last sample. Solved by Newton's method with a line search, each step by
preconditioned conjugate gradients (Nocedal and Wright 2006, Algorithm 7.1).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

RIDGE = 1e-3
"""Weight of the squared norm of theta, on standardised features."""
TOLERANCE = 1e-10
"""Largest entry of the gradient at the solution; at theta = 0 its entries are of order one."""
NEWTON_STEPS = 100


class UnsolvedError(Exception):
    """The tolerance was not reached: nothing can be said of this head."""


def standardised(features: Tensor) -> Tensor:
    """Return features with mean 0 and variance 1, then a column of ones: float64, (n, d + 1).

    A constant feature becomes 0.
    """
    x = features.double()
    centred, spread = x - x.mean(dim=0), x.std(dim=0, correction=0)
    varies = spread > 1e-9 * x.abs().amax(dim=0)
    scaled = torch.where(varies, centred / torch.where(varies, spread, 1.0), 0.0)
    return torch.cat([scaled, torch.ones_like(x[:, :1])], dim=1)


def solve(x: Tensor, y: Tensor, *, classes: int, start: Tensor | None = None) -> Tensor:
    """Return the minimiser theta: float64, (classes, d).

    Args:
        x: features with their column of ones, float64, (n, d); at least one sample.
        y: labels below `classes`, (n,).
        start: where to begin, (classes, d); it decides the time taken, not the answer.

    Raises:
        UnsolvedError: the tolerance was not reached.
    """
    onehot = F.one_hot(y, classes).to(x.dtype)
    theta = x.new_zeros(classes, x.shape[1]) if start is None else start
    value, gradient, soft = objective(x, onehot, theta)
    for _ in range(NEWTON_STEPS):
        if bool(gradient.abs().max() <= TOLERANCE):
            return theta
        step = _newton_step(x, gradient, soft)
        slope, rate = (gradient * step).sum(), 1.0
        # At the solution the fall is smaller than the rounding of the value itself.
        slack = 1e-13 * (1 + abs(value))
        while objective(x, onehot, theta + rate * step)[0] > value + 1e-4 * rate * slope + slack:
            rate /= 2
        theta = theta + rate * step
        value, gradient, soft = objective(x, onehot, theta)
    raise UnsolvedError(f"the convex head was not solved in {NEWTON_STEPS} Newton steps")


def objective(x: Tensor, onehot: Tensor, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return f, its gradient (classes, d) and the softmax (n, classes) at theta."""
    logs = (x @ theta.T).log_softmax(dim=1)
    soft = logs.exp()
    value = -(logs * onehot).sum() / len(x) + RIDGE / 2 * theta.square().sum()
    return value, (soft - onehot).T @ x / len(x) + RIDGE * theta, soft


def _newton_step(x: Tensor, gradient: Tensor, soft: Tensor, most: int = 250) -> Tensor:
    """Solve Hessian * step = -gradient to a hundredth, by conjugate gradients."""
    precondition = _preconditioner(x, soft)

    def curved(v: Tensor) -> Tensor:
        moved = soft * (x @ v.T)
        moved -= soft * moved.sum(dim=1, keepdim=True)
        return moved.T @ x / len(x) + RIDGE * v

    step, residual = torch.zeros_like(gradient), -gradient
    goal = 0.01 * residual.norm()
    direction = precondition(residual)
    size = (residual * direction).sum()
    for _ in range(most):
        bent = curved(direction)
        rate = size / (direction * bent).sum()
        step, residual = step + rate * direction, residual - rate * bent
        if bool(residual.norm() <= goal):
            break
        nearer = precondition(residual)
        before, size = size, (residual * nearer).sum()
        direction = nearer + size / before * direction
    return step


def _preconditioner(x: Tensor, soft: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the inverse of a Kronecker product close to the Hessian.

    The Hessian is the mean of (diag(p) - p p') x x' over the samples. Taking the mean of each
    factor apart leaves two small eigenproblems, however large classes times features is.
    """
    spread = (torch.diag(soft.sum(dim=0)) - soft.T @ soft) / len(x)  # (c, c)
    doubt = (soft * (1 - soft)).sum(dim=1, keepdim=True)  # (n, 1)
    second = (x * doubt).T @ x / doubt.sum().clamp(min=1e-300)  # (d, d)
    (a, left), (b, right) = torch.linalg.eigh(spread), torch.linalg.eigh(second)
    scale = a.clamp(min=0)[:, None] * b.clamp(min=0) + RIDGE  # (c, d)
    return lambda v: left @ ((left.T @ v @ right) / scale) @ right.T
