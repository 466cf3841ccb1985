"""Every method against a closed form, a table worked by hand, or a loop in NumPy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, grad, vmap

from builders.tiny import (
    PLAIN,
    case_of,
    least_squares,
    net,
    picture_case,
    pictures,
    samples_of,
    theta_of,
)
from poison_audit.errors import DivergedError, PlanError
from poison_audit.methods import METHODS
from poison_audit.methods.ssd import fisher_diagonal
from poison_audit.models.model import Batch, Model
from poison_audit.models.seeds import Rng
from poison_audit.training.ledger import Ledger

RNG = Rng(11)
RETAIN, FORGET, ETA, STEPS = 12, 7, 0.05, 9
THETA = np.random.default_rng(0).normal(size=5)


def _table(n, seed):
    draw = np.random.default_rng(seed)
    return draw.normal(size=(n, 5)), draw.integers(-3, 4, size=n)


X_R, Y_R = _table(RETAIN, 1)
X_F, Y_F = _table(FORGET, 2)


def _case(theta=THETA, **changes):
    retain = samples_of(torch.tensor(X_R), torch.tensor(Y_R))
    forget = samples_of(torch.tensor(X_F), torch.tensor(Y_F))
    return case_of(least_squares(theta), retain, forget, replace(PLAIN, **changes))


def _run(name, case, *, budget, rng=RNG, **params):
    ledger = Ledger(allowed=budget)
    return METHODS[name].run(case.model, case, rng, ledger=ledger, **params)


def _quadratic(x, y):
    """Return H and c of the loss theta' H theta / 2 - c' theta, a mean over samples."""
    return x.T @ x / len(y), x.T @ y / len(y)


def _descended(theta, H, c, *, steps=STEPS, eta=ETA):
    """theta* + (I - eta H)^T (theta - theta*), where H theta* = c."""
    star = np.linalg.solve(H, c)
    return star + np.linalg.matrix_power(np.eye(len(c)) - eta * H, steps) @ (theta - star)


def _close(model, expected):
    np.testing.assert_allclose(theta_of(model), expected, rtol=0, atol=1e-12)


# gd


def test_gd_is_the_closed_form():
    model = _run("gd", _case(), budget=STEPS * RETAIN, lr=ETA)
    _close(model, _descended(THETA, *_quadratic(X_R, Y_R)))


def test_gd_by_default_takes_a_tenth_of_the_recipes_rate():
    model = _run("gd", _case(lr=10 * ETA), budget=STEPS * RETAIN)
    _close(model, _descended(THETA, *_quadratic(X_R, Y_R)))


def test_gd_takes_the_recipes_weight_decay_and_momentum():
    case = _case(momentum=0.9, weight_decay=0.3)
    H, c = _quadratic(X_R, Y_R)
    theta, velocity = THETA.copy(), np.zeros(5)
    for _ in range(STEPS):
        velocity = 0.9 * velocity + (H @ theta - c + 0.3 * theta)
        theta -= ETA * velocity
    _close(_run("gd", case, budget=STEPS * RETAIN, lr=ETA), theta)


# ngd


def test_ngd_is_the_closed_form_with_the_generators_draws():
    model = _run("ngd", _case(), budget=STEPS * RETAIN, lr=ETA, sigma=0.3)
    H, c = _quadratic(X_R, Y_R)
    A = np.eye(5) - ETA * H
    expected = _descended(THETA, H, c)
    draws = RNG.named("noise").torch()
    for step in range(STEPS):
        z = [torch.randn(1, n, generator=draws, dtype=torch.float64) for n in (3, 2)]
        z = torch.cat(z, dim=1).squeeze().numpy()
        expected -= ETA * 0.3 * np.linalg.matrix_power(A, STEPS - 1 - step) @ z
    _close(model, expected)


def test_ngd_without_noise_is_gd_bit_for_bit():
    case = picture_case(net("batchnorm"))
    quiet = _run("ngd", case, budget=40, sigma=0.0)
    assert quiet.digest() == _run("gd", case, budget=40).digest()
    assert quiet.digest() != _run("ngd", case, budget=40).digest()


def test_ngd_by_default_has_the_papers_variance():
    still = _case(np.zeros(5))
    still = replace(still, retain=replace(still.retain, x=torch.zeros_like(still.retain.x)))
    theta = theta_of(_run("ngd", still, budget=400 * RETAIN, lr=1.0))
    # A sum of 400 draws of variance 1e-7 in each of 5 coordinates.
    assert 0.3 < (theta**2).mean() / (400 * 1e-7) < 3


# ga


def test_ga_is_the_closed_form():
    model = _run("ga", _case(), budget=STEPS * FORGET, lr=ETA, passes=STEPS)
    _close(model, _descended(THETA, *_quadratic(X_F, Y_F), eta=-ETA))


def test_ga_has_neither_momentum_nor_weight_decay():
    case = _case(momentum=0.9, weight_decay=0.3)
    model = _run("ga", case, budget=STEPS * FORGET, lr=ETA, passes=STEPS)
    _close(model, _descended(THETA, *_quadratic(X_F, Y_F), eta=-ETA))


def test_ga_by_default_passes_over_forget_as_often_as_the_budget_over_train():
    budget = 4 * (RETAIN + FORGET)
    model = _run("ga", _case(lr=100 * ETA), budget=budget)
    _close(model, _descended(THETA, *_quadratic(X_F, Y_F), eta=-ETA, steps=4))


# eu_k


def test_eu_k_is_the_closed_form_from_its_own_draw():
    case = _case()
    fresh = theta_of(case.model.fresh(RNG.named("init")))
    H, c = _quadratic(X_R[:, 3:], Y_R - X_R[:, :3] @ THETA[:3])
    last = _descended(fresh[3:], H, c)
    model = _run("eu_k", case, budget=STEPS * RETAIN, lr=ETA, k=1)
    _close(model, [*THETA[:3], *last])


def test_eu_k_does_not_depend_on_the_blocks_it_draws_anew():
    case = picture_case(net("batchnorm"))
    names = {name for block in case.model.blocks[-2:] for name in block}
    other = case.model.clone()
    with torch.no_grad():
        for name, parameter in other.module.named_parameters():
            if name in names:
                parameter += 1
        for name, buffer in other.module.named_buffers():
            if name.startswith("layer2"):
                buffer += 1
    assert other.digest() != case.model.digest()
    result = _run("eu_k", case, budget=20, k=2)
    assert result.digest() == _run("eu_k", replace(case, model=other), budget=20, k=2).digest()


def test_eu_k_leaves_a_weight_that_the_frozen_part_shares():
    case = picture_case(net("tied"))
    result = _run("eu_k", case, budget=20, k=2).module
    before = case.model.module
    assert result.upper.weight is result.middle.weight
    assert torch.equal(result.middle.weight, before.middle.weight)
    assert torch.equal(result.middle.bias, before.middle.bias)
    assert not torch.equal(result.upper.bias, before.upper.bias)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "onecycle"])
@pytest.mark.parametrize("name", ["batchnorm", "tied"])
def test_eu_k_of_all_blocks_is_retraining(name, schedule):
    case = picture_case(net(name), schedule=schedule)
    every = len(case.model.blocks)
    budget = case.recipe.epochs * len(case.retain)
    part = _run("eu_k", case, budget=budget, k=every)
    assert part.digest() == _run("retrain", case, budget=None).digest()


def test_eu_k_of_all_blocks_also_resets_batchnorm_without_parameters():
    def build():
        flat = [nn.Flatten(), nn.Linear(192, 4), nn.BatchNorm1d(4, affine=False), nn.Linear(4, 3)]
        return nn.Sequential(*flat)

    model = replace(net("plain"), build=build, blocks=(("1.weight", "1.bias"), ("3.weight",)))
    model = replace(model.fresh(Rng(1)), blocks=(("1.weight", "1.bias"), ("3.weight", "3.bias")))
    model.module[2].running_mean += 5
    case = picture_case(model.clone())
    budget = case.recipe.epochs * len(case.retain)
    everything = _run("eu_k", case, budget=budget, k=2)
    assert everything.digest() == _run("retrain", case, budget=None).digest()
    head = _run("eu_k", case, budget=budget, k=1).module
    assert torch.equal(head[2].running_mean, model.module[2].running_mean)


# cf_k


def test_cf_k_is_the_closed_form_of_the_last_block():
    H, c = _quadratic(X_R[:, 3:], Y_R - X_R[:, :3] @ THETA[:3])
    model = _run("cf_k", _case(), budget=STEPS * RETAIN, lr=ETA, k=1)
    _close(model, [*THETA[:3], *_descended(THETA[3:], H, c)])


@pytest.mark.parametrize("name", ["eu_k", "cf_k"])
def test_the_frozen_prefix_keeps_every_bit(name):
    case = picture_case(net("batchnorm"))
    before = case.model.module.state_dict()
    after = _run(name, case, budget=40, k=2).module.state_dict()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    trained = {key for key in before if key.startswith(("layer2", "fc"))}
    assert moved == trained  # running statistics too


def test_cf_k_of_all_blocks_is_gd():
    case = picture_case(net("batchnorm"))
    every = len(case.model.blocks)
    result = _run("cf_k", case, budget=40, k=every)
    assert result.digest() == _run("gd", case, budget=40).digest()


@pytest.mark.parametrize("name", ["eu_k", "cf_k"])
@pytest.mark.parametrize("k", [0, 3])
def test_more_blocks_than_there_are_is_refused(name, k):
    with pytest.raises(PlanError, match=rf"k = {k}, but the model has 2 blocks. Use 1..2"):
        _run(name, _case(), budget=100, k=k)


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
    return case_of(model, *parts, replace(PLAIN, **changes))


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


# neggrad_plus


@pytest.mark.parametrize("beta", [0.0, 0.6, 1.0])
def test_neggrad_plus_is_the_closed_form(beta):
    (H_r, c_r), (H_f, c_f) = _quadratic(X_R, Y_R), _quadratic(X_F, Y_F)
    H, c = beta * H_r - (1 - beta) * H_f, beta * c_r - (1 - beta) * c_f
    model = _run("neggrad_plus", _case(), budget=STEPS * (RETAIN + FORGET), lr=ETA, beta=beta)
    _close(model, _descended(THETA, H, c))


def test_neggrad_plus_at_its_ends_is_gd_and_ga():
    case, budget = _case(), STEPS * (RETAIN + FORGET)
    only_retain = _run("neggrad_plus", case, budget=budget, lr=ETA, beta=1.0)
    _close(only_retain, theta_of(_run("gd", case, budget=STEPS * RETAIN, lr=ETA)))
    only_forget = _run("neggrad_plus", case, budget=budget, lr=ETA, beta=0.0)
    ga = _run("ga", case, budget=STEPS * FORGET, lr=ETA, passes=STEPS)
    _close(only_forget, theta_of(ga))


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
    return case_of(model, *parts, PLAIN)


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


# retrain


def test_retrain_is_the_closed_form_from_its_own_draw():
    case = _case(epochs=STEPS, lr=ETA)
    fresh = theta_of(case.model.fresh(RNG.named("init")))
    _close(_run("retrain", case, budget=None), _descended(fresh, *_quadratic(X_R, Y_R)))


def test_retrain_sees_neither_the_checkpoint_nor_the_forget_set():
    case = picture_case(net("batchnorm"))
    other = replace(case, model=case.model.fresh(Rng(99)), forget=pictures(3, "other"))
    assert other.model.digest() != case.model.digest()
    assert (
        _run("retrain", case, budget=None).digest() == _run("retrain", other, budget=None).digest()
    )


def test_retrain_runs_the_recipes_epochs():
    ledger, case = Ledger(), picture_case(net("plain"), epochs=2.5, batch_size=4)
    METHODS["retrain"].run(case.model, case, RNG, ledger=ledger)
    assert len(ledger.losses) == 6  # 2.5 x 10 / 4 = 6.25 steps
    assert ledger.spent == 24
    with pytest.raises(ValueError, match="epochs"):
        _run("retrain", picture_case(net("plain"), epochs=None), budget=None)


ORACLES = {
    "gd": test_gd_is_the_closed_form,
    "ngd": test_ngd_is_the_closed_form_with_the_generators_draws,
    "ga": test_ga_is_the_closed_form,
    "eu_k": test_eu_k_is_the_closed_form_from_its_own_draw,
    "cf_k": test_cf_k_is_the_closed_form_of_the_last_block,
    "scrub": test_scrub_is_the_loop_in_numpy,
    "neggrad_plus": test_neggrad_plus_is_the_closed_form,
    "ssd": test_ssd_is_the_table_by_hand,
    "retrain": test_retrain_is_the_closed_form_from_its_own_draw,
}


def test_every_method_has_an_oracle():
    assert list(ORACLES) == list(METHODS)
