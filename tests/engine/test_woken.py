"""A trigger that is hidden and not gone is asleep, in the deployed model and in a candidate."""

from dataclasses import replace

import pytest

from builders import asleep
from builders.measured import SANE
from poison_audit.checks.waking import ALONE, RECALIBRATED, TAUGHT
from poison_audit.engine import waking
from poison_audit.engine.measuring import probed
from poison_audit.engine.waking import awake, rate_of, wake, ways
from poison_audit.errors import DivergedError
from poison_audit.models.seeds import Rng
from poison_audit.records import Outcome
from poison_audit.verdict.decide import decide


def judged(*cells, plan):
    return decide(plan, SANE, cells, attacks={"backdoor": 30})


@pytest.mark.parametrize("way", asleep.HIDINGS)
def test_each_hiding_is_asleep_in_the_deployed_model(way, monkeypatch):
    monkeypatch.setattr(waking, "TAUGHT", ())  # they decide nothing without a reference
    model, plan = asleep.HIDINGS[way](), asleep.plan(reaudit=True)
    found = judged(asleep.cell_of(model, asleep.incident(model), plan, "deployed"), plan=plan)
    assert (found.verdict.outcome, found.verdict.exit_code) == (Outcome.ASLEEP, 1)
    own = next(f for f in found.findings if f.probe == "backdoor")
    assert (own.outcome, own.way) == (Outcome.CLEAN, "")
    assert way in {f.way for f in found.findings if f.outcome is Outcome.ASLEEP}


def test_a_repaired_candidate_is_recalibrated_without_being_asked():
    awake, model, plan = asleep.net(), asleep.spoiled(), asleep.plan(reaudit=False)
    case = asleep.incident(awake)
    cells = [
        asleep.cell_of(awake, case, plan, "deployed"),
        asleep.cell_of(model, case, plan, "candidate", "c"),
    ]
    assert [len(cell.woken) for cell in cells] == [1, 1]
    gate = replace(plan, policy=replace(plan.policy, gate="c"))
    found = judged(*cells, plan=gate)
    assert found.verdict.outcome is Outcome.ASLEEP
    assert [c.outcome for c in found.verdict.candidates] == [Outcome.RESIDUAL, Outcome.ASLEEP]


def test_a_deployed_model_that_was_repaired_elsewhere_is_recalibrated_without_being_asked():
    model, plan = asleep.spoiled(), asleep.plan(reaudit=False)
    found = judged(asleep.cell_of(model, asleep.incident(model), plan, "deployed"), plan=plan)
    assert (found.verdict.outcome, found.verdict.exit_code) == (Outcome.ASLEEP, 1)


def test_a_model_that_never_saw_the_trigger_passes_awake_as_well(monkeypatch):
    monkeypatch.setattr(waking, "TAUGHT", ())
    model, plan = asleep.net(poisoned=False), asleep.plan(reaudit=True)
    found = judged(asleep.cell_of(model, asleep.incident(model), plan, "deployed"), plan=plan)
    assert found.verdict.exit_code == 0
    told = found.verdict.candidates[0].reason
    assert told.endswith("It stayed clean once it was woken (recalibrated, rounded, relearned).")


def test_who_is_woken_and_how():
    plan, full = asleep.plan(reaudit=False), asleep.plan(reaudit=True)
    normed, bare = asleep.net(), asleep.net(norm=False)
    assert ways("reference", normed, plan) == ()
    for kind in ("deployed", "method", "candidate"):
        assert ways(kind, normed, plan) == (RECALIBRATED,)
    assert ways("method", bare, plan) == ways("method", normed, plan, same=True) == ()
    assert ways("deployed", normed, full) == ways("method", normed, full) == (*ALONE, *TAUGHT)
    assert ways("deployed", bare, full) == (*ALONE[1:], *TAUGHT)
    assert ways("reference", normed, full) == TAUGHT


def test_what_could_not_be_woken_says_why(monkeypatch):
    model, plan = asleep.net(), asleep.plan(reaudit=True, draws=20, inputs=40)
    case = asleep.incident(model)

    def told(how, **more):
        (one,) = wake(model, case, plan, Rng(0), [how], **more).woken
        return one.measurements[0]

    monkeypatch.setattr(waking, "rate", lambda *_: None)
    assert rate_of(case, plan, []) is None
    assert "at no learning rate" in told(ALONE[2]).missing
    case = replace(case, forget=case.forget.at([0]))
    assert "fewer than 5 samples" in told(TAUGHT[1], lr=0.01).missing
    case = replace(case, retain=case.retain.at([]))
    assert "no clean samples" in told(RECALIBRATED).missing

    def fails(*_, **__):
        raise DivergedError("the loss is not finite by step 4")

    monkeypatch.setattr(waking, "woken", fails)
    assert told(ALONE[1]).missing == (
        "the model diverged when it was woken: the loss is not finite by step 4"
    )


def test_a_model_that_waking_breaks_shows_nothing(monkeypatch):
    model, plan = asleep.net(), asleep.plan(reaudit=True, draws=20, inputs=40)
    case, shares = asleep.incident(model), [0.9, 0.7]
    monkeypatch.setattr(waking, "right", lambda *_: shares.pop(0))
    (one,) = wake(model, case, plan, Rng(0), [ALONE[1]]).woken
    assert one.measurements[0].suspect == "woken, it loses 20 points of accuracy"
    # Nobody asked: its training may have frozen BatchNorm with statistics of other data.
    shares += [0.9, 0.7]
    assert wake(model, case, plan, Rng(0), [RECALIBRATED], unasked=True).woken == ()


def test_a_model_in_which_poison_is_at_work_is_not_woken_and_never_passes_for_it():
    model, plan = asleep.net(), asleep.plan(reaudit=False)
    case, rng = asleep.incident(model), Rng(0)
    seen, _ = probed(model, case, plan, rng)
    quiet, _ = probed(asleep.net(poisoned=False), case, plan, rng)
    assert awake(seen, plan)
    assert not awake(quiet, plan)
    assert wake(model, case, plan, rng, [RECALIBRATED], awake=True, unasked=True).woken == ()
    woken = wake(model, case, plan, rng, [RECALIBRATED], awake=True).woken
    deployed = asleep.cell_of(model, case, plan, "deployed")
    for measured, outcome, gating in (
        (seen, Outcome.RESIDUAL, False), (quiet, Outcome.INCONCLUSIVE, True),
    ):  # fmt: skip
        cell = replace(deployed, candidate="c", kind="candidate", measurements=measured)
        gate = replace(plan, policy=replace(plan.policy, gate="c"))
        found = judged(deployed, replace(cell, digest="0" * 64, woken=woken), plan=gate)
        assert found.verdict.candidates[1].outcome is outcome
        (one,) = [f for f in found.findings if f.way and f.candidate == "c"]
        assert one.gating is gating
