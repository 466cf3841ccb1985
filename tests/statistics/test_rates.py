"""Rates against enumerations, scipy's exact tests and hand-worked tables; coverage by summation."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats as laws

from poison_audit.models.seeds import Rng
from poison_audit.statistics import rates
from poison_audit.statistics.estimates import clopper_pearson, paired_loss
from poison_audit.statistics.forms import Compared, Stratum


def stratum(targets, hits, controls, control_hits):
    return Stratum(
        targets=targets, hits=hits, controls=controls, control_hits=control_hits
    )  # fmt: skip


def targeted(hits, n, control_hits, controls, *, level=0.9, tolerance=0.05):
    return rates.excess_of_targets(
        [stratum(n, hits, controls, control_hits)],
        control_hits=control_hits, controls=controls, level=level, tolerance=tolerance,
    )  # fmt: skip


def bernoulli_sum(chances):
    """The law of a sum of independent hits, one chance each."""
    mass = np.ones(1)
    for chance in chances:
        mass = np.convolve(mass, [1 - chance, chance])
    return mass


@pytest.mark.parametrize("table", [(5, 4, 20, 3), (1, 1, 9, 0), (7, 0, 3, 2), (3, 3, 3, 3)])
def test_one_stratum_is_fishers_exact_test(table):
    n, hits, controls, others = table
    fisher = laws.fisher_exact(
        [[hits, n - hits], [others, controls - others]], alternative="greater"
    )
    assert targeted(hits, n, others, controls).p_value == pytest.approx(fisher.pvalue)


def test_strata_by_enumeration_of_every_draw_of_targets():
    strata = [stratum(2, 1, 3, 1), stratum(1, 1, 3, 0), stratum(2, 2, 2, 1)]
    per_stratum = []
    for s in strata:
        marked, size = s.hits + s.control_hits, s.targets + s.controls
        draws = itertools.combinations(range(size), s.targets)
        per_stratum.append([sum(place < marked for place in draw) for draw in draws])
    sums = [sum(draw) for draw in itertools.product(*per_stratum)]
    estimate = rates.excess_of_targets(
        strata, control_hits=2, controls=5, level=0.9, tolerance=0.05
    )
    assert estimate.p_value == pytest.approx(np.mean([total >= 4 for total in sums]))
    assert estimate.z == pytest.approx((4 - np.mean(sums)) / np.std(sums))
    assert estimate.value == pytest.approx(4 / 5 - 2 / 5)


def test_targeted_interval_by_hand():
    # Error 0.05 an end: 0.045 on the targets, 0.005 on the controls. 20 of 20 and 0 of 200.
    estimate = targeted(20, 20, 0, 200)
    assert estimate.low == pytest.approx(0.045 ** (1 / 20) - (1 - 0.005 ** (1 / 200)))
    assert estimate.high == pytest.approx(1.0)


@pytest.mark.parametrize("n", [1, 2, 5, 9])
@pytest.mark.parametrize("error", [0.2, 0.05, 0.004])
def test_the_mean_of_unequal_chances_is_covered(n, error):
    rng = Rng(3).named(n, error).numpy()
    low, high = rates.mean_chance(np.arange(n + 1), n, error=error)
    single = n * (1 - (1 - error) ** (1 / n))  # one chance takes it all: where plain CP fails
    cases = [rng.random(n) ** rng.integers(1, 8) for _ in range(200)]
    cases += [np.eye(n)[0] * min(1, single * 1.0001), np.full(n, rng.random())]
    for chances in cases + [1 - chances for chances in cases]:
        mass, mean = bernoulli_sum(chances), chances.mean()
        assert mass[low > mean + 1e-12].sum() <= error + 1e-12
        assert mass[high < mean - 1e-12].sum() <= error + 1e-12


def test_mean_chance_is_clopper_pearson_apart_from_single_successes():
    low, high = rates.mean_chance(np.arange(31), 30, error=0.025)
    for k in (0, 2, 3, 15, 28, 30):
        expected = clopper_pearson(k, 30)
        assert (low[k], high[k]) == pytest.approx(expected)
    assert low[1] == pytest.approx(0.025 / 30)
    assert high[29] == pytest.approx(1 - 0.025 / 30)
    assert (low[1], high[29]) != pytest.approx((clopper_pearson(1, 30)[0], 1.0))


@pytest.mark.slow
@pytest.mark.parametrize(("control", "excess"), [(0.0, 0.0), (0.02, 0.0), (0.02, 0.05), (0.1, 0.3)])
def test_targeted_coverage_is_exact_by_summation(control, excess):
    # 12 targets, half of them at twice the mean excess; 24 controls.
    n, controls, tail = 12, 24, 0.05
    chances = control + excess * np.repeat([0.0, 2.0], n // 2)
    law, other = bernoulli_sum(chances), laws.binom.pmf(np.arange(controls + 1), controls, control)
    under = over = 0.0
    for k, j in itertools.product(range(n + 1), range(controls + 1)):
        if law[k] * other[j] > 1e-9:
            estimate = targeted(k, n, j, controls)
            under += law[k] * other[j] * (estimate.low > excess)
            over += law[k] * other[j] * (estimate.high < excess)
    assert under <= tail + 1e-6
    assert over <= tail + 1e-6


@pytest.mark.slow
def test_needed_targets_let_a_clean_model_pass_at_power():
    # No control is ever hit: a clean model has no hit, and 1 - 0.045 ** (1 / n) must be <= 0.05.
    estimate = targeted(0, 10, 0, 1000)
    assert estimate.needed == math.ceil(math.log(0.045) / math.log(0.95)) == 61
    # With hits by chance, the promise is checked by the binomial law of a clean model.
    needed = targeted(1, 50, 50, 5000).needed
    passing = [targeted(k, needed, needed, 100 * needed).high <= 0.05 for k in range(needed + 1)]
    assert laws.binom.pmf(np.arange(needed + 1), needed, 0.01)[passing].sum() >= 0.9
    assert rates.excess_of_targets(
        [stratum(needed, 0, needed, 0)], control_hits=0, controls=needed, level=0.9, tolerance=0.05
    ).needed <= needed  # fmt: skip


def test_detectable_targets_are_found_at_power():
    estimate = targeted(0, 40, 4, 400)
    chance = estimate.detectable + 0.01
    found = [targeted(k, 40, 4, 400).low > 0.05 for k in range(41)]
    assert laws.binom.pmf(np.arange(41), 40, chance)[found].sum() == pytest.approx(0.9)
    # A single target cannot be enough at any strength if the controls are as few.
    assert targeted(1, 1, 0, 1).detectable == 1.0


def counts(both, only_candidate, only_reference, neither):
    return Compared(
        reference="r", both=both, only_candidate=only_candidate, only_reference=only_reference,
        neither=neither,
    )  # fmt: skip


COUNTS = [counts(900, 10, 30, 60), counts(905, 5, 12, 78)]


def test_deficit_spans_the_references():
    one, two = (
        paired_loss(
            only_before=c.only_reference, only_after=c.only_candidate, n=1000, level=0.9,
            tolerance=0.01,
        )
        for c in COUNTS
    )  # fmt: skip
    alone = rates.deficit(COUNTS[:1], n=1000, level=0.9, tolerance=0.01)
    assert (alone.value, alone.low, alone.high) == (one.value, one.low, one.high)
    # Found with power 0.9: the tolerance, and 1.645 + 1.282 standard errors of a paired difference.
    assert alone.detectable == pytest.approx(0.01 + 2.926 * one.spread / 1000**0.5, abs=1e-5)
    both = rates.deficit(COUNTS, n=1000, level=0.9, tolerance=0.01)
    assert both.value == pytest.approx((0.020 + 0.007) / 2)
    assert (both.low, both.high) == (two.low, one.high)
    assert both.p_value == two.p_value
    assert both.needed == max(one.needed, two.needed)


def test_deficit_coverage():
    # 3% only the reference, 2% only the candidate: a deficit of exactly 1 point.
    rng, runs = Rng(9).named("deficit").numpy(), 400
    draws = rng.multinomial(800, [0.03, 0.02, 0.95], runs)
    ends = [
        rates.deficit(
            [counts(0, int(c), int(b), 800 - int(b) - int(c))], n=800, level=0.9, tolerance=0.01
        )
        for b, c, _ in draws
    ]
    # Binomial(400, 0.05) exceeds 34 with probability 0.001.
    assert sum(e.low > 0.01 for e in ends) <= 34
    assert sum(e.high < 0.01 for e in ends) <= 34


def test_the_luck_of_a_training_is_no_poison():
    # Model and reference differ by luck: their true accuracies have sd 0.6 points each, as two
    # trainings on CIFAR-10 did. Judged by the pairs alone many a clean model would be found.
    rng, runs, n, level = Rng(10).named("luck").numpy(), 300, 10_000, 0.9
    luck = rng.normal(0, 0.006 * 2**0.5, runs)
    draws = [rng.multinomial(n, [0.08 + d / 2, 0.08 - d / 2, 0.84]) for d in luck]
    found = alone = 0
    for b, c, _ in draws:
        pair = counts(0, int(c), int(b), n - int(b) - int(c))
        found += rates.deficit([pair], n=n, level=level, tolerance=0.01).low > 0.01
        alone += (
            paired_loss(only_before=int(b), only_after=int(c), n=n, level=level, tolerance=0.01).low
            > 0
        )
    assert found <= 0.05 * runs < alone
