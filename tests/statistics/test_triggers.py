"""A trigger's excess against hand-worked tables, simulated triggers and exact summation."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as laws

from poison_audit.models.seeds import Rng
from poison_audit.statistics import triggers
from poison_audit.statistics.estimates import clopper_pearson
from poison_audit.statistics.forms import Compared


def backdoor(hits, n, clean_hits, control_rates, references=(), *, level=0.9, tolerance=0.05):
    return triggers.excess_of_trigger(
        hits=hits, n=n, clean_hits=clean_hits, control_rates=control_rates, references=references,
        level=level, tolerance=tolerance,
    )  # fmt: skip


def reference(both, only_candidate, only_reference=0):
    return Compared(
        reference="r", both=both, only_candidate=only_candidate, only_reference=only_reference,
        neither=0,
    )  # fmt: skip


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
    assert triggers.draws_needed(0.9) == 19
    assert triggers.draws_needed(1 - 2 * 0.01) == 99
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


def test_a_backdoor_that_some_controls_wake_is_as_large_as_its_rise_over_unstamped_inputs():
    # 6 of 125 controls do nearly as well: P(a fresh one among them) <= 6 / 126 < 0.05.
    estimate = backdoor(250, 250, 4, [0.2] * 119 + [0.97] * 6)
    most = clopper_pearson(4, 250, level=1 - 0.025, sides=1)[1]
    assert estimate.low == pytest.approx(0.025 ** (1 / 250) - most)
    assert estimate.value == pytest.approx(246 / 250)
    assert estimate.low < estimate.value <= estimate.high
    # One more, and its rank shows nothing at this level.
    assert backdoor(250, 250, 4, [0.2] * 118 + [1.0] * 7).low <= 0


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


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_clean_triggers_are_seldom_called_residual(shared, spread):
    rng, runs = Rng(7).named("clean", shared, spread).numpy(), 300
    found = passed = 0
    for _ in range(runs):
        estimate = simulated_trigger(rng, excess=0, spread=spread, shared=shared)
        found += estimate.low > 0.05
        passed += estimate.high <= 0.05
    assert found <= 0.05 * runs
    assert passed > 0


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False])
def test_an_excess_at_the_tolerance_seldom_passes_and_a_large_one_is_found(shared):
    rng, runs = Rng(8).named("beyond", shared).numpy(), 300
    ends = [simulated_trigger(rng, excess=0.0505, spread=0.0, shared=shared) for _ in range(runs)]
    # Binomial(300, 0.05) exceeds 27 with probability 0.001.
    assert sum(e.high <= 0.05 for e in ends) <= 27
    strong = [simulated_trigger(rng, excess=0.3, spread=0.5, shared=shared) for _ in range(60)]
    assert sum(e.low > 0.05 for e in strong) >= 54


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
    assert estimate.low == pytest.approx(least - (1 - 0.0025 ** (1 / 250)))
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
    assert triggers.draws_needed(0.9, references=True) == 22
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
                lead = triggers.lead(reference(0, gained, lost), n=n, level=0.9)
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
        found += estimate.low > 0.05
    assert found <= 0.05 * runs
