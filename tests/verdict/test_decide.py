"""The gate in both directions: tables by hand, a property, and the exit code's error rate."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.measured import (
    DRAWS,
    SANE,
    backdoor,
    cell,
    exposure,
    gaussian,
    indiscriminate,
    missing,
    outcome_of,
    plan,
    targeted,
    utility,
)
from poison_audit.models.seeds import Rng
from poison_audit.records import WORST_FIRST, Measurement, Outcome, Sanity
from poison_audit.verdict.decide import EXIT_CODES, decide


# At alpha 0.05 over two probes the quantile is 2.2414: with 400 canaries the interval of mu is
# +-0.112, and that of the chance +-2.2414 * 0.306 / 20 = +-0.034.
@pytest.mark.parametrize(
    ("mu", "chance", "expected"),
    [
        (0.0, 0.50, Outcome.CLEAN),
        (0.13, 0.50, Outcome.CLEAN),  # excludes 0, but lies within tolerance
        (0.15, 0.50, Outcome.RESIDUAL),  # [0.04, 0.26]
        (0.11, 0.50, Outcome.CLEAN),  # [-0.002, 0.222]
        (1.0, 0.50, Outcome.RESIDUAL),
        (-1.0, 0.50, Outcome.RESIDUAL),  # overshot
        (0.0, 0.53, Outcome.CLEAN),  # [0.496, 0.564]
        (0.0, 0.55, Outcome.RESIDUAL),  # [0.516, 0.584]
        (0.0, 0.30, Outcome.RESIDUAL),
    ],
)
def test_outcome_by_interval_against_tolerance(mu, chance, expected):
    outcome, code = outcome_of(gaussian(mu), exposure(chance))
    assert outcome is expected
    assert code == {Outcome.CLEAN: 0, Outcome.RESIDUAL: 1}[expected]


def test_too_few_canaries_are_inconclusive_and_say_how_many_would_do():
    decision = decide(plan(), SANE, [cell(gaussian(0.3, n=10), exposure(0.5, n=10))], attacks={})
    assert decision.verdict.exit_code == 3
    # (2.2414 + 1.6449)^2 / 0.25^2 = 241.6: what two-sided equivalence needs at power 0.9.
    assert decision.findings[0].needed == 242
    assert "242 canaries" in decision.findings[0].reason


def test_overshooting_is_said():
    decision = decide(plan(), SANE, [cell(gaussian(-1), exposure(0.5))], attacks={})
    assert "overshot" in decision.findings[0].reason


@pytest.mark.parametrize(
    ("measurements", "attacks", "code"),
    [
        ((missing("gaussian"), missing("exposure")), {"": 5}, 3),  # no evidence at all
        ((gaussian(0), missing("exposure")), {"": 5}, 0),
        ((gaussian(0), missing("exposure")), {"gaussian": 5}, 3),  # named, so both must be seen
        ((gaussian(0), exposure(0.5)), {"gaussian": 5, "backdoor": 1}, 3),  # no backdoor probe ran
        ((gaussian(1), missing("exposure")), {"gaussian": 5}, 1),  # residual outranks unknown
        ((gaussian(0, suspect="held-out keys"), exposure(0.5)), {"gaussian": 5}, 3),
        ((gaussian(1, suspect="held-out keys"), exposure(0.5)), {"gaussian": 5}, 3),
        ((), {}, 3),
    ],
)
def test_what_could_not_be_measured_never_passes(measurements, attacks, code):
    assert outcome_of(*measurements, attacks=attacks)[1] == code


def test_a_model_that_does_not_work_as_loaded_is_never_judged():
    broken = Sanity(correct=11, total=100, low=0.06, chance=0.1)
    decision = decide(plan(), broken, [cell(gaussian(0), exposure(0.5))], attacks={})
    assert decision.verdict.exit_code == 3
    assert "does not work as loaded" in decision.verdict.sentence


@pytest.mark.parametrize(
    ("lost", "gained", "expected"),
    [(0, 0, Outcome.CLEAN), (40, 40, Outcome.CLEAN), (400, 0, Outcome.BROKEN),
     (80, 0, Outcome.BROKEN), (100, 60, Outcome.CLEAN), (0, 900, Outcome.CLEAN)],
)  # fmt: skip
def test_utility_breaks_a_candidate(lost, gained, expected):
    cells = [
        cell(gaussian(0), exposure(0.5)),
        cell(gaussian(0), exposure(0.5), utility(lost, gained), candidate="gd", kind="method"),
    ]
    decision = decide(plan(gate="gd"), SANE, cells, attacks={})
    assert decision.verdict.outcome is expected


def test_a_failed_method_is_no_pass_and_the_audit_goes_on():
    cells = [
        cell(gaussian(1), exposure(0.9)),
        cell(candidate="ga", kind="method", error="ga diverged: the loss is not finite"),
        cell(gaussian(0), exposure(0.5), utility(), candidate="gd", kind="method"),
    ]
    decision = decide(plan(gate="any-method"), SANE, cells, attacks={"gaussian": 9})
    assert [c.outcome for c in decision.verdict.candidates] == [
        Outcome.RESIDUAL, Outcome.FAILED, Outcome.CLEAN,
    ]  # fmt: skip
    assert decision.verdict.exit_code == 0
    alone = decide(plan(gate="ga"), SANE, cells, attacks={"gaussian": 9})
    assert alone.verdict.exit_code == 3


def test_several_seeds_are_judged_by_the_worst():
    cells = [
        cell(gaussian(0), exposure(0.5), utility(), candidate="gd", kind="method", seed=0),
        cell(gaussian(1), exposure(0.5), utility(), candidate="gd", kind="method", seed=1),
    ]
    decision = decide(plan(gate="gd"), SANE, cells, attacks={})
    assert decision.verdict.outcome is Outcome.RESIDUAL
    # Each interval is that of a quarter of... alpha / (2 seeds x 3 probes), two-sided.
    assert decision.findings[0].interval.level == pytest.approx(1 - 0.05 / 6)
    assert decision.findings[2].interval.level == pytest.approx(1 - 2 * 0.05 / 6)


def test_any_method_divides_alpha_among_the_repaired():
    cells = [cell(gaussian(1), exposure(0.9))] + [
        cell(gaussian(0), exposure(0.5), utility(), candidate=name, kind=kind)
        for name, kind in (("gd", "method"), ("mine", "candidate"), ("retrained", "reference"))
    ]
    decision = decide(plan(gate="any-method"), SANE, cells, attacks={})
    levels = {f.candidate: f.interval.level for f in decision.findings if f.probe == "gaussian"}
    assert levels["gd"] == pytest.approx(1 - 0.05 / 6)  # two repaired candidates, three probes


def test_nothing_to_remove_is_said():
    cells = [
        cell(gaussian(0), exposure(0.5)),
        cell(gaussian(0), exposure(0.5), utility(), candidate="gd", kind="method"),
    ]
    decision = decide(plan(), SANE, cells, attacks={})
    reasons = [f.reason for f in decision.findings if f.candidate == "gd"]
    assert "Nothing to remove" in reasons[0]


def test_exit_zero_changes_one_to_zero_and_nothing_else():
    assert outcome_of(gaussian(1), exposure(0.9), exit_zero=True) == (Outcome.RESIDUAL, 0)
    assert outcome_of(exit_zero=True) == (Outcome.INCONCLUSIVE, 3)


def test_a_residual_reference_is_called_out():
    cells = [
        cell(gaussian(0), exposure(0.5)),
        cell(gaussian(1), exposure(0.5), utility(), candidate="r", kind="reference"),
    ]
    assert "reference r" in decide(plan(), SANE, cells, attacks={}).verdict.next_step


MEASUREMENTS = st.sampled_from(
    [gaussian(0), gaussian(0.2), gaussian(1), gaussian(0, n=10), missing("gaussian")]
)


@settings(deadline=None, max_examples=80)
@given(first=MEASUREMENTS, rank=st.sampled_from([0.5, 0.54, 0.9]), seeds=st.integers(1, 2))
def test_adding_a_residual_finding_never_improves_the_verdict(first, rank, seeds):
    before = decide(plan(), SANE, [cell(first)] * seeds, attacks={"": 1}).verdict
    worse = dataclasses.replace(exposure(rank))
    after = decide(
        plan(), SANE, [cell(first, worse)] + [cell(first)] * (seeds - 1), attacks={"": 1}
    ).verdict
    if rank == 0.9:
        assert after.outcome is Outcome.RESIDUAL
        assert WORST_FIRST.index(after.outcome) <= WORST_FIRST.index(before.outcome)
    assert after.exit_code == EXIT_CODES[after.outcome]


def simulated(rng: np.random.Generator, mu: float, n: int) -> tuple[Measurement, Measurement]:
    """The two Gaussian probes on one model: both see the same shift, partly the same noise."""
    scores = rng.normal(mu, 1, n)
    true = mu + 0.6 * (scores - mu) + 0.8 * rng.normal(0, 1, n)  # N(mu, 1), correlated
    wins = (rng.normal(0, 1, (DRAWS, n)) < true).sum(0)
    return (
        Measurement(
            probe="gaussian", evidence={"scores": scores.tolist(), "held_out": [], "dropped": 0}
        ),
        Measurement(probe="exposure", evidence={"wins": wins.tolist(), "draws": DRAWS}),
    )


@pytest.mark.slow
@pytest.mark.parametrize("gate", ["deployed", "any-method"])
@pytest.mark.parametrize("truth", ["clean", "beyond"])
def test_the_exit_code_errs_at_most_at_alpha(gate, truth):
    # An effect just above tolerance, for both probes: Phi(0.2502 / sqrt(2)) = 0.5702.
    mu = 0.0 if truth == "clean" else 0.2502
    wrong = Outcome.RESIDUAL if truth == "clean" else Outcome.CLEAN
    rng = Rng(11).named(gate, truth).numpy()
    runs, n, errors = 2000, 300, 0
    for _ in range(runs):
        cells = [cell(*simulated(rng, mu, n))]
        if gate == "any-method":
            for name in ("gd", "ngd", "ga", "eu_k", "cf_k", "scrub", "neggrad_plus", "ssd"):
                b, c, _rest = rng.multinomial(4000, [0.01, 0.01, 0.98])
                seen = (*simulated(rng, mu, n), utility(int(b), int(c)))
                cells.append(cell(*seen, candidate=name, kind="method"))
        decision = decide(plan(gate=gate), SANE, cells, attacks={"gaussian": n})
        errors += decision.verdict.outcome is wrong
    assert errors <= 0.05 * runs, f"{errors} of {runs}"


def simulated_attacks(rng: np.random.Generator, excess: float) -> tuple[Measurement, ...]:
    """The three further probes on one model, with this excess, and a fifth of it in accuracy."""
    leaning, luck = 0.02 * rng.gamma(5, 0.2, 100), rng.random(400)
    hits = luck < leaning[0] + excess
    lost, gained, _ = rng.multinomial(4000, [0.01 + excess / 5, 0.01, 0.98 - excess / 5])
    return (
        targeted(int(rng.binomial(150, 0.01 + excess)), 150, int(rng.binomial(900, 0.01)), 900),
        backdoor(
            int(hits.sum()),
            n=400,
            clean=int((luck < 0.02).sum()),
            controls=[float((luck < share).mean()) for share in leaning[1:]],
        ),
        indiscriminate((int(lost), int(gained))),
    )


@pytest.mark.slow
@pytest.mark.parametrize("truth", ["clean", "beyond"])
def test_the_exit_code_errs_at_most_at_alpha_with_every_attack(truth):
    # Just above tolerance: 5.02 points of success, 1.004 of accuracy. A pass errs only if all do.
    rng, runs = Rng(13).named(truth).numpy(), 300
    wrong = Outcome.RESIDUAL if truth == "clean" else Outcome.CLEAN
    errors = {"all": 0, "targeted": 0, "backdoor": 0, "indiscriminate": 0}
    for _ in range(runs):
        seen = simulated_attacks(rng, 0.0 if truth == "clean" else 0.0502)
        decision = decide(plan(), SANE, [cell(*seen)], attacks={"indiscriminate": 5})
        errors["all"] += decision.verdict.outcome is wrong
        for found in decision.findings:
            errors[found.probe] += found.outcome is wrong
    assert errors["all"] <= 0.05 * runs, errors
    # Binomial(300, 0.05 / 3) exceeds 13 with probability 0.0003.
    assert max(errors[p] for p in ("targeted", "backdoor", "indiscriminate")) <= 13, errors


def test_a_planted_effect_is_found_at_the_promised_power():
    rng, n, runs = Rng(12).named("power").numpy(), 300, 400
    probe = decide(plan(), SANE, [cell(gaussian(0, n=n), exposure(0.5, n=n))], attacks={})
    effect = probe.findings[0].detectable
    found = 0
    for _ in range(runs):
        decision = decide(plan(), SANE, [cell(*simulated(rng, effect, n))], attacks={})
        found += decision.findings[0].outcome is Outcome.RESIDUAL
    # Binomial(400, 0.9) lies above 0.9 - 3 * 0.015 almost surely.
    assert found / runs > 0.9 - 3 * math.sqrt(0.9 * 0.1 / runs)
