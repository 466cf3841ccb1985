"""Every method against a closed form, a table worked by hand, or a loop in NumPy."""

from dataclasses import replace

import numpy as np
import pytest
import test_oracle_head_edit
import test_oracle_i_bau
import test_oracle_npo
import test_oracle_potion
import test_oracle_restamp
import test_oracle_scrub
import test_oracle_ssd
import torch
from torch import nn

from builders.closed_forms import (
    ETA,
    FORGET,
    RETAIN,
    RNG,
    STEPS,
    THETA,
    X_F,
    X_R,
    Y_F,
    Y_R,
    close,
    descended,
    linear_case,
    quadratic,
    run,
)
from builders.tiny import (
    net,
    picture_case,
    pictures,
    theta_of,
)
from poison_audit.errors import PlanError
from poison_audit.methods import METHODS
from poison_audit.models.seeds import Rng
from poison_audit.training.ledger import Ledger

# gd


def test_gd_is_the_closed_form():
    model = run("gd", linear_case(), budget=STEPS * RETAIN, lr=ETA)
    close(model, descended(THETA, *quadratic(X_R, Y_R)))


def test_gd_by_default_takes_a_tenth_of_the_recipes_rate():
    model = run("gd", linear_case(lr=10 * ETA), budget=STEPS * RETAIN)
    close(model, descended(THETA, *quadratic(X_R, Y_R)))


def test_gd_takes_the_recipes_weight_decay_and_momentum():
    case = linear_case(momentum=0.9, weight_decay=0.3)
    H, c = quadratic(X_R, Y_R)
    theta, velocity = THETA.copy(), np.zeros(5)
    for _ in range(STEPS):
        velocity = 0.9 * velocity + (H @ theta - c + 0.3 * theta)
        theta -= ETA * velocity
    close(run("gd", case, budget=STEPS * RETAIN, lr=ETA), theta)


# ngd


def test_ngd_is_the_closed_form_with_the_generators_draws():
    model = run("ngd", linear_case(), budget=STEPS * RETAIN, lr=ETA, sigma=0.3)
    H, c = quadratic(X_R, Y_R)
    A = np.eye(5) - ETA * H
    expected = descended(THETA, H, c)
    draws = RNG.named("noise").torch()
    for step in range(STEPS):
        z = [torch.randn(1, n, generator=draws, dtype=torch.float64) for n in (3, 2)]
        z = torch.cat(z, dim=1).squeeze().numpy()
        expected -= ETA * 0.3 * np.linalg.matrix_power(A, STEPS - 1 - step) @ z
    close(model, expected)


def test_ngd_without_noise_is_gd_bit_for_bit():
    case = picture_case(net("batchnorm"))
    quiet = run("ngd", case, budget=40, sigma=0.0)
    assert quiet.digest() == run("gd", case, budget=40).digest()
    assert quiet.digest() != run("ngd", case, budget=40).digest()


def test_ngd_by_default_has_the_papers_variance():
    still = linear_case(np.zeros(5))
    still = replace(still, retain=replace(still.retain, x=torch.zeros_like(still.retain.x)))
    theta = theta_of(run("ngd", still, budget=400 * RETAIN, lr=1.0))
    # A sum of 400 draws of variance 1e-7 in each of 5 coordinates.
    assert 0.3 < (theta**2).mean() / (400 * 1e-7) < 3


# ga


def test_ga_is_the_closed_form():
    model = run("ga", linear_case(), budget=STEPS * FORGET, lr=ETA, passes=STEPS)
    close(model, descended(THETA, *quadratic(X_F, Y_F), eta=-ETA))


def test_ga_has_neither_momentum_nor_weight_decay():
    case = linear_case(momentum=0.9, weight_decay=0.3)
    model = run("ga", case, budget=STEPS * FORGET, lr=ETA, passes=STEPS)
    close(model, descended(THETA, *quadratic(X_F, Y_F), eta=-ETA))


def test_ga_by_default_passes_over_forget_as_often_as_the_budget_over_train():
    budget = 4 * (RETAIN + FORGET)
    model = run("ga", linear_case(lr=100 * ETA), budget=budget)
    close(model, descended(THETA, *quadratic(X_F, Y_F), eta=-ETA, steps=4))


# eu_k


def test_eu_k_is_the_closed_form_from_its_own_draw():
    case = linear_case()
    fresh = theta_of(case.model.fresh(RNG.named("init")))
    H, c = quadratic(X_R[:, 3:], Y_R - X_R[:, :3] @ THETA[:3])
    last = descended(fresh[3:], H, c)
    model = run("eu_k", case, budget=STEPS * RETAIN, lr=ETA, k=1)
    close(model, [*THETA[:3], *last])


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
    result = run("eu_k", case, budget=20, k=2)
    assert result.digest() == run("eu_k", replace(case, model=other), budget=20, k=2).digest()


def test_eu_k_leaves_a_weight_that_the_frozen_part_shares():
    case = picture_case(net("tied"))
    result = run("eu_k", case, budget=20, k=2).module
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
    part = run("eu_k", case, budget=budget, k=every)
    assert part.digest() == run("retrain", case, budget=None).digest()


def test_eu_k_of_all_blocks_also_resets_batchnorm_without_parameters():
    def build():
        flat = [nn.Flatten(), nn.Linear(192, 4), nn.BatchNorm1d(4, affine=False), nn.Linear(4, 3)]
        return nn.Sequential(*flat)

    model = replace(net("plain"), build=build, blocks=(("1.weight", "1.bias"), ("3.weight",)))
    model = replace(model.fresh(Rng(1)), blocks=(("1.weight", "1.bias"), ("3.weight", "3.bias")))
    model.module[2].running_mean += 5
    case = picture_case(model.clone())
    budget = case.recipe.epochs * len(case.retain)
    everything = run("eu_k", case, budget=budget, k=2)
    assert everything.digest() == run("retrain", case, budget=None).digest()
    head = run("eu_k", case, budget=budget, k=1).module
    assert torch.equal(head[2].running_mean, model.module[2].running_mean)


# cf_k


def test_cf_k_is_the_closed_form_of_the_last_block():
    H, c = quadratic(X_R[:, 3:], Y_R - X_R[:, :3] @ THETA[:3])
    model = run("cf_k", linear_case(), budget=STEPS * RETAIN, lr=ETA, k=1)
    close(model, [*THETA[:3], *descended(THETA[3:], H, c)])


@pytest.mark.parametrize("name", ["eu_k", "cf_k"])
def test_the_frozen_prefix_keeps_every_bit(name):
    case = picture_case(net("batchnorm"))
    before = case.model.module.state_dict()
    after = run(name, case, budget=40, k=2).module.state_dict()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    trained = {key for key in before if key.startswith(("layer2", "fc"))}
    assert moved == trained  # running statistics too


def test_cf_k_of_all_blocks_is_gd():
    case = picture_case(net("batchnorm"))
    every = len(case.model.blocks)
    result = run("cf_k", case, budget=40, k=every)
    assert result.digest() == run("gd", case, budget=40).digest()


@pytest.mark.parametrize("name", ["eu_k", "cf_k"])
@pytest.mark.parametrize("k", [0, 3])
def test_more_blocks_than_there_are_is_refused(name, k):
    with pytest.raises(PlanError, match=rf"k = {k}, but the model has 2 blocks. Use 1..2"):
        run(name, linear_case(), budget=100, k=k)


# neggrad_plus


@pytest.mark.parametrize("beta", [0.0, 0.6, 1.0])
def test_neggrad_plus_is_the_closed_form(beta):
    (H_r, c_r), (H_f, c_f) = quadratic(X_R, Y_R), quadratic(X_F, Y_F)
    H, c = beta * H_r - (1 - beta) * H_f, beta * c_r - (1 - beta) * c_f
    model = run(
        "neggrad_plus", linear_case(), budget=STEPS * (RETAIN + FORGET), lr=ETA, beta=beta, cap=None
    )
    close(model, descended(THETA, H, c))


def test_neggrad_plus_at_its_ends_is_gd_and_ga():
    case, budget = linear_case(), STEPS * (RETAIN + FORGET)
    only_retain = run("neggrad_plus", case, budget=budget, lr=ETA, beta=1.0, cap=None)
    close(only_retain, theta_of(run("gd", case, budget=STEPS * RETAIN, lr=ETA)))
    only_forget = run("neggrad_plus", case, budget=budget, lr=ETA, beta=0.0, cap=None)
    ga = run("ga", case, budget=STEPS * FORGET, lr=ETA, passes=STEPS)
    close(only_forget, theta_of(ga))


# weight_distortion


def test_weight_distortion_is_the_closed_form_from_the_distorted_place():
    draws = RNG.named("distortion").torch()
    z = [torch.randn(1, n, generator=draws).double().numpy()[0] for n in (3, 2)]
    scale = [np.sqrt(np.mean(part**2)) for part in (THETA[:3], THETA[3:])]
    start = THETA + 0.3 * np.concatenate([s * each for s, each in zip(scale, z, strict=True)])
    model = run("weight_distortion", linear_case(), budget=STEPS * RETAIN, lr=ETA, noise=0.3)
    close(model, descended(start, *quadratic(X_R, Y_R)))


def test_weight_distortion_without_noise_is_gd():
    case = picture_case(net("batchnorm"), schedule="constant")
    quiet = run("weight_distortion", case, budget=40, noise=0.0, lr=0.01)
    assert quiet.digest() == run("gd", case, budget=40, lr=0.01).digest()


def test_neggrad_plus_ends_its_ascent_at_the_cap():
    budget = STEPS * (RETAIN + FORGET)
    kept = run("neggrad_plus", linear_case(), budget=budget, lr=ETA, beta=0.6, cap=1e-9)
    # Above the cap only the retain samples are left, at their weight.
    close(kept, descended(THETA, *quadratic(X_R, Y_R), eta=0.6 * ETA))
    free = run("neggrad_plus", linear_case(), budget=budget, lr=ETA, beta=0.6, cap=1e9)
    unbound = run("neggrad_plus", linear_case(), budget=budget, lr=ETA, beta=0.6, cap=None)
    assert free.digest() == unbound.digest() != kept.digest()


# retrain


def test_retrain_is_the_closed_form_from_its_own_draw():
    case = linear_case(epochs=STEPS, lr=ETA)
    fresh = theta_of(case.model.fresh(RNG.named("init")))
    close(run("retrain", case, budget=None), descended(fresh, *quadratic(X_R, Y_R)))


def test_retrain_sees_neither_the_checkpoint_nor_the_forget_set():
    case = picture_case(net("batchnorm"))
    other = replace(case, model=case.model.fresh(Rng(99)), forget=pictures(3, "other"))
    assert other.model.digest() != case.model.digest()
    assert run("retrain", case, budget=None).digest() == run("retrain", other, budget=None).digest()


def test_retrain_runs_the_recipes_epochs():
    ledger, case = Ledger(), picture_case(net("plain"), epochs=2.5, batch_size=4)
    METHODS["retrain"].run(case.model, case, RNG, ledger=ledger)
    assert len(ledger.losses) == 6  # 2.5 x 10 / 4 = 6.25 steps
    assert ledger.spent == 24
    with pytest.raises(ValueError, match="epochs"):
        run("retrain", picture_case(net("plain"), epochs=None), budget=None)


ORACLES = {
    "gd": test_gd_is_the_closed_form,
    "ngd": test_ngd_is_the_closed_form_with_the_generators_draws,
    "ga": test_ga_is_the_closed_form,
    "eu_k": test_eu_k_is_the_closed_form_from_its_own_draw,
    "cf_k": test_cf_k_is_the_closed_form_of_the_last_block,
    "scrub": test_oracle_scrub.test_scrub_is_the_loop_in_numpy,
    "neggrad_plus": test_neggrad_plus_is_the_closed_form,
    "npo": test_oracle_npo.test_npo_is_the_loop_in_numpy,
    "ssd": test_oracle_ssd.test_ssd_is_the_table_by_hand,
    "head_edit": test_oracle_head_edit.test_rank_one_is_the_formula,
    "restamp": test_oracle_restamp.test_restamp_is_the_closed_form,
    "potion": test_oracle_potion.test_potion_is_the_loop_in_numpy,
    "i_bau": test_oracle_i_bau.test_i_bau_is_the_loop_in_numpy,
    "weight_distortion": test_weight_distortion_is_the_closed_form_from_the_distorted_place,
    "retrain": test_retrain_is_the_closed_form_from_its_own_draw,
}


def test_every_method_has_an_oracle():
    assert list(ORACLES) == list(METHODS)
