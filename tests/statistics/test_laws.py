"""Laws by special functions, against scipy.stats, which is too slow to import for a command."""

import numpy as np
import pytest
from scipy import stats

from poison_audit.statistics import laws

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("n", [1, 2, 7, 50, 400, 3000])
def test_kolmogorov_and_smirnov(n):
    for shift in (0.0, 0.03, 0.2, 1.0):
        values = RNG.normal(shift, 1, n)
        right = stats.kstest(values, "norm").pvalue
        assert laws.normality(values) == pytest.approx(
            right, rel=1e-5
        )  # of many, scipy approximates


def test_values_on_one_side_of_everything():
    assert laws.normality([40.0] * 20) == stats.kstest([40.0] * 20, "norm").pvalue


@pytest.mark.parametrize("chance", [0.0, 1e-9, 0.013, 0.5, 0.9, 1.0])
def test_binomial_quantiles(chance):
    for n in (1, 2, 9, 100, 4321, 1 << 30):
        for probability in (0.05, 0.9):
            right = stats.binom.ppf(probability, n, chance)
            assert laws.binomial_quantile(probability, n, chance) == right


def test_hypergeometric():
    for total, marked, drawn in [(10, 3, 4), (10, 0, 4), (10, 10, 4), (900, 37, 411), (5, 4, 5)]:
        counts = np.arange(drawn + 1)
        right = stats.hypergeom.pmf(counts, total, marked, drawn)
        assert laws.hypergeometric(counts, total, marked, drawn) == pytest.approx(right, abs=1e-12)


def test_fisher():
    for hits, n, others, more in [(3, 10, 8, 9), (0, 400, 2, 700), (390, 400, 650, 700)]:
        table = [[hits, n - hits], [others, more - others]]
        right = stats.fisher_exact(table, alternative="less").pvalue
        assert laws.fewer(hits, n, others, more) == pytest.approx(right, rel=1e-9)


def test_ranks_and_the_normal_law():
    values = RNG.integers(0, 9, 50)
    assert laws.ranks(values).tolist() == stats.rankdata(values).tolist()
    assert laws.normal_above(1.3) == stats.norm.sf(1.3)
    assert laws.normal_quantile(0.31) == stats.norm.ppf(0.31)
