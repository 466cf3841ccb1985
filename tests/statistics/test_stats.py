import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from poison_audit.models.seeds import Rng
from poison_audit.statistics.estimates import (
    auc,
    clopper_pearson,
    mean_rank,
    mean_score,
    paired_loss,
    rank_sum_p_value,
)


def test_mean_score_by_hand():
    # Four scores of mean 1 and spread 0: error 1/2, so the interval is 1 +- 1.95996 / 2.
    estimate = mean_score([1.0, 1.0, 1.0, 1.0], level=0.95, tolerance=0.25)
    assert estimate.value == 1
    assert estimate.low == pytest.approx(1 - 0.979982, abs=1e-6)
    assert estimate.high == pytest.approx(1 + 0.979982, abs=1e-6)
    assert estimate.z == pytest.approx(2)
    assert estimate.p_value == pytest.approx(0.0455003, abs=1e-7)  # 2 * (1 - Phi(2))


def test_mean_score_widens_by_the_spread_only_above_one():
    narrow = mean_score([0.4, 0.6], level=0.9, tolerance=0.25)
    wide = mean_score([-2.0, 3.0], level=0.9, tolerance=0.25)  # sd = 5 / sqrt(2)
    assert (narrow.high - narrow.low) / 2 == pytest.approx(1.644854 / math.sqrt(2), abs=1e-6)
    assert (wide.high - wide.low) / 2 == pytest.approx(1.644854 * 2.5, abs=1e-5)


@pytest.mark.parametrize("level", [0.9, 0.95, 0.975, 0.999])
def test_needed_is_the_smallest_n_that_lets_a_clean_model_pass(level):
    estimate = mean_score([0.0] * 50, level=level, tolerance=0.25)

    def passes(n: int) -> float:
        # The mean is N(0, 1/n): the interval lies within +-0.25 if |mean| <= 0.25 - q / sqrt(n).
        room = 0.25 * math.sqrt(n) - stats.norm.ppf(0.5 + level / 2)
        return 2 * stats.norm.cdf(room) - 1

    assert passes(estimate.needed) >= 0.9 > passes(estimate.needed - 1)


def test_some_210_canaries_let_a_clean_model_pass():
    assert mean_score([0.0], level=0.95, tolerance=0.25).needed == 208


@pytest.mark.parametrize("n", [10, 100, 1000, 10_000])
def test_detectable_has_the_promised_power(n):
    estimate = mean_score([0.0] * n, level=0.95, tolerance=0.25)
    error, quantile = 1 / math.sqrt(n), stats.norm.ppf(0.975)
    # Beyond tolerance: the lower end, mean - q * error, lies above 0.25.
    needed_mean = 0.25 + quantile * error
    assert stats.norm.sf((needed_mean - estimate.detectable) / error) == pytest.approx(0.9)


def test_rank_sum_p_value_is_exact():
    n, draws = 4, 3
    totals = [sum(ranks) for ranks in itertools.product(range(draws + 1), repeat=n)]
    for total in range(n * draws + 1):
        low = sum(t <= total for t in totals) / len(totals)
        high = sum(t >= total for t in totals) / len(totals)
        assert rank_sum_p_value(total, n, draws) == pytest.approx(min(1, 2 * min(low, high)))


def test_rank_sum_tails_keep_their_precision():
    # All 60 canaries lose all 8 draws: probability 9**-60, far below what 1 - cdf could hold.
    assert rank_sum_p_value(0, 60, 8) == pytest.approx(2 * 9.0**-60, rel=1e-10)


def test_mean_rank_by_hand():
    # Ranks 1/2 in all: spread 0, so the null's sd sqrt((4 + 2) / (12 * 4)) = 0.35355 is taken.
    estimate = mean_rank([2] * 100, 4, level=0.95, tolerance=0.57)
    assert estimate.value == 0.5
    assert estimate.high == pytest.approx(0.5 + 1.959964 * 0.035355, abs=1e-6)
    assert estimate.p_value == 1


@pytest.mark.parametrize("draws", [1, 8, 32])
def test_null_spread_is_that_of_the_discrete_uniform(draws):
    ranks = np.arange(draws + 1) / draws
    estimate = mean_rank([0], draws, level=0.95, tolerance=0.57)
    assert estimate.spread == pytest.approx(np.std(ranks))


def _constrained(b: int, c: int, n: int, delta: float) -> float:
    """Tango's score statistic with the nuisance found by maximising the likelihood numerically."""

    def minus_likelihood(q: float) -> float:  # q = P(only after), q + delta = P(only before)
        rest = 1 - 2 * q - delta
        terms = ((b, q + delta), (c, q), (n - b - c, rest))
        return -sum(count * math.log(p) for count, p in terms if count)

    low, high = max(0.0, -delta) + 1e-13, (1 - delta) / 2 - 1e-13
    q = optimize.minimize_scalar(
        minus_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-12}
    ).x
    return (b - c - n * delta) / math.sqrt(n * (2 * q + delta - delta**2))


@pytest.mark.parametrize(("b", "c", "n"), [(8, 3, 100), (1, 0, 44), (20, 40, 500), (5, 5, 60)])
def test_paired_loss_inverts_the_score_test(b, c, n):
    estimate = paired_loss(only_before=b, only_after=c, n=n, level=0.95, tolerance=0.02)
    assert estimate.value == (b - c) / n
    assert _constrained(b, c, n, estimate.low) == pytest.approx(1.959964, abs=2e-4)
    assert _constrained(b, c, n, estimate.high) == pytest.approx(-1.959964, abs=2e-4)


def test_paired_loss_without_discordance_still_has_an_interval():
    # b = c = 0: T(delta)^2 = n delta / (1 - delta) at the constrained optimum q = 0.
    estimate = paired_loss(only_before=0, only_after=0, n=100, level=0.95, tolerance=0.02)
    edge = 1.959964**2 / (100 + 1.959964**2)
    assert estimate.high == pytest.approx(edge, abs=1e-6)
    assert estimate.low == pytest.approx(-edge, abs=1e-6)
    assert estimate.p_value == 1


def test_paired_loss_p_value_is_mcnemar_exact():
    # 1 of 8 discordant: 2 * (1 + 8) / 2**8.
    estimate = paired_loss(only_before=7, only_after=1, n=50, level=0.95, tolerance=0.02)
    assert estimate.p_value == pytest.approx(18 / 256)


@pytest.mark.parametrize(("p_before", "p_after"), [(0.01, 0.01), (0.03, 0.01), (0.002, 0.0005)])
def test_paired_loss_covers(p_before, p_after):
    rng, n, runs, level = Rng(7).named("tango").numpy(), 700, 1500, 0.95
    draws = rng.multinomial(n, [p_before, p_after, 1 - p_before - p_after], size=runs)
    inside = 0
    for b, c, _ in draws.tolist():
        estimate = paired_loss(only_before=b, only_after=c, n=n, level=level, tolerance=0.02)
        inside += estimate.low <= p_before - p_after <= estimate.high
    # A score interval holds its level on average, to within a point at these counts.
    assert inside / runs > level - 0.01 - 2 * math.sqrt(level * (1 - level) / runs)


@pytest.mark.parametrize(("successes", "n"), [(0, 5), (5, 5), (3, 40), (39, 40)])
def test_clopper_pearson_agrees_with_scipy(successes, n):
    expected = stats.binomtest(successes, n).proportion_ci(0.95, method="exact")
    assert clopper_pearson(successes, n) == pytest.approx((expected.low, expected.high))


def test_clopper_pearson_one_sided():
    expected = stats.binomtest(7, 9, alternative="greater").proportion_ci(0.95, method="exact")
    assert clopper_pearson(7, 9, level=0.95, sides=1)[0] == pytest.approx(expected.low)


def test_auc_and_its_error_by_counting_pairs():
    rng = Rng(3).numpy()
    x, y = rng.integers(0, 6, 15).astype(float), rng.integers(0, 5, 20).astype(float)
    pairs = (x[:, None] > y) + 0.5 * (x[:, None] == y)
    variance = pairs.mean(1).var(ddof=1) / 15 + pairs.mean(0).var(ddof=1) / 20
    area = auc(x, y)
    assert area.value == pytest.approx(pairs.mean())
    assert area.error == pytest.approx(math.sqrt(variance))


@settings(max_examples=20)
@given(scores=st.lists(st.floats(-5, 5), min_size=2, max_size=30), level=st.floats(0.5, 0.999))
def test_mean_score_properties(scores, level):
    once = mean_score(scores, level=level, tolerance=0.25)
    twice = mean_score(scores * 2, level=level, tolerance=0.25)
    higher = mean_score(scores, level=(1 + level) / 2, tolerance=0.25)
    assert once.low <= once.value <= once.high
    assert 0 <= once.p_value <= 1
    assert twice.high - twice.low < once.high - once.low  # narrows with n
    assert higher.high - higher.low > once.high - once.low  # widens with the level
    mirrored = mean_score([-score for score in scores], level=level, tolerance=0.25)
    assert mirrored.low == pytest.approx(-once.high)


@settings(max_examples=20)
@given(wins=st.lists(st.integers(0, 8), min_size=2, max_size=30), level=st.floats(0.5, 0.999))
def test_mean_rank_properties(wins, level):
    once = mean_rank(wins, 8, level=level, tolerance=0.57)
    mirrored = mean_rank([8 - w for w in wins], 8, level=level, tolerance=0.57)
    assert once.low <= once.value <= once.high
    assert 0 <= once.p_value <= 1
    assert mirrored.p_value == pytest.approx(once.p_value)
    assert mirrored.low == pytest.approx(1 - once.high)
