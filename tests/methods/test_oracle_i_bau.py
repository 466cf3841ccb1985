"""I-BAU against a loop in NumPy whose second derivatives are finite differences."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from builders.tiny import PLAIN, case_of, net, picture_case, samples_of
from poison_audit.errors import PlanError
from poison_audit.methods.i_bau import i_bau, implicit
from poison_audit.models.image import image_classifier
from poison_audit.models.seeds import Rng
from poison_audit.training.batches import shuffled
from poison_audit.training.ledger import Ledger

RNG = Rng(5)
N, SIZE, K, ROUNDS, ETA, CLASSES = 8, 4, 3, 2, 0.01, 3
STEP = 1e-5


def _build():
    return nn.Sequential(nn.Flatten(), nn.Linear(4, CLASSES)).double()


def _case():
    torch.manual_seed(0)
    model = image_classifier(_build(), build=_build, arch="linear", classes=CLASSES)
    draw = np.random.default_rng(1)
    x, y = draw.random((N, 1, 2, 2)), draw.integers(CLASSES, size=N)
    clean = samples_of(torch.tensor(x), torch.tensor(y))
    return case_of(model, clean, clean.at([0]), PLAIN)


def _off(theta, x, y):
    """Return p - onehot(y) of each sample, of a linear softmax model theta (C, D + 1)."""
    logits = x @ theta[:, :-1].T + theta[:, -1]
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    return p


def _slope(theta, x, y, delta):
    """Return the gradient of 0.001 |delta|^2 - L(x + delta) by delta."""
    return 0.002 * delta - (_off(theta, x + delta, y) @ theta[:, :-1]).mean(0)


def _hypergradient(theta, x, y, row, first, delta):
    (x_1, y_1), moved = first, x.copy()
    moved[row] += delta
    off = _off(theta, moved, y) / len(y)
    by_theta = off.T @ np.c_[moved, np.ones(len(y))]
    by_delta = off[row] @ theta[:, :-1]
    v = by_delta
    for _ in range(K - 1):
        ahead, behind = (_slope(theta, x_1, y_1, delta + s * STEP * v) for s in (1, -1))
        v = v - 0.1 * (ahead - behind) / (2 * STEP) + by_delta
    for place in np.ndindex(theta.shape):
        bump = np.zeros_like(theta)
        bump[place] = STEP
        ahead, behind = (_slope(theta + s * bump, x_1, y_1, delta) for s in (1, -1))
        by_theta[place] -= 0.1 * v @ (ahead - behind) / (2 * STEP)
    return by_theta


def _plain(batch):
    return batch.x.numpy().reshape(len(batch), -1), batch.y.numpy()


def test_i_bau_is_the_loop_in_numpy():
    case, ledger = _case(), Ledger(allowed=1e6)
    result = i_bau(
        case.model, case, RNG, ledger=ledger, lr=ETA, rounds=ROUNDS, iterations=K, batch=SIZE
    )
    linear = case.model.module[1]
    theta = np.c_[linear.weight.detach().numpy(), linear.bias.detach().numpy()]
    clean = case.retain.at(torch.randperm(N, generator=RNG.named("clean").torch()))
    first, draws = _plain(clean.batch(slice(0, SIZE))), RNG.named("perturbed").torch()
    m, s, steps = np.zeros_like(theta), np.zeros_like(theta), 0
    for number in range(ROUNDS):
        delta = np.zeros(4)
        seen = shuffled(clean, SIZE, RNG.named("batches", "search", number))
        for _ in range(N // SIZE):
            x, _labels = _plain(next(seen))
            own = (x @ theta[:, :-1].T + theta[:, -1]).argmax(1)
            delta = delta - 10 * _slope(theta, x, own, delta)
        taught = shuffled(clean, SIZE, RNG.named("batches", "teach", number))
        for _ in range(N // SIZE):
            x, y = _plain(next(taught))
            row = int(torch.randperm(SIZE, generator=draws)[0])
            gradient = _hypergradient(theta, x, y, row, first, delta)
            steps += 1
            m = 0.9 * m + 0.1 * gradient
            s = 0.999 * s + 0.001 * gradient**2
            theta = theta - ETA * (m / (1 - 0.9**steps)) / (np.sqrt(s / (1 - 0.999**steps)) + 1e-8)
    after = result.module[1]
    expected = np.c_[after.weight.detach().numpy(), after.bias.detach().numpy()]
    np.testing.assert_allclose(theta, expected, rtol=0, atol=1e-7)
    assert steps == len(ledger.losses) == ROUNDS * N // SIZE
    # 4/3 of the search, 5/3 of the outer loss, 1 + 2 K of the inner one.
    assert ledger.spent == pytest.approx(ROUNDS * N * (4 + 2 * K))


def test_enough_iterations_give_the_derivative_of_the_fixed_point():
    """delta*(theta) = A^-1 B theta; so d |delta* - t|^2 / 2 = B' A^-1 (delta* - t) d theta."""
    draw = np.random.default_rng(2)
    half, B, t = draw.normal(size=(4, 4)), draw.normal(size=(4, 3)), draw.normal(size=4)
    A, theta = half @ half.T + np.eye(4), draw.normal(size=3)
    star = np.linalg.solve(A, B @ theta)
    delta = torch.tensor(star, requires_grad=True)
    weights = torch.tensor(theta, requires_grad=True)
    inner = delta @ torch.tensor(A) @ delta / 2 - delta @ torch.tensor(B) @ weights
    outer = (delta - torch.tensor(t)).square().sum() / 2
    follows = implicit(outer, inner, delta, 2000, rate=1 / np.linalg.eigvalsh(A)[-1])
    (found,) = torch.autograd.grad(follows, weights)
    np.testing.assert_allclose(found.numpy(), B.T @ np.linalg.solve(A, star - t), atol=1e-9)


def test_a_budget_of_less_than_a_round_shortens_the_round():
    case, ledger = _case(), Ledger(allowed=1.5 * N * (4 + 2 * K))
    i_bau(case.model, case, RNG, ledger=ledger, iterations=K, batch=SIZE)
    assert len(ledger.losses) == 3
    assert ledger.spent == pytest.approx(1.5 * N * (4 + 2 * K))


def test_texts_are_refused_in_words():
    case = picture_case(net("plain"))
    case = replace(case, model=replace(case.model, reader=object()))
    with pytest.raises(PlanError, match="i_bau looks for a perturbation of pictures"):
        i_bau(case.model, case, RNG, ledger=Ledger(allowed=100.0))
