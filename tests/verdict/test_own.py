"""Probes of a user's own can make a verdict worse, and nothing better."""

from dataclasses import replace

import pytest
from hypothesis import given, settings

from builders.audits import OWN_OTHER, OWN_STEP, audits
from builders.measured import SANE, cell, exposure, gaussian, plan, utility
from poison_audit.checks.own import is_own
from poison_audit.models.seeds import Rng
from poison_audit.records import WORST_FIRST, Measurement, Outcome
from poison_audit.reports.view.answer import answer, how_sure
from poison_audit.verdict.decide import decide
from poison_audit.verdict.judge import Errors
from poison_audit.verdict.own import judge_own
from poison_audit.verdict.redecide import redecide
from poison_audit.verdict.rehearsal import NAME as NAME_OF_COPY
from poison_audit.verdict.rehearsal import decide_rehearsal

NAME = f"own:{OWN_STEP.name}"
CLEAN = (gaussian(0.0), exposure(0.5))


def _seen(wins, draws=16):
    return Measurement(probe=NAME, evidence={"wins": list(wins), "draws": draws})


def _always(share, n=400, draws=16):
    """Every score above the same share of its controls: no spread, so that of the null counts."""
    return _seen([round(share * draws)] * n, draws)


def _judged(*cells, **policy):
    asked = replace(plan(**policy), own=(OWN_STEP,))
    decision = decide(asked, SANE, cells, attacks={})
    return decision, [f for f in decision.findings if is_own(f.probe)]


# The null's standard deviation is sqrt(18 / 192) = 0.306, at 400 scores 0.0153. The error of
# finding is 0.05 / 10 = 0.005, so that the quantile is 2.5758, and half the interval 0.0394.
@pytest.mark.parametrize(
    ("share", "outcome", "code"),
    [
        (10 / 16, Outcome.RESIDUAL, 1),  # [0.586, 0.664]
        (9 / 16, Outcome.INCONCLUSIVE, 3),  # [0.523, 0.602]: above 0.5, and reaches beyond 0.57
        (8 / 16, Outcome.INFO, 0),
        (2 / 16, Outcome.INFO, 0),  # below its controls is nothing that it looked for
    ],
)
def test_outcome_by_interval(share, outcome, code):
    decision, (found,) = _judged(replace(cell(*CLEAN, utility()), own=(_always(share),)))
    assert found.outcome is outcome
    assert decision.verdict.exit_code == code
    assert found.interval.high - found.interval.low == pytest.approx(2 * 0.0394, abs=1e-4)


def test_a_small_effect_that_is_surely_tolerated_decides_nothing():
    decision, (found,) = _judged(
        replace(cell(*CLEAN), own=(_seen([8] * 9_000 + [9] * 3_000),))  # 0.516 +- 0.0072
    )
    assert found.outcome is Outcome.INFO
    assert "That clears nothing." in found.reason
    assert decision.verdict.exit_code == 0


def test_alone_it_clears_nothing():
    decision, (found,) = _judged(replace(cell(), own=(_always(0.5),)))
    assert found.outcome is Outcome.INFO
    assert decision.verdict.outcome is Outcome.INCONCLUSIVE
    assert "No probe could measure the poison" in decision.verdict.sentence


@pytest.mark.parametrize("why", ["it raised ValueError", None])
def test_what_it_could_not_answer_never_passes(why):
    lost = (Measurement(probe=NAME, evidence=None, missing=why),) if why else ()
    decision, (found,) = _judged(replace(cell(*CLEAN), own=lost))
    assert (found.outcome, decision.verdict.exit_code) == (Outcome.FAILED, 3)
    assert f"since {why or 'it was not asked'}. What was asked for" in found.reason


def test_exit_zero_lets_nothing_through_that_would_not_pass_without_it():
    poisoned = replace(cell(gaussian(0.2), exposure(0.5)), own=(_always(12 / 16),))
    decision, _ = _judged(poisoned, exit_zero=True)
    assert (decision.verdict.outcome, decision.verdict.exit_code) == (Outcome.RESIDUAL, 1)
    assert decide(plan(exit_zero=True), SANE, [poisoned], attacks={}).verdict.exit_code == 3
    decision, _ = _judged(replace(poisoned, measurements=CLEAN), exit_zero=True)
    assert (decision.verdict.outcome, decision.verdict.exit_code) == (Outcome.RESIDUAL, 0)


def test_a_reference_in_which_it_finds_the_same_refutes_its_null():
    own = (_always(12 / 16),)
    reference = replace(cell(*CLEAN), candidate="ref", kind="reference")
    poisoned = replace(cell(*CLEAN), own=own)
    decision, found = _judged(poisoned, replace(reference, own=own))
    assert [f.outcome for f in found] == [Outcome.INCONCLUSIVE] * 2
    assert [f.gating for f in found] == [True, False]
    assert "ref as well, which never saw the poison: its null is wrong" in found[0].reason
    assert decision.verdict.exit_code == 3
    decision, found = _judged(poisoned, replace(reference, own=(_always(0.5),)))
    assert [f.outcome for f in found] == [Outcome.RESIDUAL, Outcome.INFO]
    assert decision.verdict.exit_code == 1


def test_a_rehearsal_is_not_asked():
    copy = cell(*CLEAN, candidate=NAME_OF_COPY)
    asked = replace(plan(), own=(OWN_STEP,))
    findings, (verdict,) = decide_rehearsal(asked, [copy], planted=400, held=True)
    assert not [f for f in findings if is_own(f.probe)]
    assert verdict.outcome is Outcome.CLEAN


@settings(max_examples=10, deadline=None)
@given(audits())
def test_it_makes_nothing_better_and_moves_no_finding_of_ours(record):
    without = replace(record, plan=replace(record.plan, own=()))
    ours = redecide(without, without.plan.policy)
    assert ours.findings == tuple(f for f in record.findings if not is_own(f.probe))
    rank = [WORST_FIRST.index(each.verdict.outcome) for each in (record, ours)]
    codes = [each.verdict.exit_code for each in (record, ours)]
    assert rank[0] <= rank[1]
    assert codes[0] or not codes[1]
    assert {f.outcome for f in record.findings if is_own(f.probe)} <= {
        Outcome.RESIDUAL, Outcome.INCONCLUSIVE, Outcome.FAILED, Outcome.INFO,
    }  # fmt: skip
    worse = [
        WORST_FIRST.index(new.outcome) <= WORST_FIRST.index(old.outcome)
        for new, old in zip(record.verdict.candidates, ours.verdict.candidates, strict=True)
    ]
    assert all(worse)


def test_by_chance_it_calls_one_clean_model_in_two_hundred_poisoned():
    """Uniform ranks, 1,000 audits by two probes: a tenth of alpha finds anything at all."""
    asked, found = replace(plan(), own=(OWN_STEP, OWN_OTHER)), 0
    for wins in Rng(3).numpy().integers(0, 17, (1_000, 2, 60)):
        own = tuple(
            Measurement(probe=f"own:{step.name}", evidence={"wins": w.tolist(), "draws": 16})
            for step, w in zip(asked.own, wins, strict=True)
        )
        seen = judge_own(cell(own=own), asked, Errors(clearing=0.05, finding=0.05), ())
        found += any(f.gating for f in seen)
    # 1,000 x 0.005 = 5 expected: by the binomial from 1 to 13 in 99% of such tests.
    assert 1 <= found <= 13


def test_the_answer_says_whose_finding_it_is(make_record):
    record = make_record(_always(12 / 16))
    assert answer(record) == "Called poisoned by a probe of your own, and by none of ours"
    assert "Probes of your own add 0.5 in 100 to that, and only if the nulls" in how_sure(record)


@pytest.fixture
def make_record():
    from builders.audits import small_audit

    def make(seen):
        small = small_audit()
        cells = (replace(cell(*CLEAN), own=(seen,)),)
        record = replace(small, plan=replace(plan(), own=(OWN_STEP,)), cells=cells, findings=())
        return redecide(record, record.plan.policy)

    return make
