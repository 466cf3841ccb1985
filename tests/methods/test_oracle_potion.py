"""Potion against a loop in NumPy, and what its guard does."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from builders.tiny import PLAIN, case_of, samples_of
from poison_audit.methods.potion import potion
from poison_audit.models.image import image_classifier
from poison_audit.models.seeds import Rng
from poison_audit.training.ledger import Ledger

RNG = Rng(5)
N, M = 6, 30


def _build():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 3, bias=False)).double()


def _case():
    """Three classes by three pixels; a fourth pixel is a trigger of class 2, two are noise."""
    model = image_classifier(_build(), build=_build, arch="linear", classes=3)
    draw = np.random.default_rng(1)
    y = np.arange(M) % 3
    x = 0.1 * draw.random((M, 6))
    x[np.arange(M), y] = 1
    x[:, 3] = 0
    poisoned = x[y != 2][:N].copy()
    poisoned[:, 3] = 1
    weight = 0.1 * draw.normal(size=(3, 6))
    weight[[0, 1, 2], [0, 1, 2]] = 1.0
    weight[2, 3] = 3.0
    with torch.no_grad():
        model.module[1].weight.copy_(torch.tensor(weight))
    retain = samples_of(torch.tensor(x.reshape(M, 1, 2, 3)), torch.tensor(y), "r")
    forget = samples_of(torch.tensor(poisoned.reshape(N, 1, 2, 3)), torch.full((N,), 2), "f")
    return case_of(model, retain, forget, PLAIN)


def _importance(weight, x):
    """Mean over samples of |d |W x|^2 / dW| = |2 (W x) x'|."""
    return np.mean([np.abs(2 * np.outer(weight @ row, row)) for row in x], axis=0)


def _run(case, *, budget=1e6, **numbers):
    ledger = Ledger(allowed=budget)
    result = potion(case.model, case, RNG, ledger=ledger, **numbers)
    return result.module[1].weight.detach().numpy(), ledger


def _flat(samples):
    return samples.x.numpy().reshape(len(samples), -1)


def test_potion_is_the_loop_in_numpy():
    case = _case()
    weight = case.model.module[1].weight.detach().numpy().copy()
    x, poisoned = _flat(case.retain), _flat(case.forget)
    F, share = _importance(weight, poisoned), N / (N + M)
    D = share * F + (1 - share) * _importance(weight, x)
    ratio, s, tries = F / D, share / 25, 0
    while True:
        alpha = np.percentile(ratio, 100 - math.log(1 + 100 * s), method="higher")
        after = np.where(ratio > alpha, weight * np.minimum(1, D / F), weight)
        tries += 1
        s *= 2.0
        if np.mean((poisoned @ after.T).argmax(1) == 2) <= 0.2:
            break
    found, ledger = _run(case, growth=2.0, lost=1.0)
    np.testing.assert_allclose(found, after, rtol=0, atol=1e-12)
    assert tries > 2
    assert ledger.spent == pytest.approx(N + M + (M + tries * (N + M)) / 3)
    assert found[2, 3] < 0.51 < weight[2, 3]  # the trigger's weight
    assert np.array_equal(found[:, :3].argmax(1), [0, 1, 2])


def test_a_try_that_costs_accuracy_is_not_taken():
    case = _case()
    clean = case.retain.at(torch.nonzero(case.retain.y == 2).squeeze(1))
    with torch.no_grad():
        case.model.module[1].weight[2, 2] = 0.3
    blind = case_of(case.model, case.retain, clean, PLAIN)
    x, y = _flat(case.retain), case.retain.y.numpy()
    far, _ = _run(blind, budget=400.0, growth=4.0, lost=1.0)
    kept, _ = _run(blind, budget=400.0, growth=4.0, lost=0.0)
    assert np.mean((x @ far.T).argmax(1) == y) < 1
    assert np.mean((x @ kept.T).argmax(1) == y) == 1


def test_labels_do_not_matter_to_importances():
    case = _case()
    relabelled = samples_of(case.retain.x, (case.retain.y + 1) % 3, "r")
    other = case_of(case.model, relabelled, case.forget, PLAIN)
    first, _ = _run(case, growth=2.0, lost=1.0)
    second, _ = _run(other, growth=2.0, lost=1.0)
    assert np.array_equal(first, second)


def test_a_small_budget_looks_at_fewer_samples():
    _, ledger = _run(_case(), budget=20.0, lost=1.0)
    assert 10 < ledger.spent <= 20
