"""SSD against a table worked by hand, and the Fisher diagonal against torch.func."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, grad, vmap

from builders.tiny import (
    PLAIN,
    case_of,
    net,
    pictures,
    samples_of,
)
from poison_audit.errors import DivergedError
from poison_audit.methods import METHODS
from poison_audit.methods.ssd import fisher_diagonal
from poison_audit.models.model import Batch, Model
from poison_audit.models.seeds import Rng
from poison_audit.training.ledger import Ledger

RNG = Rng(11)


def _run(name, case, *, budget, rng=RNG, **params):
    ledger = Ledger(allowed=budget)
    return METHODS[name].run(case.model, case, rng, ledger=ledger, **params)


# ssd: the loss theta' x, whose gradient is x


class _Four(nn.Module):
    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(4, dtype=torch.float64))


def _four(theta, retain, forget):
    model = Model(
        module=_Four(),
        logits=lambda module, batch: batch.x,
        loss=lambda module, batch: batch.x @ module.theta,
        blocks=(("theta",),),
        build=_Four,
        arch="four",
        classes=4,
    )
    with torch.no_grad():
        model.module.theta.copy_(torch.as_tensor(theta, dtype=torch.float64))
    parts = [torch.as_tensor(x, dtype=torch.float64) for x in (retain, forget)]
    parts = [samples_of(x, torch.zeros(len(x), dtype=torch.int64)) for x in parts]
    return case_of(model, *parts, recipe=PLAIN)


@pytest.mark.parametrize(
    ("alpha", "lam", "expected"),
    [
        # F = (4, 1, 0, 5), R = (0, 1, 2, 1), D = (F + R) / 2 = (2, 1, 1, 3), F / D = (2, 1, 0, 5/3)
        (1.6, 1.0, [0.5, -2.0, 3.0, 6.0]),  # x 1/2, x 3/5
        (1.6, 0.5, [0.25, -2.0, 3.0, 3.0]),
        (1.6, 3.0, [1.0, -2.0, 3.0, 10.0]),  # would grow: left alone
        (1.7, 1.0, [0.5, -2.0, 3.0, 10.0]),
        (2.0, 0.0, [1.0, -2.0, 3.0, 10.0]),  # strictly above only
        (1.0, 0.0, [0.0, -2.0, 3.0, 0.0]),
    ],
)
def test_ssd_is_the_table_by_hand(alpha, lam, expected):
    retain = [[0, 1, 0, 1], [0, 1, 2, 1]]
    forget = [[2, 1, 0, 3], [2, 1, 0, 1]]
    case = _four([1.0, -2.0, 3.0, 10.0], retain, forget)
    model = _run("ssd", case, budget=4, alpha=alpha, lam=lam)
    assert model.module.theta.tolist() == pytest.approx(expected, rel=1e-15)


def test_ssd_leaves_equal_importances_and_unused_weights_alone():
    same = [[1.0, 2.0, 0.0, 0.5]]
    case = _four([1.0, 2.0, 3.0, 4.0], same, same)
    assert _run("ssd", case, budget=2, alpha=1.0, lam=0.0).digest() == case.model.digest()
    everything = _run("ssd", case, budget=2, alpha=0.0, lam=0.0)
    assert everything.module.theta.tolist() == [0.0, 0.0, 3.0, 0.0]  # 0/0 is never selected


_ROW = st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=4)


@given(
    theta=_ROW,
    retain=st.lists(_ROW, min_size=1, max_size=3),
    forget=st.lists(_ROW, min_size=1, max_size=3),
    alpha=st.floats(0, 5),
    lam=st.floats(0, 5),
)
def test_ssd_never_makes_a_weight_grow(theta, retain, forget, alpha, lam):
    case = _four(theta, retain, forget)
    after = _run("ssd", case, budget=100, alpha=alpha, lam=lam).module.theta.detach()
    before = case.model.module.theta.detach()
    assert bool((after.abs() <= before.abs()).all())
    assert bool((after * before >= 0).all())


def test_ssd_measures_a_subsample_in_proportion():
    retain, forget = [[0.0, 1.0, 0.0, 0.0]] * 12, [[1.0, 1.0, 0.0, 0.0]] * 4
    case = _four([1.0, 1.0, 1.0, 1.0], retain, forget)
    # Equal samples, so a subsample sees the same: F / D = 1 / (4/16) = 4 in the first coordinate.
    for budget in (2, 3, 8, 16):
        model = _run("ssd", case, budget=budget, alpha=3.9)
        assert model.module.theta.tolist() == pytest.approx([0.25, 1.0, 1.0, 1.0])
        assert _run("ssd", case, budget=budget, alpha=4.1).digest() == case.model.digest()
    assert _run("ssd", case, budget=1.9, alpha=3.9).digest() == case.model.digest()


def test_ssd_keeps_to_a_small_budget_where_forget_outnumbers_retain():
    case, ledger = _four([1.0] * 4, [[1.0] * 4], [[1.0] * 4] * 9), Ledger(allowed=2.0)
    METHODS["ssd"].run(case.model, case, RNG, ledger=ledger)
    assert ledger.spent == 2


class _Scalar(nn.Module):
    """The loss of one sample as a module, which is what torch.func can call."""

    def __init__(self, model):
        super().__init__()
        self.module, self._loss = model.module, model.loss

    def forward(self, x, y):
        return self._loss(self.module, Batch(x=x[None], y=y[None])).sum()


@pytest.mark.parametrize("name", ["batchnorm", "plain", "tied"])
def test_the_fisher_diagonal_is_torch_funcs(name):
    model, samples = net(name), pictures(6, "x", dtype=torch.float64)
    model = replace(model, module=model.module.double())
    model.module.train()
    found = fisher_diagonal(model, samples)
    assert model.module.training
    model.module.eval()

    scalar = _Scalar(model)
    every = {key: p.detach() for key, p in scalar.named_parameters()}
    per_sample = vmap(
        grad(lambda params, x, y: functional_call(scalar, params, (x, y))), in_dims=(None, 0, 0)
    )(every, samples.x, samples.y)
    assert {f"module.{key}" for key in found} == set(per_sample)
    for key, value in found.items():
        expected = per_sample[f"module.{key}"].square().mean(0)
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-18)
        assert bool((value > 0).any())


def test_importances_that_are_not_finite_are_refused():
    case = _four([1.0, 1.0, 1.0, 1.0], [[1.0, 1e200, 0.0, 0.0]], [[1.0, 1.0, 1.0, 1.0]])
    with pytest.raises(DivergedError, match="importance of theta"):
        _run("ssd", case, budget=2)
