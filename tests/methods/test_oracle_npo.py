"""NPO against its loop in NumPy, and against its limits."""

import numpy as np
import pytest
from test_oracle_scrub import ETA, FORGET, RETAIN, STEPS, X_F, X_R, Y_F, Y_R, _run, _softmax_case

from poison_audit.methods import METHODS
from poison_audit.models.seeds import Rng
from poison_audit.training.ledger import FORWARD, Ledger

COST = RETAIN + FORGET * (1 + FORWARD)
BETA, GAMMA = 0.7, 1.3


def _softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_npo_is_the_loop_in_numpy():
    case = _softmax_case()
    budget = STEPS * COST
    model = _run("npo", case, budget=budget, lr=ETA, beta=BETA, gamma=GAMMA)
    W = case.model.module.weight.detach().numpy().copy()
    rows, labels = np.arange(FORGET), np.eye(3)
    first = _softmax(X_F @ W)[rows, Y_F % 3]
    for _ in range(STEPS):
        p = _softmax(X_F @ W)
        # With r = p / p0 the loss is 2/b log(1 + r^b), whose derivative in log p is
        # 2 r^b / (1 + r^b): twice the weight that the paper's section 3 gives ascent.
        powered = (p[rows, Y_F % 3] / first) ** BETA
        weight = 2 * powered / (1 + powered)
        away = X_F.T @ (weight[:, None] * (labels[Y_F % 3] - p)) / FORGET
        kept = X_R.T @ (_softmax(X_R @ W) - labels[Y_R % 3]) / RETAIN
        W -= ETA * (GAMMA * kept + away)
    np.testing.assert_allclose(model.module.weight.detach().numpy(), W, rtol=0, atol=1e-12)


def test_npo_of_a_small_beta_is_ascent_beside_descent():
    case = _softmax_case()
    model = _run("npo", case, budget=STEPS * COST, lr=ETA, beta=1e-9)
    half = _run(
        "neggrad_plus", case, budget=STEPS * (RETAIN + FORGET), lr=2 * ETA, beta=0.5, cap=None
    )
    ours, theirs = (m.module.weight.detach().numpy() for m in (model, half))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("steps", [0, 0.99, 1, 3.5])
def test_npo_charges_the_pass_of_the_model_as_it_was(steps):
    ledger, case = Ledger(allowed=steps * COST), _softmax_case()
    METHODS["npo"].run(case.model, case, Rng(0), ledger=ledger)
    assert ledger.spent == pytest.approx(int(steps) * COST)
