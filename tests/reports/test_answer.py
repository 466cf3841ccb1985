"""The first words of a report, and what it says of accepted risks."""

from dataclasses import replace

import pytest

from builders import machine_records as machine
from builders.more_records import ALL as EVERY
from builders.some_records import clean, inconclusive, residual, several_seeds
from poison_audit.records import Acceptance, Outcome
from poison_audit.reports.page.html import render_html
from poison_audit.reports.view.accepted import accepted
from poison_audit.reports.view.answer import answer, how_sure, untested
from poison_audit.reports.view.answer import tested as looked_for
from poison_audit.verdict.readings import READINGS


def only(record, candidate):
    """Return a record in which any repair may pass, and there is one."""
    verdict = record.verdict
    kept = tuple(c for c in verdict.candidates if c.candidate == candidate)
    gated = replace(verdict, gate="any-method", outcome=kept[0].outcome, candidates=kept)
    return replace(record, verdict=gated)


def all_tested(record):
    """Return a record in which the deployed model has a figure of every poison."""
    (one,) = [f for f in record.findings if (f.candidate, f.probe) == ("deployed", "gaussian")]
    others = [replace(one, probe=name) for name in READINGS]
    return replace(record, findings=(*record.findings, *others))


def test_what_was_looked_for_and_what_was_not():
    assert looked_for(clean()) == "memory of planted noise (gaussian, exposure)"
    assert "a trigger that still works (backdoor)" in untested(clean())
    assert "token canaries" not in untested(clean())  # pictures
    assert untested(all_tested(clean())) == ""


def gated(record, gate, outcome):
    return replace(record, verdict=replace(record.verdict, gate=gate, outcome=outcome))


def test_the_answer_in_words():
    assert answer(clean()) == "No poison found in what was tested"
    assert answer(all_tested(clean())) == "No poison found"
    assert answer(residual()) == "Still poisoned"
    assert answer(inconclusive()) == "Cannot tell whether it is poisoned"
    assert answer(EVERY["unusable"]()) == "Cannot tell: the model does not work as it was loaded"
    assert answer(gated(residual(), "ssd", Outcome.BROKEN)) == (
        "Not usable: it lost too much accuracy (candidate ssd)"
    )
    assert answer(gated(residual(), "any-method", Outcome.CLEAN)) == "A repaired model is clean"


def test_how_sure_it_is():
    told = how_sure(residual())
    assert told == "At most 5 in 100 clean models would be called poisoned."
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


def test_how_sure_it_is_of_other_verdicts():
    told = how_sure(gated(residual(), "ssd", Outcome.BROKEN))
    assert told.startswith("At most 5 in 100 models that still work would be called broken.")
    alone = only(residual(), "ssd")
    assert "lost 39.0 [38.3, 39.7] points; up to 2 is" in how_sure(alone)
    # 0.24 -+ 0.158, against -0.25 to 0.25
    told = how_sure(only(residual(), "neggrad_plus"))
    assert "What was measured: memory of planted noise" in told
    assert told.endswith("has 0; -0.25 to 0.25 is tolerated.")
    told = how_sure(gated(residual(), "any-method", Outcome.RESIDUAL))
    assert "memory of planted noise of gd (Gaussian" in told
    accepted = machine.accepted()
    # The verdict's own sentence has the figure.
    assert how_sure(accepted).endswith("models with more poison than was accepted would pass.")
    repaired = tuple(replace(c, kind="method") for c in accepted.verdict.candidates)
    verdict = replace(accepted.verdict, gate="any-method", candidates=repaired)
    told = how_sure(replace(accepted, verdict=verdict))
    assert told.endswith("is tolerated, and up to 0.5 is accepted until 2027-03-31.")


def test_a_figure_whose_control_failed_is_not_told():
    record = gated(residual(), "neggrad_plus", Outcome.INCONCLUSIVE)
    told = how_sure(suspect(record, "neggrad_plus"))
    assert "A control failed" in told
    assert "0.24" not in told


def test_a_repair_that_overshot_is_not_called_poisoned():
    # ga: -0.71 -+ 0.158 and 0.381 -+ 0.047 both lie below what a clean model has
    assert answer(gated(residual(), "ga", Outcome.RESIDUAL)) == (
        "Not clean: pushed too far away from the poison (candidate ga)"
    )
    one_side = [
        replace(f, interval=replace(f.interval, low=0.52, high=0.62), statistic=0.57)
        if (f.probe, f.candidate) == ("exposure", "ga")
        else f
        for f in residual().findings
    ]
    record = gated(replace(residual(), findings=tuple(one_side)), "ga", Outcome.RESIDUAL)
    assert answer(record) == "Still poisoned (candidate ga)"


def suspect(record, candidate):
    """The control of the gaussian probe failed in this candidate."""
    cells = tuple(
        replace(c, measurements=(replace(c.measurements[0], suspect="leaks"), *c.measurements[1:]))
        if c.candidate == candidate
        else c
        for c in record.cells
    )
    return replace(record, cells=cells)


def outcome_of_gaussian(record, *outcomes):
    """The findings of the gaussian probe have these outcomes, seed by seed."""
    found, left = [], list(outcomes)
    for f in record.findings:
        found.append(replace(f, outcome=left.pop(0)) if f.probe == "gaussian" and left else f)
    return replace(record, findings=tuple(found))


def test_of_several_seeds_all_have_to_be_covered():
    record = with_acceptance(several_seeds(), candidate="scrub")
    one = outcome_of_gaussian(record, Outcome.ACCEPTED, Outcome.RESIDUAL, Outcome.CLEAN)
    (told,) = accepted(one)
    assert (told.state, told.tone) == ("does not suffice: the interval reaches beyond it", "bad")
    every = outcome_of_gaussian(record, Outcome.ACCEPTED, Outcome.ACCEPTED, Outcome.CLEAN)
    (told,) = accepted(every)
    assert (told.state, told.tone) == ("covers the figure", "unsure")


def test_what_is_never_accepted_says_why():
    record = with_acceptance(residual())
    (told,) = accepted(outcome_of_gaussian(record, Outcome.ACTIVATED))
    assert told.state == "does not cover it: an attack that was made stronger is never accepted"
    (told,) = accepted(suspect(record, "deployed"))
    assert told.state == "does not cover it: a control failed, so the figure cannot be trusted"
    yardstick = [replace(f, gating=f.probe != "utility") for f in record.findings]
    plan = with_acceptance(residual(), probe="utility", bound=0.1).plan
    (told,) = accepted(replace(record, plan=plan, findings=tuple(yardstick)))
    assert told.state == "not needed: the figure decides nothing"


def test_what_is_accepted_or_not_needed_is_never_green():
    for record in (machine.accepted(), with_acceptance(clean())):
        page = render_html(record)
        section = page[page.index('aria-labelledby="accepted"') :]
        assert "good" not in section[: section.index("</section>")]
    assert 'class="verdict unsure"' in render_html(machine.accepted())


def test_an_acceptance_that_covers_its_figure():
    record = with_acceptance(residual())
    first = replace(record.findings[0], outcome=Outcome.ACCEPTED)
    (told,) = accepted(replace(record, findings=(first, *record.findings[1:])))
    assert told.state == "covers the figure"
    assert told.what == "Gaussian of deployed, up to 1.5"
