"""The convex head against scikit-learn, and where its solution is fragile."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from builders.heads import blobs
from poison_audit.hypotheses.head import RIDGE, TOLERANCE, solve, standardised


def by_scikit_learn(x, y):
    """Fit the same objective: scikit-learn's C multiplies the summed, not the mean, loss."""
    model = LogisticRegression(
        C=1 / (RIDGE * len(x)), fit_intercept=False, solver="newton-cg", tol=1e-12, max_iter=1000
    )
    return model.fit(x.numpy(), y.numpy()).coef_


@pytest.mark.parametrize("apart", [0.0, 1.0, 30.0], ids=["noise", "overlapping", "separable"])
def test_the_solution_is_scikit_learns(apart):
    x, y = blobs(0, n=80, d=5, apart=apart)
    x = standardised(x)
    np.testing.assert_allclose(solve(x, y, classes=3), by_scikit_learn(x, y), atol=1e-6)


def test_the_start_does_not_decide_the_answer():
    x, y = blobs(1)
    x = standardised(x)
    far = 5 * torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(
        solve(x, y, classes=3, start=far), solve(x, y, classes=3), rtol=0, atol=1e-7
    )


def test_the_gradient_vanishes_by_autograd():
    x, y = blobs(2)
    x = standardised(x)
    theta = solve(x, y, classes=3).requires_grad_(True)
    loss = torch.nn.functional.cross_entropy(x @ theta.T, y) + RIDGE / 2 * (theta**2).sum()
    (slope,) = torch.autograd.grad(loss, theta)
    assert slope.abs().max() <= 2 * TOLERANCE
    torch.testing.assert_close(theta.sum(dim=0), torch.zeros_like(theta[0]), rtol=0, atol=1e-6)


def test_a_class_without_samples_has_a_finite_answer():
    x, y = blobs(3)
    x, kept = standardised(x), y != 1
    theta = solve(x[kept], y[kept], classes=3)
    assert torch.isfinite(theta).all()
    assert ((x[kept] @ theta.T).argmax(1) != 1).all()


def test_standardised_features():
    x = torch.tensor([[1.0, 7.0, 1e6], [3.0, 7.0, 1e6 + 2]])
    one = [[-1.0, 0.0, -1.0, 1.0], [1.0, 0.0, 1.0, 1.0]]
    torch.testing.assert_close(standardised(x), torch.tensor(one, dtype=torch.float64))
