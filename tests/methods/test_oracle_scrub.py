"""SCRUB against its loop in NumPy: softmax regression on 5 features and 3 classes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from builders.tiny import (
    PLAIN,
    case_of,
    samples_of,
)
from poison_audit.methods import METHODS
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.training.ledger import Ledger

RNG = Rng(11)
RETAIN, FORGET, ETA, STEPS = 12, 7, 0.05, 9


def _table(n, seed):
    draw = np.random.default_rng(seed)
    return draw.normal(size=(n, 5)), draw.integers(-3, 4, size=n)


X_R, Y_R = _table(RETAIN, 1)
X_F, Y_F = _table(FORGET, 2)


def _run(name, case, *, budget, rng=RNG, **params):
    ledger = Ledger(allowed=budget)
    return METHODS[name].run(case.model, case, rng, ledger=ledger, **params)


# scrub: softmax regression on 5 features and 3 classes


class _Regression(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 3, dtype=torch.float64))

    def forward(self, x):
        return x @ self.weight


def _softmax_case(**changes):
    def cross_entropy(module, batch):
        return nn.functional.cross_entropy(module(batch.x), batch.y, reduction="none")

    model = Model(
        module=_Regression(),
        logits=lambda module, batch: module(batch.x),
        loss=cross_entropy,
        blocks=(("weight",),),
        build=_Regression,
        arch="regression",
        classes=3,
    ).fresh(Rng(5))
    parts = [samples_of(torch.tensor(x), torch.tensor(y) % 3) for x, y in ((X_R, Y_R), (X_F, Y_F))]
    return case_of(model, *parts, recipe=replace(PLAIN, **changes))


def _softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


MAX_COST, MIN_COST = FORGET * 4 / 3, RETAIN * 4 / 3


def test_scrub_is_the_loop_in_numpy():
    case = _softmax_case()
    T, gamma, alpha, lr, max_lr = 2.0, 0.7, 0.5, 0.2, 0.4
    model = _run(
        "scrub",
        case,
        budget=2 * (MAX_COST + MIN_COST) + MIN_COST,
        **dict(lr=lr, max_lr=max_lr, max_epochs=2, gamma=gamma, alpha=alpha, temperature=T),
    )
    start = case.model.module.weight.detach().numpy()
    W, labels = start.copy(), np.eye(3)[Y_R % 3]
    for move in ("max", "min", "max", "min", "min"):
        x = X_F if move == "max" else X_R
        # d/dW of T^2 KL(softmax(x start / T) || softmax(x W / T)), a mean over samples
        away = T * x.T @ (_softmax(x @ W / T) - _softmax(x @ start / T)) / len(x)
        if move == "max":
            W = W + max_lr * away
        else:
            task = x.T @ (_softmax(x @ W) - labels) / len(x)
            W = W - lr * (gamma * task + alpha * away)
    np.testing.assert_allclose(model.module.weight.detach().numpy(), W, rtol=0, atol=1e-12)


def test_scrubs_first_max_step_moves_nothing():
    case = _softmax_case()
    model = _run("scrub", case, budget=MAX_COST + MIN_COST, max_lr=1.0, lr=1e-300)
    before, after = case.model.module.weight, model.module.weight
    torch.testing.assert_close(after, before, rtol=0, atol=1e-14)


def test_scrub_without_max_steps_and_kl_is_gd():
    case = _softmax_case(momentum=0.9)
    bare = {"max_epochs": 0, "alpha": 0.0, "gamma": 1.0}
    model = _run("scrub", case, budget=STEPS * MIN_COST, lr=ETA, **bare)
    expected = _run("gd", case, budget=STEPS * RETAIN, lr=ETA)
    assert model.digest() == expected.digest()
    assert model.digest() != case.model.digest()


@pytest.mark.parametrize(
    ("budget", "moves"),
    [
        (MIN_COST * 0.9, ""),
        (MIN_COST, "-"),
        ((MAX_COST + MIN_COST) * 0.99, "-"),
        (MAX_COST + MIN_COST, "+-"),
        (MAX_COST + 2 * MIN_COST, "+--"),
        (2 * (MAX_COST + MIN_COST), "+-+-"),
        (9 * (MAX_COST + MIN_COST), "+-+-+-" + 9 * "-"),
    ],
)
def test_scrub_ends_with_a_min_pass_at_any_budget(budget, moves):
    ledger, case = Ledger(allowed=budget), _softmax_case()
    METHODS["scrub"].run(case.model, case, RNG, ledger=ledger, max_lr=1.0)
    # The max pass descends on minus a divergence, the min pass on a cross-entropy.
    assert "".join("-" if loss > 0.1 else "+" for loss in ledger.curve()) == moves
