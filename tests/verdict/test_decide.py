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
from poison_audit.verdict.decide import decide
from poison_audit.verdict.gate import EXIT_CODES


# With 400 canaries the interval that clears (alpha 0.05, quantile 1.6449) is mu +-0.082, and the
# chance +-1.6449 * 0.306 / 20 = +-0.025. The one that finds (alpha over two probes and two sides,
# 2.2414) is chance +-0.034, and mu, of which four fifths are left (2.3263), +-0.116.
@pytest.mark.parametrize(
    ("mu", "chance", "expected"),
    [
        (0.0, 0.50, Outcome.CLEAN),
        (0.16, 0.50, Outcome.CLEAN),  # [0.078, 0.242]: excludes 0, but lies within tolerance
        (0.20, 0.50, Outcome.INCONCLUSIVE),  # inside, and its interval reaches beyond
        (0.30, 0.50, Outcome.INCONCLUSIVE),  # outside, and its interval reaches inside
        (0.36, 0.50, Outcome.INCONCLUSIVE),  # [0.244, 0.476]
        (0.37, 0.50, Outcome.RESIDUAL),  # [0.254, 0.486]
        (-0.36, 0.50, Outcome.INCONCLUSIVE),
        (1.0, 0.50, Outcome.RESIDUAL),
        (-1.0, 0.50, Outcome.RESIDUAL),  # overshot
        (0.0, 0.54, Outcome.CLEAN),  # [0.515, 0.565]
        (0.0, 0.55, Outcome.INCONCLUSIVE),  # [0.525, 0.575]
        (0.0, 0.60, Outcome.INCONCLUSIVE),  # [0.566, 0.634]
        (0.0, 0.61, Outcome.RESIDUAL),  # [0.576, 0.644]
        (0.0, 0.30, Outcome.RESIDUAL),
    ],
)
def test_outcome_by_interval_against_tolerance(mu, chance, expected):
    outcome, code = outcome_of(gaussian(mu), exposure(chance))
    assert outcome is expected
    assert code == {Outcome.CLEAN: 0, Outcome.RESIDUAL: 1, Outcome.INCONCLUSIVE: 3}[expected]


def test_what_is_surely_there_but_perhaps_tolerated_is_said_with_what_would_decide():
    finding = decide(plan(), SANE, [cell(gaussian(0.2), exposure(0.5))], attacks={}).findings[0]
    # z = 0.2 * sqrt(400) = 4: p = 2 Phi(-4) = 6.3e-5. The half width is 0.116; 0.05 are missing.
    assert "Some of the poison is surely left (p = 6.3e-05)" in finding.reason
    assert "-0.25 to 0.25 is tolerated" in finding.reason
    assert f"About {math.ceil(400 * (2.326348 / 20 / 0.05) ** 2):,d} canaries" in finding.reason
    absent = decide(plan(), SANE, [cell(gaussian(0.1, n=50), exposure(0.5))], attacks={})
    assert "surely left" not in absent.findings[0].reason


def test_too_few_canaries_are_inconclusive_and_say_how_many_would_do():
    decision = decide(plan(), SANE, [cell(gaussian(0.3, n=10), exposure(0.5, n=10))], attacks={})
    assert decision.verdict.exit_code == 3
    # (1.6449 + 1.6449)^2 / 0.25^2 = 173.2 is what the mean's two-sided equivalence needs at power
    # 0.9; with that of the scatter 217 (test_squares.py).
    assert decision.findings[0].needed == 217
    assert "10 canaries are too few: with about 217 " in decision.findings[0].reason


def test_overshooting_is_said():
    decision = decide(plan(), SANE, [cell(gaussian(-1), exposure(0.5))], attacks={})
    assert "pushed too far, against the canaries" in decision.findings[0].reason


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
     (80, 0, Outcome.INCONCLUSIVE), (120, 0, Outcome.BROKEN), (100, 60, Outcome.CLEAN),
     (0, 900, Outcome.CLEAN)],
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
    # What clears has all of alpha, on one side; what finds alpha / (2 seeds x 3 probes), of which
    # the scatter of the scores takes a fifth.
    assert decision.findings[0].interval.level == pytest.approx(1 - 2 * 0.05)
    assert decision.findings[2].interval.level == pytest.approx(1 - 2 * 0.05)
    assert decision.findings[3].interval.level == pytest.approx(1 - 0.8 * 0.05 / 6)


def test_any_method_divides_alpha_among_the_repaired():
    cells = [cell(gaussian(1), exposure(0.9))] + [
        cell(gaussian(0), exposure(0.5), utility(), candidate=name, kind=kind)
        for name, kind in (("gd", "method"), ("mine", "candidate"), ("retrained", "reference"))
    ]
    decision = decide(plan(gate="any-method"), SANE, cells, attacks={})
    levels = {f.candidate: f.interval.level for f in decision.findings if f.probe == "gaussian"}
    # Two repaired candidates: each is cleared at half of alpha, found at half over three probes.
    assert levels["gd"] == pytest.approx(1 - 2 * 0.05 / 2)
    worse = [cells[0], cell(gaussian(1), exposure(0.9), utility(), candidate="gd", kind="method")]
    found = decide(plan(gate="any-method"), SANE, [*worse, *cells[2:]], attacks={}).findings
    levels = {f.candidate: f.interval.level for f in found if f.probe == "gaussian"}
    assert levels["gd"] == pytest.approx(1 - 0.8 * 0.05 / 6)


BAD = (gaussian(1), exposure(0.9), utility())


def of_methods(*seen):
    cells = [cell(gaussian(1), exposure(0.9))]
    cells += [cell(*each, candidate=f"m{place}", kind="method") for place, each in enumerate(seen)]
    return decide(plan(gate="any-method"), SANE, cells, attacks={}).verdict


def test_any_method_fails_only_if_every_candidate_surely_fails():
    undecided = (gaussian(0.3), exposure(0.5), utility())
    assert of_methods(*[BAD] * 8).exit_code == 1
    verdict = of_methods(*[BAD] * 8, undecided)
    assert (verdict.outcome, verdict.exit_code) == (Outcome.INCONCLUSIVE, 3)
    assert "these may be: m8" in verdict.sentence
    assert of_methods(*[BAD] * 8, (gaussian(0), exposure(0.5), utility())).exit_code == 0
    broken = (gaussian(0), exposure(0.5), utility(400))
    assert of_methods(BAD, broken).exit_code == 1


def test_equal_weights_share_the_findings_and_their_level():
    # mu 0.37 [0.254, 0.486] over two probes; over three, and two seeds, it would be undecided.
    same = {"digest": "a" * 64}
    cells = [cell(gaussian(0.37), exposure(0.5), **same)]
    cells += [
        cell(
            gaussian(0.37), exposure(0.5), utility(), candidate="gd", kind="method", seed=s, **same
        )
        for s in (0, 1)
    ]
    decision = decide(plan(gate="gd"), SANE, cells, attacks={})
    seen = [f for f in decision.findings if f.probe == "gaussian"]
    assert {f.outcome for f in seen} == {Outcome.RESIDUAL}
    assert len({(f.interval.low, f.interval.level) for f in seen}) == 1
    assert decision.verdict.exit_code == 1


def test_a_reference_is_judged_by_its_poison_and_never_by_its_accuracy():
    teacher = cell(gaussian(0), exposure(0.5), utility(400), candidate="r", kind="reference")
    decision = decide(plan(), SANE, [cell(gaussian(0), exposure(0.5)), teacher], attacks={})
    assert [c.outcome for c in decision.verdict.candidates] == [Outcome.CLEAN] * 2
    told = next(f for f in decision.findings if f.probe == "utility")
    assert (told.outcome, told.gating) == (Outcome.INFO, False)


def test_nothing_to_remove_is_said():
    cells = [
        cell(gaussian(0), exposure(0.5)),
        cell(gaussian(0), exposure(0.5), utility(), candidate="gd", kind="method"),
    ]
    decision = decide(plan(), SANE, cells, attacks={})
    reasons = [f.reason for f in decision.findings if f.candidate == "gd"]
    assert "There was nothing to remove" in reasons[0]


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


@settings(max_examples=26)
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


@pytest.mark.usefixtures("no_sizes")
@pytest.mark.slow
@pytest.mark.parametrize("gate", ["deployed", "any-method"])
@pytest.mark.parametrize("truth", ["clean", "beyond"])
def test_the_exit_code_errs_at_most_at_alpha(gate, truth):
    # Just within and just beyond tolerance, for both probes: Phi(0.2502 / sqrt(2)) = 0.5702.
    mu = 0.2498 if truth == "clean" else 0.2502
    wrong = Outcome.RESIDUAL if truth == "clean" else Outcome.CLEAN
    rng = Rng(11).named(gate, truth).numpy()
    runs, n, errors = 2000 if gate == "deployed" else 400, 300, 0
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
    pairs = rng.multinomial(4000, [0.01 + excess / 5, 0.01, 0.98 - excess / 5], 3)
    return (
        targeted(int(rng.binomial(150, 0.01 + excess)), 150, int(rng.binomial(900, 0.01)), 900),
        backdoor(
            int(hits.sum()),
            n=400,
            clean=int((luck < 0.02).sum()),
            draws=99,
            as_much=int((leaning[1:] >= leaning[0]).sum()),
        ),
        indiscriminate(*[(int(lost), int(gained)) for lost, gained, _ in pairs]),
    )


@pytest.mark.usefixtures("no_sizes")
@pytest.mark.slow
@pytest.mark.parametrize("truth", ["clean", "beyond"])
def test_the_exit_code_errs_at_most_at_alpha_with_every_attack(truth):
    # Just above tolerance: 5.02 points of success, 1.004 of accuracy. A pass errs only if all do.
    rng, runs = Rng(13).named(truth).numpy(), 300
    wrong = Outcome.RESIDUAL if truth == "clean" else Outcome.CLEAN
    errors = {"all": 0, "targeted": 0, "backdoor": 0, "indiscriminate": 0}
    for _ in range(runs):
        seen = simulated_attacks(rng, 0.0498 if truth == "clean" else 0.0502)
        decision = decide(plan(), SANE, [cell(*seen)], attacks={"indiscriminate": 5})
        errors["all"] += decision.verdict.outcome is wrong
        for found in decision.findings:
            errors[found.probe] += found.outcome is wrong
    assert errors["all"] <= 0.05 * runs, errors
    # Binomial(300, 0.05 / 3) exceeds 13 with probability 0.0006.
    assert max(errors["targeted"], errors["indiscriminate"]) <= 13, errors
    # A finding has a third of the error; a pass all of it, since the others have to pass, too:
    # Binomial(300, 0.05) exceeds 27 with probability 0.0013. Only here is it used up.
    assert errors["backdoor"] <= (13 if truth == "clean" else 27), errors


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
