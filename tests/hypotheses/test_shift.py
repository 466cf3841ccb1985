"""Shift: distances, false alarms, poison that is found, and what is not measured."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression
from torch import nn

from builders.heads import design_of, small_case, wrap
from poison_audit.errors import PlanError
from poison_audit.hypotheses.features import design
from poison_audit.hypotheses.head import RIDGE, solve
from poison_audit.hypotheses.shift import chance, shift
from poison_audit.models.seeds import Rng
from poison_audit.records import Outcome


def test_the_curve_is_scikit_learns():
    case = small_case(poisoned=True)
    found = shift(case.model, case, Rng(0), subsets=3, fractions=(1.0,))
    data = design(case.model, case, Rng(0), most=1000)

    def fit(x, y):
        model = LogisticRegression(
            C=1 / (RIDGE * len(x)), fit_intercept=False, solver="newton-cg", tol=1e-12,
            max_iter=1000,
        )  # fmt: skip
        return model.fit(x.numpy(), y.numpy()).coef_

    step = fit(data.x[:45], data.y[:45]) - fit(data.x, data.y)
    assert found.details["poison_l1"][0] == pytest.approx(np.abs(step).sum(), rel=1e-6)
    assert found.details["poison_l2"][0] == pytest.approx(np.sqrt((step**2).sum()), rel=1e-6)


@pytest.mark.slow
def test_a_random_clean_forget_set_gives_uniform_p_values():
    # R = 9: (rank - uniform) / 10 of ten exchangeable values is uniform, exactly
    p_values = []
    for seed in range(200):
        found = design_of(seed, forget=10, n=30, d=2, classes=2)
        whole = solve(found.x, found.y, classes=2)
        p_values.append(chance(found, whole, Rng(seed), subsets=9))
    spread = np.random.default_rng(0).random(200) / 10
    assert stats.kstest(np.array(p_values) - spread, "uniform").pvalue > 0.01


@pytest.mark.parametrize("seed", range(3))
def test_poison_is_found(seed):
    case = small_case(n=240, forget=24, poisoned=True, seed=seed)
    found = shift(case.model, case, Rng(0), subsets=39, fractions=(0.5, 1.0))
    assert found.p_value == 1 / 40
    assert found.statistic > found.interval.low > 1
    assert "moves it further than ordinary samples do (p = 0.025)" in found.reason


def test_what_the_finding_tells():
    case = small_case()
    before = case.model.digest()
    found = shift(case.model, case, Rng(0), subsets=9)
    told = found.details
    assert (found.outcome, found.gating, found.null) == (Outcome.INFO, False, 1.0)
    assert found.interval.low <= found.statistic <= found.interval.high
    assert found.statistic == told["poison_l1"][-1] / told["random_l1_mean"][-1]
    assert told["fractions"] == [0.1, 0.25, 0.5, 1.0]
    for name in ("poison_l1", "poison_l2", "random_l1_low", "random_l2_high"):
        assert len(told[name]) == 4
    assert json.loads(json.dumps(dict(told), allow_nan=False)) == told
    assert shift(case.model, case, Rng(0), subsets=9) == found
    assert shift(case.model, case, Rng(1), subsets=9) != found
    assert case.model.digest() == before


def without_class(case, label, *, leave):
    """Take all but `leave` samples of a class out of retain."""
    of_class = torch.nonzero(case.retain.y == label).flatten()[leave:].tolist()
    kept = [at for at in range(len(case.retain)) if at not in of_class]
    return dataclasses.replace(case, retain=case.retain.at(kept))


def test_retain_that_lacks_a_class():
    case = without_class(small_case(), 1, leave=0)
    found = shift(case.model, case, Rng(0), subsets=9, fractions=(1.0,))
    assert found.outcome is Outcome.NOT_MEASURED
    assert found.statistic is None
    why = "Not measured: retain holds fewer samples than the forget set of classes 1."
    assert found.reason == why


def test_retain_that_suffices_for_a_part():
    case = without_class(small_case(), 1, leave=3)
    assert int((case.forget.y == 1).sum()) > 3
    found = shift(case.model, case, Rng(0), subsets=9, fractions=(0.1, 1.0))
    assert found.details["ratio_fraction"] == 0.1
    assert found.details["random_l1_mean"][1] is None
    assert found.reason.startswith("Leaving out 10% of the forget set moves")


def test_a_model_without_a_last_linear_layer():
    model = wrap(lambda: nn.Sequential(nn.Conv2d(1, 3, (1, 4)), nn.Flatten()))
    case = dataclasses.replace(small_case(), model=model)
    found = shift(model, case, Rng(0))
    assert found.outcome is Outcome.NOT_MEASURED
    assert found.reason == "Not measured: the penultimate layer could not be found."


@pytest.mark.parametrize("fractions", [(), (0.5,), (0.5, 0.5, 1.0), (0.0, 1.0), (0.5, 1.5)])
def test_impossible_numbers_are_refused_together(fractions):
    case = small_case()
    with pytest.raises(PlanError) as error:
        shift(case.model, case, Rng(0), subsets=0, fractions=fractions)
    assert len(error.value.problems) == 2
