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
        control_hits=control_hits, controls=controls, drawn=True, level=level, tolerance=tolerance,
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
        strata, control_hits=2, controls=5, drawn=True, level=0.9, tolerance=0.05
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
        [stratum(needed, 0, needed, 0)], control_hits=0, controls=needed, drawn=True, level=0.9,
        tolerance=0.05,
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


COUNTS = [counts(900, 10, 30, 60), counts(905, 5, 12, 78), counts(904, 6, 20, 70)]


def test_deficit_adds_the_luck_of_trainings_to_the_sampling_of_the_test_set():
    each = [
        paired_loss(
            only_before=c.only_reference, only_after=c.only_candidate, n=1000, level=0.9,
            tolerance=0.01,
        )
        for c in COUNTS
    ]  # fmt: skip
    found = rates.deficit(COUNTS, n=1000, level=0.9, tolerance=0.01)
    # Deficits 20, 7 and 14 of 1000: mean 13.667, sd 6.506; Student's t of 2 degrees is 2.920.
    assert found.value == pytest.approx(0.0136667, abs=1e-6)
    reach = 2.919986 * 0.0065064 * math.sqrt(4 / 3)
    below = np.mean([e.value - e.low for e in each])
    above = np.mean([e.high - e.value for e in each])
    assert found.low == pytest.approx(found.value - math.hypot(reach, below), abs=1e-6)
    assert found.high == pytest.approx(found.value + math.hypot(reach, above), abs=1e-6)
    # The p-value is Student's on the sum of both variances; those of pairs are (b + c) / n^2.
    sampled = np.mean([math.sqrt(40), math.sqrt(17), math.sqrt(26)]) / 1000
    ratio = found.value / math.sqrt(4 / 3 * 0.0065064**2 + sampled**2)
    assert found.p_value == pytest.approx(2 * laws.t.sf(ratio, 2), rel=1e-4)
    # At this luck no test set would do: the reach alone is 2.2 points.
    assert found.needed == rates.NEVER


def test_one_reference_tells_nothing_of_luck():
    alone = rates.deficit(COUNTS[:1], n=1000, level=0.9, tolerance=0.01)
    assert (alone.value, alone.low, alone.high) == (pytest.approx(0.02), -1, 1)
    assert (alone.p_value, alone.needed) == (1, rates.NEVER)


@pytest.mark.parametrize(("excess", "lucky"), [(0.0064, 0.0086), (0.035, 0.0086), (0.01, 0.006)])
def test_references_needed_are_the_first_that_reach_less_far(excess, lucky):
    def reach(k):
        return laws.t.isf(0.05, k - 1) * lucky * math.sqrt(1 + 1 / k)

    found = rates.references_needed(excess, lucky, level=0.9)
    counts = (k for k in range(2, 300) if reach(k) < excess)
    assert found == next(counts, rates.NEVER)


def trained(rng, runs, *, references, luck, deficit, n=10_000):
    """Counts of audits whose trainings differ by luck: each test sample is right by its chance.

    A model's accuracy is 0.9 + luck, the candidate's less by the deficit. A tenth of the samples
    tells models apart, each answering them for itself.
    """
    hard = n // 10
    for _ in range(runs):
        chances = 0.5 + 10 * luck * rng.standard_normal(1 + references)
        chances[0] -= 10 * deficit
        right = rng.random((1 + references, hard)) < chances.clip(0, 1)[:, None]
        me, others = right[0], right[1:]
        yield [
            counts(
                n - hard + int((me & other).sum()),
                int((me & ~other).sum()),
                int((other & ~me).sum()),
                int((~other & ~me).sum()),
            )
            for other in others
        ]


@pytest.mark.parametrize(("references", "luck"), [(2, 0.0), (2, 0.006), (3, 0.0086), (5, 0.006)])
def test_the_luck_of_a_training_is_no_poison_and_clears_none(luck, references):
    rng, runs, n = Rng(10).named("luck", luck, references).numpy(), 300, 4000
    found = cleared = alone = 0
    for pairs in trained(rng, runs, references=references, luck=luck, deficit=0.01, n=n):
        estimate = rates.deficit(pairs, n=n, level=0.9, tolerance=0.01)
        found += estimate.low > 0.01
        cleared += estimate.high <= 0.01
        one = rates.paired(pairs[0], n=n, level=0.9)
        alone += one.high <= 0.01
    # Binomial(300, 0.05) exceeds 27 with probability 0.001.
    assert max(found, cleared) <= 27
    if luck == 0.0086:  # what one pair cleared before: 22% of models that lost a point
        assert alone > 0.15 * runs
