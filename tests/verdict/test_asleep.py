"""Woken models at the gate: what is asleep, what is undecided, and at which levels."""

from dataclasses import replace

import pytest

from builders.measured import (
    SANE,
    backdoor,
    cell,
    gaussian,
    missing,
    plan,
    utility,
)
from poison_audit.records import Acceptance, Outcome, Woken
from poison_audit.verdict.decide import decide


def woken(*measurements, way="recalibrated", **more):
    return Woken(way=way, samples=2000, measurements=measurements, **more)


def taught(hits, *, poisons=5, lr=0.01, **more):
    seen = backdoor(hits, **more)
    return woken(seen, way="relearned", poisons=poisons, steps=40, lr=lr)


def judged(*cells, reaudit=False, attacks=None, **policy):
    asked = replace(plan(**policy), reaudit=reaudit)
    return decide(asked, SANE, cells, attacks={"backdoor": 9} if attacks is None else attacks)


def candidate(own, *states, kind="candidate", name="c", accuracy=None):
    accuracy = utility() if accuracy is None else accuracy
    return cell(own, accuracy, candidate=name, kind=kind, woken=tuple(states), digest="c" * 64)


DEPLOYED = cell(backdoor(250), digest="d" * 64)
OTHERS = (woken(backdoor(2), way="rounded"), woken(backdoor(2), way="relearned", steps=40, lr=0.01))


@pytest.mark.parametrize(
    ("own", "seen", "expected", "code"),
    [
        (backdoor(2), backdoor(2), Outcome.CLEAN, 0),
        (backdoor(2), backdoor(250), Outcome.ASLEEP, 1),
        (backdoor(2), backdoor(20), Outcome.INCONCLUSIVE, 3),
        (backdoor(20), backdoor(250), Outcome.ASLEEP, 1),  # undecided as it stands
        (backdoor(20), backdoor(2), Outcome.INCONCLUSIVE, 3),
        (backdoor(250), backdoor(2), Outcome.RESIDUAL, 1),
        (backdoor(250), backdoor(250), Outcome.RESIDUAL, 1),
        (backdoor(2), missing("backdoor"), Outcome.INCONCLUSIVE, 3),
        (backdoor(2), replace(backdoor(2), suspect="it is broken"), Outcome.INCONCLUSIVE, 3),
        (backdoor(2), replace(backdoor(250), suspect="it is broken"), Outcome.INCONCLUSIVE, 3),
        (missing("backdoor"), backdoor(250), Outcome.INCONCLUSIVE, 3),
    ],
)
def test_a_woken_model_decides_about_the_one_that_stands(own, seen, expected, code):
    verdict = judged(DEPLOYED, candidate(own, woken(seen)), gate="c").verdict
    assert (verdict.outcome, verdict.exit_code) == (expected, code)


def test_what_is_asleep_is_said_in_plain_words():
    found = judged(DEPLOYED, candidate(backdoor(2), woken(backdoor(250))), gate="c")
    verdict = found.verdict
    assert verdict.sentence.startswith(
        "Candidate c is still poisoned: the poison is only asleep. Asleep: the trigger works "
        "again (100.0%) once BatchNorm's statistics are recomputed on 2,000 clean samples. "
    )
    own, asleep = (f for f in found.findings if f.candidate == "c" and f.probe == "backdoor")
    assert (own.outcome, own.way) == (Outcome.CLEAN, "")
    assert (asleep.outcome, asleep.way, asleep.gating) == (Outcome.ASLEEP, "recalibrated", True)


def test_what_passes_woken_says_so():
    found = judged(DEPLOYED, candidate(backdoor(2), woken(backdoor(2))), gate="c")
    assert "It stayed clean once it was woken (recalibrated)." in found.verdict.candidates[1].reason
    assert found.findings[-1].reason.startswith("Once BatchNorm's statistics are recomputed on")


def test_what_is_awake_as_it_stands_needs_no_waking():
    found = judged(DEPLOYED, candidate(backdoor(250), woken(backdoor(250))), gate="c")
    assert (found.findings[-1].outcome, found.findings[-1].gating) == (Outcome.INFO, False)
    assert found.findings[-1].reason.startswith("The poison is at work in")


def test_the_error_of_finding_is_split_and_that_of_clearing_is_not():
    states = (woken(gaussian(0.0)), woken(gaussian(0.0), way="rounded"))
    own = candidate(gaussian(0.3), *states)
    levels = [f.interval.level for f in judged(DEPLOYED, own, attacks={}).findings[1:]]
    # Own and two woken figures, and utility: four findings. Gaussian figures have two sides, and
    # four fifths of their part beside their scatter.
    assert levels[0] == pytest.approx(1 - 0.8 * 0.05 / 4)
    assert levels[1] == pytest.approx(0.9)  # accuracy: cleared at alpha, on one side
    assert levels[2:] == pytest.approx([0.9, 0.9])


def test_comparisons_with_a_reference_have_a_tenth_of_the_error():
    mine = candidate(backdoor(2), *OTHERS, taught(250), taught(250, poisons=20))
    other = cell(backdoor(2), candidate="r", kind="reference",
                 woken=(taught(2), taught(2, poisons=20)))  # fmt: skip
    found = judged(DEPLOYED, mine, other, reaudit=True, gate="c").findings
    levels = {
        f.way: f.interval.level for f in found if f.candidate == "c" and f.outcome == "ASLEEP"
    }
    assert levels == pytest.approx(dict.fromkeys(("relearned-5", "relearned-20"), 1 - 0.01 / 2))


@pytest.mark.parametrize(
    ("hits", "theirs", "expected", "code"),
    [
        (10, (4,), Outcome.CLEAN, 0),
        (250, (4,), Outcome.ASLEEP, 1),
        (80, (2,), Outcome.ASLEEP, 1),  # 31 points: beyond four tolerances
        (52, (2,), Outcome.INCONCLUSIVE, 3),  # 20 points
        (250, (4, 245), Outcome.CLEAN, 0),  # one that never saw it comes as far
        (250, (4, 90), Outcome.ASLEEP, 1),
        (250, (), Outcome.CLEAN, 0),  # shown alone
    ],
)
def test_what_comes_back_faster_than_in_any_reference_is_asleep(hits, theirs, expected, code):
    mine = candidate(backdoor(2), *OTHERS, taught(hits))
    others = [
        cell(backdoor(2), candidate=f"r{i}", kind="reference", woken=(taught(n),))
        for i, n in enumerate(theirs)
    ]
    verdict = judged(DEPLOYED, mine, *others, reaudit=True, gate="c").verdict
    assert (verdict.outcome, verdict.exit_code) == (expected, code)


def test_a_reference_that_was_given_something_else_is_none():
    mine = candidate(backdoor(2), *OTHERS, taught(250))
    for other in (taught(4, lr=0.001), taught(4, poisons=1), taught(4, n=200)):
        theirs = cell(backdoor(2), candidate="r", kind="reference", woken=(other,))
        found = judged(DEPLOYED, mine, theirs, reaudit=True, gate="c")
        (shown,) = (f for f in found.findings if f.candidate == "c" and f.way == "relearned-5")
        assert (shown.outcome, shown.gating) == (Outcome.INFO, False)
        assert "decides nothing: no reference was given the same" in shown.reason


def test_under_reaudit_what_was_not_woken_does_not_pass():
    found = judged(cell(backdoor(2)), reaudit=True)
    assert found.verdict.outcome is Outcome.INCONCLUSIVE
    ways = {f.way for f in found.findings if f.outcome is Outcome.NOT_MEASURED}
    assert ways == {"rounded", "relearned"}
    assert judged(cell(backdoor(2), woken=OTHERS), reaudit=True).verdict.exit_code == 0
    assert judged(cell(backdoor(2))).verdict.exit_code == 0


def test_an_accepted_bound_holds_for_a_woken_model_and_no_further():
    risk = Acceptance(
        probe="backdoor", candidate="c", bound=0.4, reason="until it is retrained", owner="R",
        expires="2027-01-31",
    )  # fmt: skip
    asked = {"gate": "c", "accepted": (risk,), "decided": "2027-01-01"}
    within = candidate(backdoor(60), woken(backdoor(60)))
    assert judged(DEPLOYED, within, **asked).verdict.outcome is Outcome.ACCEPTED
    beyond = candidate(backdoor(60), woken(backdoor(250)))
    assert judged(DEPLOYED, beyond, **asked).verdict.outcome is Outcome.ASLEEP
