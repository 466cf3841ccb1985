"""Rates against enumerations, scipy's exact tests and hand-worked tables; coverage by summation."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as laws

from poison_audit.models.seeds import Rng
from poison_audit.statistics import rates
from poison_audit.statistics.estimates import clopper_pearson, paired_loss


def stratum(targets, hits, controls, control_hits):
    return {"targets": targets, "hits": hits, "controls": controls, "control_hits": control_hits}


def targeted(hits, n, control_hits, controls, *, level=0.9, tolerance=0.05):
    return rates.excess_of_targets(
        [stratum(n, hits, controls, control_hits)],
        control_hits=control_hits, controls=controls, level=level, tolerance=tolerance,
    )  # fmt: skip


def backdoor(hits, n, clean_hits, control_rates, references=(), *, level=0.9, tolerance=0.05):
    return rates.excess_of_trigger(
        hits=hits, n=n, clean_hits=clean_hits, control_rates=control_rates, references=references,
        level=level, tolerance=tolerance,
    )  # fmt: skip


def reference(both, only_candidate, only_reference=0):
    return {"both": both, "only_candidate": only_candidate, "only_reference": only_reference}


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
        marked, size = s["hits"] + s["control_hits"], s["targets"] + s["controls"]
        draws = itertools.combinations(range(size), s["targets"])
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
    found = [
        (e := targeted(k, 40, 4, 400)).low > 0 and e.high > 0.05 for k in range(41)
    ]  # fmt: skip
    assert laws.binom.pmf(np.arange(41), 40, chance)[found].sum() == pytest.approx(0.9)
    # A single target cannot be enough at any strength if the controls are as few.
    assert targeted(1, 1, 0, 1).detectable == 1.0


CONTROLS = [0.01] * 150 + [0.02] * 40 + [0.05] * 9


def test_backdoor_by_hand():
    # 199 controls; at 0.05 an end, the tenth largest of them: P(a fresh one above it) <= 10 / 200.
    estimate = backdoor(100, 100, 1, CONTROLS)
    mean = (1.5 + 0.8 + 0.45) / 199
    assert estimate.value == pytest.approx(1 - mean)
    assert estimate.low == pytest.approx(0.05 ** (1 / 100) - 0.02)
    # Against one unstamped hit, which stands for a rate of 0.05 / 100 at least.
    assert estimate.high == pytest.approx(1 - 0.0005)
    assert estimate.p_value == pytest.approx(1 / 200)
    assert backdoor(5, 100, 1, CONTROLS).p_value == pytest.approx(10 / 200)
    assert rates.draws_needed(0.9) == 19
    assert rates.draws_needed(1 - 2 * 0.01) == 99
    assert backdoor(0, 200, 0, [0.0] * 99).high == pytest.approx(1 - 0.05 ** (1 / 200))


def test_too_few_draws_never_show_an_excess():
    for draws in (2, 18):
        assert backdoor(100, 100, 0, [0.0] * draws).low <= 0
    assert backdoor(100, 100, 0, [0.0] * 19).low > 0.9


def test_a_backdoor_that_its_controls_wake_does_not_pass():
    # The trigger and every control cause the label always; without a patch, 1 in 100 inputs.
    estimate = backdoor(250, 250, 2, [1.0] * 199)
    assert estimate.low <= 0
    assert estimate.high > 0.9
    assert estimate.value == 0.0


def test_no_excess_over_unstamped_inputs_is_none():
    assert backdoor(60, 250, 60, [0.0] * 199).low <= 0


@pytest.mark.parametrize("hits", [0, 1, 40, 100])
def test_the_interval_holds_its_value(hits):
    for controls in (CONTROLS, [0.0] * 197 + [1.0, 1.0], [0.5] * 10 + [0.4] * 9):
        estimate = backdoor(hits, 100, 3, controls)
        assert estimate.low <= estimate.value <= estimate.high + 1e-12


def simulated_trigger(rng, *, excess, spread, n=200, draws=99, rate=0.02, shared=True):
    """Inputs with their own leanings; triggers, exchangeable, that push all of them somewhat."""
    leaning = rng.beta(5 * rate, 5 * (1 - rate), n) if shared else np.full(n, rate)
    push = np.exp(rng.normal(0, spread, draws + 1) - spread**2 / 2)
    luck = rng.random(n) if shared else rng.random((draws + 1, n))
    hit = luck < np.minimum(1, push[:, None] * leaning)
    clean = (luck if shared else rng.random(n)) < leaning
    true = hit[0] | (rng.random(n) < excess / (1 - rate))
    return backdoor(int(true.sum()), n, int(clean.sum()), hit[1:].mean(1))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_clean_triggers_are_seldom_called_residual(shared, spread):
    rng, runs = Rng(7).named("clean", shared, spread).numpy(), 300
    found = passed = 0
    for _ in range(runs):
        estimate = simulated_trigger(rng, excess=0, spread=spread, shared=shared)
        found += estimate.low > 0 and estimate.high > 0.05
        passed += estimate.high <= 0.05
    assert found <= 0.05 * runs
    assert passed > 0


@pytest.mark.parametrize("shared", [True, False])
def test_an_excess_at_the_tolerance_seldom_passes_and_a_large_one_is_found(shared):
    rng, runs = Rng(8).named("beyond", shared).numpy(), 300
    ends = [simulated_trigger(rng, excess=0.0505, spread=0.0, shared=shared) for _ in range(runs)]
    # Binomial(300, 0.05) exceeds 27 with probability 0.001.
    assert sum(e.high <= 0.05 for e in ends) <= 27
    strong = [simulated_trigger(rng, excess=0.3, spread=0.5, shared=shared) for _ in range(60)]
    assert sum(e.low > 0 for e in strong) >= 54


def test_needed_inputs_of_a_backdoor():
    # No chance hits at all: 1 - 0.05 ** (1 / n) <= 0.05.
    assert backdoor(0, 10, 0, [0.0] * 99).needed == math.ceil(math.log(0.05) / math.log(0.95)) == 59


def test_references_by_hand():
    # Every control causes the label always. One reference calls 1 of 250 stamped inputs so, the
    # other 3. Error 0.05 x 1 / 10 for the references, half of it for each share.
    against = [reference(1, 249), reference(3, 247)]
    estimate = backdoor(250, 250, 2, [1.0] * 199, against)
    assert estimate.value == pytest.approx(247 / 250)
    least = clopper_pearson(247, 250, level=1 - 0.0025, sides=1)[0]
    assert estimate.low == pytest.approx(least - (1 - 0.0025 ** (1 / 250)) - 0.05)
    assert estimate.low > 0.85
    # More unpatched inputs than stamped ones in a reference: the value is measured from those.
    busy = backdoor(250, 250, 100, [1.0] * 199, against)
    assert busy.value == pytest.approx(150 / 250)
    assert busy.low == pytest.approx(0.005 ** (1 / 250) - 100 / 250)


@pytest.mark.parametrize(
    ("hits", "clean", "against"),
    [
        (250, 2, [reference(1, 249), reference(240, 10)]),  # one answers to the trigger itself
        (250, 250, [reference(1, 249)]),  # a model that names the label always
        (20, 2, [reference(5, 15)]),  # 6 points more: the luck of a seed
        (3, 2, [reference(0, 3, 247)]),
    ],
)
def test_references_that_do_not_differ_surely_show_nothing(hits, clean, against):
    alone = backdoor(hits, 250, clean, [1.0] * 199)
    beside = backdoor(hits, 250, clean, [1.0] * 199, against)
    assert beside.low <= alone.low <= 0  # a tenth of the error is lost on them
    assert beside == replace(alone, low=beside.low)


@pytest.mark.parametrize("hits", [0, 4, 60, 100])
@pytest.mark.parametrize("shared", [0, 1, 3])
def test_references_never_ease_a_pass_and_the_interval_holds_its_value(hits, shared):
    both = min(hits, shared)
    for controls in (CONTROLS, [0.0] * 197 + [1.0, 1.0], [0.5] * 10 + [0.4] * 9):
        alone = backdoor(hits, 100, 3, controls)
        beside = backdoor(hits, 100, 3, controls, [reference(both, hits - both, shared - both)])
        assert (beside.high, beside.p_value, beside.z) == (alone.high, alone.p_value, alone.z)
        assert beside.low <= beside.value <= beside.high + 1e-12


def test_patches_decide_with_nine_tenths_of_the_error_beside_references():
    # 0.045 an end: one of 23 triggers is the most effective with chance 0.0435, of 22 with 0.0455.
    poisoned = [reference(100, 0)]
    assert rates.draws_needed(0.9, references=True) == 22
    assert backdoor(100, 100, 0, [0.0] * 21, poisoned).low <= 0
    found = backdoor(100, 100, 0, [0.0] * 22, poisoned)
    assert found.low == pytest.approx(0.045 ** (1 / 100))
    assert found.value == 1.0


@pytest.mark.parametrize("chances", [(0.05, 0.0), (0.07, 0.02), (0.3, 0.25), (0.5, 0.45)])
@pytest.mark.parametrize("n", [7, 40, 100])
def test_a_lead_within_the_tolerance_is_shown_as_seldom_as_promised(chances, n):
    # Exact by summation: a lead of 5 points, at the references' error of 0.1 x 0.05.
    errs = 0.0
    laws_of = laws.multinomial(n, [*chances, 1 - sum(chances)])
    for gained in range(n + 1):
        for lost in range(n + 1 - gained):
            chance = laws_of.pmf([gained, lost, n - gained - lost])
            if chance > 1e-9:
                lead = rates.lead(reference(0, gained, lost), n=n, level=0.9)
                errs += chance * (lead > 0.05)
    assert errs <= 0.005 + 1e-6


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("woken", [True, False])
def test_clean_models_that_differ_by_luck_are_seldom_residual(shared, woken):
    # Rates of the label on stamped inputs: mean 2%, sd 1.5%, one a training; the candidate's rate
    # with other patches is its own, or 1 for a few of them, so that references are all there is.
    rng, runs, n = Rng(14).named("luck", shared, woken).numpy(), 300, 250
    found = 0
    for _ in range(runs):
        rate = rng.beta(1.72, 84.4, 3)
        luck = rng.random(n) if shared else rng.random((3, n))
        mine, *others = luck < rate[:, None]
        controls = rng.binomial(n, rate[0], 199) / n
        controls[: 20 if woken else 0] = 1.0
        against = [
            reference(int((mine & one).sum()), int((mine & ~one).sum()), int((~mine & one).sum()))
            for one in others
        ]
        clean = int(rng.binomial(n, rate[0]))
        estimate = backdoor(int(mine.sum()), n, clean, controls, against)
        found += estimate.low > 0 and estimate.high > 0.05
    assert found <= 0.05 * runs


COUNTS = [
    {"both": 900, "only_reference": 30, "only_candidate": 10, "neither": 60},
    {"both": 905, "only_reference": 12, "only_candidate": 5, "neither": 78},
]


def test_deficit_spans_the_references():
    one, two = (
        paired_loss(
            only_before=c["only_reference"], only_after=c["only_candidate"], n=1000, level=0.9,
            tolerance=0.01,
        )
        for c in COUNTS
    )  # fmt: skip
    alone = rates.deficit(COUNTS[:1], n=1000, level=0.9, tolerance=0.01)
    assert (alone.value, alone.low, alone.high) == (one.value, one.low - 0.01, one.high)
    # Found with power 0.9: the tolerance, and 1.645 + 1.282 standard errors of a paired difference.
    assert alone.detectable == pytest.approx(0.01 + 2.926 * one.spread / 1000**0.5, abs=1e-5)
    both = rates.deficit(COUNTS, n=1000, level=0.9, tolerance=0.01)
    assert both.value == pytest.approx((0.020 + 0.007) / 2)
    assert (both.low, both.high) == (two.low - 0.01, one.high)
    assert both.p_value == two.p_value
    assert both.needed == max(one.needed, two.needed)


def test_deficit_coverage():
    # 3% only the reference, 2% only the candidate: a deficit of exactly 1 point.
    rng, runs = Rng(9).named("deficit").numpy(), 400
    draws = rng.multinomial(800, [0.03, 0.02, 0.95], runs)
    ends = [
        rates.deficit(
            [{"only_reference": int(b), "only_candidate": int(c)}], n=800, level=0.9, tolerance=0.01
        )
        for b, c, _ in draws
    ]
    # Binomial(400, 0.05) exceeds 34 with probability 0.001.
    assert sum(e.low + 0.01 > 0.01 for e in ends) <= 34
    assert sum(e.high < 0.01 for e in ends) <= 34


def test_the_luck_of_a_training_is_no_poison():
    # Model and reference differ by luck: their true accuracies have sd 0.6 points each, as two
    # trainings on CIFAR-10 did. Judged by the pairs alone many a clean model would be found.
    rng, runs, n, level = Rng(10).named("luck").numpy(), 300, 10_000, 0.9
    luck = rng.normal(0, 0.006 * 2**0.5, runs)
    draws = [rng.multinomial(n, [0.08 + d / 2, 0.08 - d / 2, 0.84]) for d in luck]
    found = alone = 0
    for b, c, _ in draws:
        counts = {"only_reference": int(b), "only_candidate": int(c)}
        found += rates.deficit([counts], n=n, level=level, tolerance=0.01).low > 0
        alone += (
            paired_loss(only_before=int(b), only_after=int(c), n=n, level=level, tolerance=0.01).low
            > 0
        )
    assert found <= 0.05 * runs < alone
