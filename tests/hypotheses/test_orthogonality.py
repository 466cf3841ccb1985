"""Orthogonality: the head against dense gradients, false alarms, a planted case, the limits."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from builders.heads import blobs, design_of, perceptron, pictures_of, small_case, wrap
from poison_audit.errors import PlanError
from poison_audit.hypotheses.features import Design, moved
from poison_audit.hypotheses.head import RIDGE, solve
from poison_audit.hypotheses.orthogonality import free_dimensions, orthogonality, reach, reaches
from poison_audit.hypotheses.subsets import rank_p_value
from poison_audit.models.seeds import Rng
from poison_audit.records import Outcome


@pytest.mark.parametrize("rank", [1, 5])
def test_reach_is_that_of_dense_gradients(rank):
    found = design_of(0, forget=15)
    whole = solve(found.x, found.y, classes=3)
    told = reach(found, whole, found.forgotten, Rng(0), rank=rank, gradients=1000)
    need = moved(found, whole, found.forgotten).flatten()
    theta = whole.clone().requires_grad_(True)
    rest = np.flatnonzero(~found.forgotten)
    rows = []
    for at in rest:
        loss = nn.functional.cross_entropy(theta @ found.x[at], found.y[at])
        rows.append(torch.autograd.grad(loss, theta)[0].flatten())
    stacked = torch.stack(rows)
    top = torch.linalg.svd(stacked)[2][:rank]
    share = float((top @ need).square().sum() / need.square().sum())
    step = -(stacked.mean(dim=0) + RIDGE * whole.flatten())
    assert told.share == pytest.approx(share, abs=1e-8)
    assert told.cosine == pytest.approx(float(step @ need / (step.norm() * need.norm())), abs=1e-8)


def test_needed_shifts_live_in_the_free_dimensions():
    # Three classes, five columns of which one repeats another: (3 - 1) * 4
    x, y = blobs(0, d=4)
    x = torch.cat([x, x[:, :1]], dim=1)
    assert free_dimensions(x, 3) == 8
    found = Design(x=x, y=y, forgotten=np.arange(60) < 20, classes=3, samples=60)
    whole = solve(x, y, classes=3)
    needs = [moved(found, whole, np.arange(60) % 12 == k).flatten() for k in range(12)]
    values = torch.linalg.svdvals(torch.stack(needs))
    assert int((values > 1e-6 * values[0]).sum()) == 8


@pytest.mark.slow
def test_a_random_clean_forget_set_gives_uniform_p_values():
    # R = 9: (rank - uniform) / 10 of ten exchangeable values is uniform, exactly
    shares, cosines = [], []
    for seed in range(200):
        found, rng = design_of(seed, forget=10, n=30, d=3, classes=2), Rng(seed)
        whole, everyone = solve(found.x, found.y, classes=2), np.ones(30, dtype=bool)
        span = {"rank": 1, "gradients": 12}
        own = reach(found, whole, found.forgotten, rng.named("own"), **span)
        null = reaches(found, whole, everyone, rng.named("any"), subsets=9, **span)
        shares.append(rank_p_value(-own.share, [-one.share for one in null]))
        cosines.append(rank_p_value(-own.cosine, [-one.cosine for one in null]))
    spread = np.random.default_rng(0).random(200) / 10
    for p_values in (shares, cosines):
        assert stats.kstest(np.array(p_values) - spread, "uniform").pvalue > 0.01


def test_a_shift_that_clean_gradients_lack_is_found():
    # Only forget samples have the last feature, so no retain gradient points along it.
    x, y = blobs(0, n=60, d=4)
    alone = torch.zeros(60, 1, dtype=torch.float64)
    alone[:15, 0] = 2.0
    found = Design(
        x=torch.cat([x, alone], dim=1), y=y, forgotten=np.arange(60) < 15, classes=3, samples=60
    )
    whole = solve(found.x, found.y, classes=3)
    span = {"rank": 10, "gradients": 1000}  # (3 - 1) * 5: everything, but for what is lacking
    own = reach(found, whole, found.forgotten, Rng(0), **span)
    need = moved(found, whole, found.forgotten)
    lost = float(need[:, -1].square().sum() / need.square().sum())
    assert own.share == pytest.approx(1 - lost, abs=1e-8)
    assert lost > 0.1
    null = reaches(found, whole, np.ones(60, dtype=bool), Rng(0), subsets=39, **span)
    assert rank_p_value(-own.share, [-one.share for one in null]) == 1 / 40


def test_what_the_finding_tells():
    case = small_case()
    before = case.model.digest()
    found = orthogonality(case.model, case, Rng(0), subsets=9, rank=4)
    told = found.details
    assert (found.outcome, found.gating, found.null) == (Outcome.INFO, False, 1.0)
    assert found.interval.low <= found.statistic <= found.interval.high
    assert found.statistic == told["share"] / told["random_share_mean"]
    assert (told["rank"], told["free"]) == (4, 12)  # (3 - 1) * (5 + 1)
    assert told["direction_share"]["mean"] == 4 / 12
    assert (told["network"], told["network_missing"]) == (None, "needs a reference")
    assert json.loads(json.dumps(dict(told), allow_nan=False)) == told
    assert orthogonality(case.model, case, Rng(0), subsets=9, rank=4) == found
    assert orthogonality(case.model, case, Rng(1), subsets=9, rank=4) != found
    assert case.model.digest() == before


def test_with_a_reference_the_network_is_measured_too():
    case = small_case()
    reference = wrap(perceptron, seed=1)
    found = orthogonality(case.model, case, Rng(0), reference=reference, subsets=3, rank=4)
    assert found.details["network_missing"] is None
    assert found.details["network"]["parameters"] == 43
    assert json.loads(json.dumps(dict(found.details), allow_nan=False)) == found.details


def test_without_a_penultimate_layer_the_network_still_is():
    def build():
        return nn.Sequential(nn.Conv2d(1, 3, (1, 4)), nn.Flatten())

    case = dataclasses.replace(small_case(), model=wrap(build))
    found = orthogonality(case.model, case, Rng(0), reference=wrap(build, seed=1), rank=4)
    assert found.outcome is Outcome.NOT_MEASURED
    assert found.reason == "Not measured: the penultimate layer could not be found."
    assert found.details["network"]["parameters"] == 15


def test_retain_that_lacks_a_class():
    case = small_case()
    kept = torch.nonzero(case.retain.y != 2).flatten()
    case = dataclasses.replace(case, retain=case.retain.at(kept))
    found = orthogonality(case.model, case, Rng(0), subsets=3)
    assert found.outcome is Outcome.NOT_MEASURED
    assert found.reason.endswith("retain holds fewer samples than the forget set of classes 2.")


def test_impossible_numbers_are_refused_together():
    case = dataclasses.replace(small_case(), forget=pictures_of(*blobs(0), name="f"))
    with pytest.raises(PlanError) as error:
        orthogonality(case.model, case, Rng(0), subsets=0, rank=0, sketch=3, gradients=1)
    assert len(error.value.problems) == 4
