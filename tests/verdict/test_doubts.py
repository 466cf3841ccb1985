"""Doubts: what no probe measures keeps the gate shut, and is said on the first screen."""

import dataclasses

import pytest

from builders.measured import SANE, cell, exposure, gaussian, plan
from builders.some_records import residual
from poison_audit.case.doubts import Doubt
from poison_audit.records import Outcome
from poison_audit.reports.view.view import view
from poison_audit.verdict.decide import decide
from poison_audit.verdict.redecide import redecide

ROWS = Doubt(about="rows", sentence="300 of 700 rows were not looked at.", step="Say why.")
SHIFTED = Doubt(about="adapter", sentence="The labels are shifted.", step="Shift.", spoils=True)


@pytest.mark.parametrize(
    ("mu", "doubts", "expected"),
    [
        (0.0, (), (Outcome.CLEAN, 0)),
        (0.0, (ROWS,), (Outcome.INCONCLUSIVE, 3)),
        (1.0, (ROWS,), (Outcome.RESIDUAL, 1)),
        (1.0, (SHIFTED,), (Outcome.INCONCLUSIVE, 3)),
        (1.0, (ROWS, SHIFTED), (Outcome.INCONCLUSIVE, 3)),
    ],
)
def test_a_doubt_keeps_the_gate_shut_and_what_spoils_keeps_it_from_failing_too(
    mu, doubts, expected
):
    chance = 0.5 + 0.25 * mu
    cells = [cell(gaussian(mu), exposure(chance))]
    verdict = decide(plan(), SANE, cells, attacks={}, doubts=doubts).verdict
    assert (verdict.outcome, verdict.exit_code) == expected
    # What spoils everything is said first.
    if SHIFTED in doubts:
        assert (verdict.sentence, verdict.next_step) == (SHIFTED.sentence, SHIFTED.step)


def test_a_report_that_is_decided_again_keeps_its_doubts_and_shows_those_the_verdict_omits():
    record = dataclasses.replace(residual(), doubts=(ROWS,))
    again = redecide(record, record.plan.policy)
    assert again.verdict.outcome is Outcome.RESIDUAL
    assert again.doubts == (ROWS,)
    assert view(again).doubts == (f"{ROWS.sentence} {ROWS.step}",)
    spoilt = redecide(dataclasses.replace(record, doubts=(SHIFTED,)), record.plan.policy)
    assert spoilt.verdict.exit_code == 3
    assert view(spoilt).doubts == ()
