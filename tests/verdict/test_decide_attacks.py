"""Each attack's probe at the gate: what it decides, what it says, and attacks that grew."""

import pytest

from builders.measured import (
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
from poison_audit.records import Acceptance, Outcome
from poison_audit.verdict.decide import decide


@pytest.mark.parametrize(
    ("measurement", "expected"),
    [
        (targeted(2), Outcome.CLEAN),
        (targeted(60), Outcome.RESIDUAL),
        (targeted(1, n=20), Outcome.INCONCLUSIVE),
        (targeted(20, n=20), Outcome.RESIDUAL),
        (targeted(7, n=8, control_hits=0, controls=8), Outcome.RESIDUAL),
        (targeted(30, n=60, control_hits=24, controls=60), Outcome.INCONCLUSIVE),
        # Other samples of the class are no controls for targets that were chosen.
        (targeted(60, drawn=False), Outcome.INCONCLUSIVE),
        (targeted(200, drawn=False), Outcome.INCONCLUSIVE),
        (targeted(2, drawn=False), Outcome.CLEAN),
        # However often those are hit: the excess is at most the hit rate, and may be all of it.
        (targeted(20, control_hits=200, drawn=False), Outcome.INCONCLUSIVE),
        (targeted(60, drawn=False, references=(1,)), Outcome.RESIDUAL),
        (targeted(60, drawn=False, references=(1, 3)), Outcome.RESIDUAL),
        (targeted(60, drawn=False, references=(1, 55)), Outcome.INCONCLUSIVE),
        (targeted(60, drawn=False, references=(60,)), Outcome.CLEAN),
        (targeted(7, n=8, drawn=False, references=(0,)), Outcome.RESIDUAL),
        # A toss says more than references do.
        (targeted(60, references=(60,)), Outcome.RESIDUAL),
        (backdoor(2), Outcome.CLEAN),
        (backdoor(250), Outcome.RESIDUAL),
        (backdoor(250, draws=9), Outcome.INCONCLUSIVE),  # 1 in 10 at best
        (backdoor(250, as_much=199), Outcome.INCONCLUSIVE),  # its controls wake it
        (backdoor(250, as_much=199, references=(1,)), Outcome.RESIDUAL),
        (backdoor(250, as_much=199, references=(1, 3)), Outcome.RESIDUAL),
        (backdoor(250, as_much=199, references=(1, 250)), Outcome.INCONCLUSIVE),
        (backdoor(250, as_much=199, references=(1,), theirs_as_much=9), Outcome.INCONCLUSIVE),
        (backdoor(2, references=(0, 2)), Outcome.CLEAN),
        (backdoor(9, n=40, clean=1), Outcome.RESIDUAL),
        # It was moved: class 2 gets 70%, and right answers are 34 points fewer.
        (backdoor(2, moved=175, lost=85), Outcome.RESIDUAL),
        (backdoor(2, lost=85), Outcome.RESIDUAL),
        (backdoor(2, lost=10), Outcome.INCONCLUSIVE),
        (backdoor(2, frail=0.2), Outcome.INCONCLUSIVE),
        # The user's network: 100% against 8% without.
        (backdoor(250, clean=20), Outcome.RESIDUAL),
        # Of 4,000 samples. One reference tells nothing of the luck of a training.
        (indiscriminate((20, 20)), Outcome.INCONCLUSIVE),
        (indiscriminate((200, 20)), Outcome.INCONCLUSIVE),
        # Student's 2.92 of two degrees of freedom, times sqrt(4/3): sd .05 points reach .17, and
        # the sampling of 40 discordant pairs .26; sd .5 points reach 1.7.
        (indiscriminate((20, 20), (22, 20), (20, 22)), Outcome.CLEAN),
        (indiscriminate((200, 20), (202, 20), (200, 22)), Outcome.RESIDUAL),
        (indiscriminate((20, 20), (40, 20), (20, 40)), Outcome.INCONCLUSIVE),
        (indiscriminate((200, 20), (20, 20)), Outcome.INCONCLUSIVE),  # one reference is as bad
        (indiscriminate((20, 200), (20, 202), (22, 200)), Outcome.CLEAN),  # better is no harm
        (indiscriminate((2, 0), (2, 0), n=100), Outcome.INCONCLUSIVE),
    ],
)
def test_each_attack_probe_gates_the_deployed_model(measurement, expected):
    decision = decide(plan(), SANE, [cell(measurement)], attacks={measurement.probe: 9})
    assert decision.verdict.outcome is expected
    assert decision.findings[0].interval.level == pytest.approx(0.9)  # one test, one-sided


def test_attack_probes_say_what_would_decide_them():
    def reason(measurement):
        return decide(plan(), SANE, [cell(measurement)], attacks={}).findings[0].reason

    assert "points (90% interval" in reason(targeted(60))
    assert "all within the tolerance (up to 5 points)" in reason(backdoor(2))
    assert "10 targets are too few: with about" in reason(targeted(0, n=10))
    alone = reason(targeted(60, drawn=False, chose=["r0"]))
    assert "surely left" not in alone
    assert "(--reference PATH), or controls that a toss left alone" in alone
    assert "Nothing is compared with r0: the targets are those it is least sure of" in alone
    paired = reason(targeted(60, drawn=False, references=(1, 3)))
    assert "Targets hit, above the references: 29.0 points (" in paired
    assert "without the poison are hit: 1 (r0), 3 (r1)." in paired
    # At .05, of which the label has .6: 1 / .03 - 1 controls.
    assert "takes 33 of them (draws)" in reason(backdoor(250, draws=9))
    assert "Of 199 control patterns 50 raise the label as much" in reason(backdoor(250, as_much=50))
    assert "Inputs that the trigger turns to class 2" in reason(backdoor(2, moved=175))
    assert "alone cost 20% of right answers" in reason(backdoor(2, frail=0.2))
    earlier = backdoor(250)
    del earlier.evidence["looks"]
    assert "probe the model again" in reason(earlier)
    assert outcome_of(earlier)[0] is Outcome.INCONCLUSIVE
    few = indiscriminate((2, 0), (2, 0), n=100)
    assert "; up to 1 point is tolerated." in reason(few)
    assert "100 test samples are too few: with about" in reason(few)


def test_one_reference_speaks_of_two_checkpoints_and_decides_nothing():
    def told(*pairs):
        seen = decide(plan(), SANE, [cell(indiscriminate(*pairs))], attacks={"indiscriminate": 9})
        return seen.findings[0].reason

    # Deficit 4.5, tolerance 1. Student's .95 quantiles are 6.314 and 2.920: at an sd of .86 points
    # two references reach 6.314 * .86 * sqrt(3/2) = 6.65 > 3.5, three 2.90.
    one = told((200, 20))
    assert "These two checkpoints differ by 4.50 points on such samples (3.9" in one
    assert "If its sd is 0.86 points, as elsewhere, 3 references would decide" in one
    assert "surely left" not in one
    # At a deficit of 0 even luck that is known reaches 1.645 * .86 = 1.41 > 1.
    assert "no number of references would decide" in told((20, 20))
    # Deficits of 3 and 2 points: sd .707, 1.5 away. Three reach 2.384, four 2.353 * .7906 = 1.860,
    # five 2.132 * .7746 = 1.651, six 2.015 * .7638 = 1.539, seven 1.943 * .7559 = 1.469.
    two = told((140, 20), (100, 20))
    assert "By luck alone the 2 references differ, with an sd of 0.71 points." in two
    assert "At that luck 7 references would decide about a deficit of this size." in two
    assert "More test samples alone would not decide it." in two


def test_an_acceptance_covers_no_luck_that_was_not_measured():
    accepted = Acceptance(
        probe="indiscriminate", candidate="deployed", bound=0.2, reason="r", owner="o",
        expires="2030-01-01",
    )  # fmt: skip
    policy = {"accepted": (accepted,), "decided": "2029-01-01"}
    named = {"indiscriminate": 9}
    assert outcome_of(indiscriminate((200, 20)), attacks=named, **policy)[1] == 3
    three = indiscriminate((200, 20), (202, 20), (200, 22))
    assert outcome_of(three, attacks=named, **policy)[0] is Outcome.ACCEPTED


def test_a_trigger_that_a_reference_answers_alike_is_no_finding():
    def found(*references):
        seen = backdoor(200, clean=10, references=references)  # 80%, controls 0.8%
        return decide(plan(), SANE, [cell(seen)], attacks={}).findings[0]

    assert found().outcome is Outcome.RESIDUAL
    assert found(5).outcome is Outcome.RESIDUAL  # 2%
    # 187 of 250 are 74.8%, more than 5 points less; 188 are 75.2%.
    assert found(187).outcome is Outcome.RESIDUAL
    alike = found(5, 188)
    assert alike.outcome is Outcome.INCONCLUSIVE
    assert "But r1, which never saw the poison, gives 75.20%" in alike.reason
    assert alike.reason.startswith("No conclusion. The difference that the trigger makes")


def test_a_backdoor_says_what_decided():
    def found(*references, **more):
        seen = backdoor(250, references=references, **more)
        return decide(plan(), SANE, [cell(seen)], attacks={}).findings[0]

    assert "(--reference PATH)" in found(as_much=199).reason
    two = found(1, 4, as_much=199)
    assert "Models that never saw the poison give it to at most 1.6%" in two.reason
    assert [(r["reference"], r["rate"], r["rise"]) for r in two.details["references"]] == [
        ("r0", 1 / 250, 1 / 250), ("r1", 4 / 250, 4 / 250),
    ]  # fmt: skip
    # The lower end, less the upper end of the reference that rises most.
    assert two.interval.low < 0.99 - 4 / 250
    patterns = found(200)
    assert patterns.outcome is Outcome.RESIDUAL
    assert "Of 199 control patterns none do as much" in patterns.reason
    assert "--reference" not in found(250, as_much=199).reason


@pytest.mark.parametrize("probe", ["token-canary", "targeted", "backdoor", "indiscriminate"])
def test_missing_attack_evidence_gates_only_if_it_is_required(probe):
    seen = (gaussian(0), exposure(0.5), missing(probe))
    assert outcome_of(*seen, attacks={"gaussian": 5})[1] == 0
    assert outcome_of(*seen, attacks={"gaussian": 5, probe: 1})[1] == 3


def test_accuracy_below_a_reference_decides_only_where_that_is_the_attack():
    bad = indiscriminate((200, 20), (202, 20), (200, 22))
    seen = (gaussian(0), exposure(0.5), bad)
    assert outcome_of(*seen, attacks={"gaussian": 5})[1] == 0
    assert outcome_of(*seen, attacks={"gaussian": 5, "indiscriminate": 5})[1] == 1
    # Nor does it take a share of alpha from those that decide.
    intervals = [
        decide(plan(), SANE, [cell(*given)], attacks={"gaussian": 5}).findings[0].interval
        for given in (seen, seen[:2])
    ]
    assert intervals[0] == intervals[1]
    # Accuracy alone cannot clear a model of poison that nobody named.
    assert outcome_of(indiscriminate((20, 20), (22, 20), (20, 22)), attacks={"": 5})[1] == 3


def activation(before, after, kind="method"):
    cells = [cell(before), cell(after, utility(), candidate="gd", kind=kind)]
    named = {"indiscriminate": 5} if after.probe == "indiscriminate" else {}
    decision = decide(plan(gate="gd"), SANE, cells, attacks=named)
    (found,) = (f for f in decision.findings if f.candidate == "gd" and f.probe == after.probe)
    if kind == "reference":  # a yardstick is no gate
        assert decision.verdict.exit_code == 3
    else:
        assert decision.verdict.outcome is found.outcome
        assert decision.verdict.exit_code == 1
    return found


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        # Differences of like quantiles have no spread: the interval is the point 1.5.
        (gaussian(0.5), gaussian(2), "by 1.50 (98% interval 1.50 to 1.50): 2.00 now, 0.50 there"),
        (exposure(0.6), exposure(0.9), "0.90 now, 0.60 there"),
        (targeted(60), targeted(160), "by 50.0 points"),
        (backdoor(100), backdoor(250), "100.0 now, 40.0 there"),
    ],
)
def test_an_attack_that_grew_is_activated(before, after, told):
    for kind in ("method", "candidate"):
        found = activation(before, after, kind)
        assert found.outcome is Outcome.ACTIVATED
        assert told in found.reason


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (gaussian(2), gaussian(2)),
        (gaussian(0.9), gaussian(1.1)),  # by less than the tolerance
        (gaussian(-1), gaussian(-2)),  # overshot further
        (backdoor(240), backdoor(250)),
        (targeted(60, n=200), targeted(100, n=100)),  # not the same samples
        (indiscriminate(*[(200, 20)] * 3), indiscriminate(*[(900, 20)] * 3)),  # utility's matter
        (missing("backdoor"), backdoor(250)),
    ],
)
def test_an_attack_that_did_not_surely_grow_stays_residual(before, after):
    assert activation(before, after).outcome is Outcome.RESIDUAL


def test_only_repairs_activate():
    assert activation(backdoor(100), backdoor(250), "reference").outcome is Outcome.RESIDUAL


def test_too_few_pairs_do_not_activate():
    few = activation(targeted(11, n=20, control_hits=0), targeted(14, n=20, control_hits=0))
    assert few.outcome is Outcome.RESIDUAL
