"""Canaries of either sign: what their mean does not show decides, too."""

import numpy as np
import pytest

from builders.measured import SANE, cell, exposure, gaussian, missing, outcome_of, plan
from poison_audit.models.seeds import Rng
from poison_audit.records import Acceptance, Measurement, Outcome
from poison_audit.verdict.decide import decide


def pushed(mu: float, n: int = 400) -> Measurement:
    """Half of the canaries up and half down, by mu: the mean stays 0."""
    from scipy.stats import norm

    half = norm.ppf((np.arange(n // 2) + 0.5) / (n // 2))
    scores = [*(half + mu).tolist(), *(half - mu).tolist()]
    return Measurement(probe="gaussian", evidence={"scores": scores, "held_out": [], "dropped": 0})


# The scatter is mu^2 / sqrt 2, and its tolerance 0.25: mu 0.59. Its standard error at 400 canaries
# is that of a mean, 0.05, at mu 0 and .065 at mu .59. It clears at 1.645 of them, and finds at the
# quantile of a fifth of alpha over two probes, 2.58.
@pytest.mark.parametrize(
    ("mu", "expected"),
    [
        (0.0, Outcome.CLEAN),
        (0.4, Outcome.CLEAN),  # 0.11
        (0.55, Outcome.INCONCLUSIVE),  # 0.21
        (0.7, Outcome.INCONCLUSIVE),  # 0.35
        (0.85, Outcome.RESIDUAL),  # 0.51
        (1.0, Outcome.RESIDUAL),
    ],
)
def test_half_up_and_half_down_is_judged_by_the_scatter(mu, expected):
    assert outcome_of(pushed(mu), exposure(0.5))[0] is expected


def test_the_sentence_says_what_the_mean_does_not_show():
    found = decide(plan(), SANE, [cell(pushed(1.0), exposure(0.5))], attacks={}).findings[0]
    assert "follows some canaries and flees others" in found.reason
    assert found.statistic == pytest.approx(0)
    assert found.details["scatter"] == pytest.approx(0.5**0.5, abs=0.02)
    assert found.details["scatter_p"] < 1e-25
    open_ = decide(plan(), SANE, [cell(pushed(0.6), exposure(0.5))], attacks={}).findings[0]
    assert "Some of the poison is surely left" in open_.reason
    assert "By their mean alone it would be clean." in open_.reason


def test_canaries_pushed_either_way_no_longer_pass():
    # Today's rule by the mean alone passed 92% of such audits.
    rng = Rng(21).named("pushed").numpy()
    outcomes = []
    for _ in range(100):
        scores = rng.standard_normal(400) + np.resize([1.0, -1.0], 400)
        seen = {"scores": scores.tolist(), "held_out": [], "dropped": 0}
        outcomes.append(outcome_of(Measurement(probe="gaussian", evidence=seen), exposure(0.5))[1])
    assert outcomes == [1] * 100


def test_just_inside_and_just_outside_err_at_most_at_alpha():
    rng, runs = Rng(22).named("edges").numpy(), 400
    wrong = {"inside": 0, "outside": 0}
    for where, mu in (("inside", 0.594), ("outside", 0.595)):  # sqrt(0.25 * sqrt 2) = 0.5946
        for _ in range(runs):
            scores = rng.standard_normal(300) + np.resize([mu, -mu], 300)
            seen = {"scores": scores.tolist(), "held_out": [], "dropped": 0}
            found = outcome_of(Measurement(probe="gaussian", evidence=seen), missing("exposure"))
            wrong[where] += found[1] == (1 if where == "inside" else 0)
    # Binomial(400, 0.05) exceeds 34 with probability 0.001.
    assert max(wrong.values()) <= 34


def test_an_acceptance_covers_no_scatter_beyond_its_bound():
    def code(bound):
        accepted = Acceptance(
            probe="gaussian", candidate="deployed", bound=bound, reason="r", owner="o",
            expires="2030-01-01",
        )  # fmt: skip
        seen = pushed(1.0)  # scatter 0.71, its upper end below 1
        return outcome_of(seen, exposure(0.5), accepted=(accepted,), decided="2029-01-01")[1]

    assert (code(0.6), code(0.99)) == (1, 0)


def test_the_error_of_finding_is_split_and_that_of_clearing_is_not():
    found = decide(plan(), SANE, [cell(gaussian(1), exposure(0.9))], attacks={}).findings[0]
    assert found.interval.level == pytest.approx(1 - 0.8 * 0.05 / 2)
    clean = decide(plan(), SANE, [cell(gaussian(0), exposure(0.5))], attacks={}).findings[0]
    assert clean.interval.level == pytest.approx(0.9)
