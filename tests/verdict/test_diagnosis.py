"""What the figures are said to mean: every row of the tables of rules."""

import itertools

import pytest

from poison_audit.records import Finding, Interval, Outcome
from poison_audit.verdict.diagnosis import diagnosis, method_diagnosis


def moved(covered, aligned, apart=0.2):
    missing = {"covered": "needs a reference"} if covered is None else {}
    return {"covered": covered, "aligned": aligned, "apart": apart, "missing": missing}


@pytest.mark.parametrize(
    ("figures", "told"),
    [
        (moved(None, None, None), "Not measured: needs a reference."),
        (moved(0.0, None), "It did not move the weights at all."),
        (moved(0.9, 0.9, 0.5), "the needed shift is mostly the luck of a start"),
        (moved(0.5, 0.3), "50.0% of the needed shift (cosine 0.30): most of the way."),
        (moved(0.49, 0.5), "the right way, too short. More budget may help."),
        (moved(0.1, 0.1), "More budget alone is unlikely to suffice."),
        (moved(0.01, 0.09), "another method or retraining might."),
        (moved(-0.01, -0.09), "another method or retraining might."),
        (moved(-0.01, -0.1), "it moved away. More budget of the same may make it worse."),
        (moved(0.5, 0.9, None), "With one reference it is not known how much"),
    ],
)
def test_one_method(figures, told):
    assert told in method_diagnosis(figures)


def test_only_what_is_known_is_concluded():
    assert "budget" not in method_diagnosis(moved(0.9, 0.9, 1.0))
    assert "one reference" not in method_diagnosis(moved(0.9, 0.9, 0.1))


def finding(ratio, p_value):
    if ratio is None:
        return Finding(probe="", candidate="", seed=0, outcome=Outcome.NOT_MEASURED, reason="")
    return Finding(
        probe="", candidate="", seed=0, outcome=Outcome.INFO, reason="", statistic=ratio, null=1.0,
        interval=Interval(low=ratio, high=ratio, level=0.95), p_value=p_value,
    )  # fmt: skip


FURTHER, AS_FAR = finding(1.5, 0.02), finding(1.5, 0.06)
BEYOND, WITHIN = finding(0.5, 0.02), finding(0.5, 0.06)
UNKNOWN = finding(None, None)


@pytest.mark.parametrize(
    ("shift", "orthogonality", "told"),
    [
        (FURTHER, BEYOND, "retraining is the safe answer"),
        (FURTHER, WITHIN, "More budget may help"),
        (AS_FAR, BEYOND, "a method that uses the forget set might"),
        (AS_FAR, WITHIN, "cannot be told from ordinary samples"),
        (finding(0.5, 0.01), WITHIN, "cannot be told from ordinary samples"),  # the wrong side
        (AS_FAR, finding(1.5, 0.01), "cannot be told from ordinary samples"),
        (FURTHER, UNKNOWN, "In which direction was not measured"),
        (AS_FAR, UNKNOWN, "does not surely move"),
        (UNKNOWN, BEYOND, "How far was not measured"),
        (UNKNOWN, WITHIN, "How far it has to move was not measured"),
        (UNKNOWN, UNKNOWN, "Neither hypothesis could be measured"),
    ],
)
def test_the_whole(shift, orthogonality, told):
    assert told in diagnosis(shift, orthogonality)


def test_every_answer_is_another_one():
    pairs = itertools.product((FURTHER, AS_FAR, UNKNOWN), (BEYOND, WITHIN, UNKNOWN))
    assert len({diagnosis(*pair) for pair in pairs}) == 9
