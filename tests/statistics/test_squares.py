"""The scatter of scores: against scipy's noncentral law, by its coverage, and its null."""

import math

import numpy as np
import pytest
from scipy import stats as laws

from poison_audit.models.seeds import Rng
from poison_audit.statistics.squares import needed_with_scatter, scatter


@pytest.mark.parametrize(("n", "rms"), [(1, 2.0), (10, 1.4), (400, 1.2), (5000, 1.05), (300, 9.9)])
def test_the_ends_are_those_of_the_noncentral_law(n, rms):
    found = scatter([rms] * n, level=0.9)
    assert found.value == pytest.approx((rms**2 - 1) / math.sqrt(2))
    for end, chance in ((found.low, 0.95), (found.high, 0.05)):
        if end > 0:
            law = laws.ncx2.cdf(n * rms**2, n, n * math.sqrt(2) * end)
            assert law == pytest.approx(chance, abs=1e-8)
    assert found.p_value == pytest.approx(laws.chi2.sf(n * rms**2, n))


def test_far_out_the_root_of_the_sum_is_normal():
    # Just below and just above where the law is exchanged: the same to four digits.
    below, above = (scatter([rms] * 400, level=0.9) for rms in (9.9999, 10.0001))
    assert (above.low, above.high) == pytest.approx((below.low, below.high), rel=2e-4)
    assert math.isfinite(scatter([1e6, -1e6], level=0.9999).high)


def test_less_scatter_than_the_null_is_no_effect():
    found = scatter([0.0] * 50, level=0.9)
    assert (found.low, found.high) == (pytest.approx(-1 / math.sqrt(2)), 0)


@pytest.mark.parametrize("effects", [[0.0], [0.25], [0.6, -0.6], [0, 0, 0, 0, 0, 0, 0, 0, 0, 3]])
def test_each_end_errs_at_most_as_promised_whatever_the_single_effects(effects):
    rng, runs, n = Rng(5).named("scatter", *effects).numpy(), 1000, 100
    mu = np.resize(effects, n)
    true = float(np.mean(mu**2)) / math.sqrt(2)
    ends = [scatter((rng.standard_normal(n) + mu).tolist(), level=0.9) for _ in range(runs)]
    # Binomial(1000, 0.05) exceeds 72 with probability 0.001.
    assert sum(e.low > true for e in ends) <= 72
    assert sum(e.high < true for e in ends) <= 72


def test_needed_scores_pass_a_clean_model_nine_times_in_ten():
    # Without the scatter 174: (1.6449 + 1.6449)^2 / 0.25^2.
    needed, runs = needed_with_scatter(0.9, 0.25), 2000
    assert needed == 217
    x = Rng(6).named("clean").numpy().standard_normal((runs, needed))
    near = np.abs(x.mean(1)) <= 0.25 - 1.6449 / math.sqrt(needed)
    slim = (x**2).sum(1) <= laws.ncx2.ppf(0.05, needed, needed * math.sqrt(2) * 0.25)
    assert (near & slim).mean() == pytest.approx(0.9, abs=0.02)  # three standard errors
