"""The first words of a report, and what it says of accepted risks."""

from dataclasses import replace

import pytest
from more_records_for_tests import ALL as EVERY
from records_for_tests import clean, inconclusive, residual

from audit.records import Acceptance, Outcome
from reports.accepted import accepted
from reports.answer import answer, how_sure


def gated(record, gate, outcome):
    return replace(record, verdict=replace(record.verdict, gate=gate, outcome=outcome))


def test_the_answer_in_words():
    assert answer(clean()) == "No poison found"
    assert answer(residual()) == "Still poisoned"
    assert answer(inconclusive()) == "Cannot tell whether it is poisoned"
    assert answer(EVERY["unusable"]()) == "Cannot tell: the model does not work as it was loaded"
    assert answer(gated(residual(), "ssd", Outcome.BROKEN)) == (
        "Not usable: it lost too much accuracy (candidate ssd)"
    )
    assert answer(gated(residual(), "any-method", Outcome.CLEAN)) == "A repaired model is clean"


def test_how_sure_it_is():
    told = how_sure(residual())
    assert told.startswith("Of clean models, at most 5 in 100 would be called poisoned.")
    assert "+1.29 [1.13, 1.45], where a model that never saw the poison has 0" in told
    assert "gaussian, exposure" in how_sure(clean())
    assert "never passes" in how_sure(inconclusive())


@pytest.mark.parametrize("name", EVERY)
def test_no_report_is_called_free_of_poison_but_a_clean_one(name):
    record = EVERY[name]()
    assert ("No poison found" in answer(record)) == (
        record.verdict.outcome is Outcome.CLEAN and record.sanity.works
        and record.verdict.gate == "deployed"
    )  # fmt: skip


def with_acceptance(record, decided="2027-01-31", **changes):
    given = {"probe": "gaussian", "candidate": "deployed", "bound": 1.5, "reason": "r",
             "owner": "o", "expires": "2027-01-31", **changes}  # fmt: skip
    policy = replace(record.plan.policy, accepted=(Acceptance(**given),), decided=decided)
    return replace(record, plan=replace(record.plan, policy=policy))


@pytest.mark.parametrize(
    ("record", "changes", "state"),
    [
        (residual(), {}, "does not suffice"),
        (residual(), {"expires": "2027-01-30"}, "expired"),
        (residual(), {"candidate": "nobody"}, "no such finding"),
        (clean(), {}, "not needed"),
        (inconclusive(), {}, "what could not be measured is never accepted"),
    ],
)
def test_the_state_of_an_acceptance(record, changes, state):
    (told,) = accepted(with_acceptance(record, **changes))
    assert state in told.state
    assert told.owner == "o"


def test_an_acceptance_that_covers_its_figure():
    record = with_acceptance(residual())
    first = replace(record.findings[0], outcome=Outcome.ACCEPTED)
    (told,) = accepted(replace(record, findings=(first, *record.findings[1:])))
    assert told.state == "covers the figure"
    assert told.what == "Gaussian of deployed, up to 1.5"
