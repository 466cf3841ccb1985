"""Linear least squares, whose descents have closed forms: what methods' oracles are run on."""

from dataclasses import replace

import numpy as np
import torch

from builders.tiny import PLAIN, case_of, least_squares, samples_of, theta_of
from poison_audit.methods import METHODS
from poison_audit.models.seeds import Rng
from poison_audit.training.ledger import Ledger

RNG = Rng(11)
RETAIN, FORGET, ETA, STEPS = 12, 7, 0.05, 9
THETA = np.random.default_rng(0).normal(size=5)


def table(n, seed):
    draw = np.random.default_rng(seed)
    return draw.normal(size=(n, 5)), draw.integers(-3, 4, size=n)


X_R, Y_R = table(RETAIN, 1)
X_F, Y_F = table(FORGET, 2)


def linear_case(theta=THETA, **changes):
    retain = samples_of(torch.tensor(X_R), torch.tensor(Y_R))
    forget = samples_of(torch.tensor(X_F), torch.tensor(Y_F))
    return case_of(least_squares(theta), retain, forget, replace(PLAIN, **changes))


def run(name, case, *, budget, rng=RNG, **params):
    ledger = Ledger(allowed=budget)
    return METHODS[name].run(case.model, case, rng, ledger=ledger, **params)


def quadratic(x, y):
    """Return H and c of the loss theta' H theta / 2 - c' theta, a mean over samples."""
    return x.T @ x / len(y), x.T @ y / len(y)


def descended(theta, H, c, *, steps=STEPS, eta=ETA):
    """theta* + (I - eta H)^T (theta - theta*), where H theta* = c."""
    star = np.linalg.solve(H, c)
    return star + np.linalg.matrix_power(np.eye(len(c)) - eta * H, steps) @ (theta - star)


def close(model, expected):
    np.testing.assert_allclose(theta_of(model), expected, rtol=0, atol=1e-12)
