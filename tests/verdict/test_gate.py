"""What may be the gate, and by which tolerances it may be opened."""

from dataclasses import replace

import pytest

from builders.some_records import clean
from poison_audit.engine.plan import check_plan
from poison_audit.errors import PlanError
from poison_audit.records import Outcome
from poison_audit.verdict.decide import decide
from poison_audit.verdict.policy import looser, make_policy, standard_policy
from poison_audit.verdict.redecide import redecide

LOOSE = {"gaussian": 1e300, "exposure": 0.9999, "token-canary": 0.8, "backdoor": 0.51}


@pytest.mark.parametrize(("probe", "value"), LOOSE.items())
def test_a_tolerance_by_which_nothing_fails_has_to_be_asked_for(probe, value):
    with pytest.raises(PlanError, match=rf"tolerance of {probe}: .*--allow-tolerance"):
        make_policy(tolerances={probe: value})
    assert make_policy(tolerances={probe: value}, allow_loose=True).tolerances[probe] == value


def test_what_is_looser_than_usual_is_said_where_it_lets_something_pass():
    assert looser(standard_policy()) == ""
    record = clean()
    told = "Judged by looser tolerances than usual: gaussian 0.5 instead of 0.25."
    policy = make_policy(tolerances={"gaussian": 0.5}, base=record.plan.policy)
    plan = replace(record.plan, policy=policy)
    attacks = record.subject["attacks"]
    again = decide(plan, record.sanity, record.cells, attacks=attacks).verdict
    assert again.outcome is Outcome.CLEAN
    assert again.sentence.endswith(told)
    assert told not in record.verdict.sentence


def test_a_reference_is_never_the_gate():
    record = clean()
    cells = [replace(cell, candidate="yardstick", kind="reference") for cell in record.cells
             if cell.kind == "deployed"]  # fmt: skip
    policy = make_policy(gate="yardstick", tolerances={}, base=record.plan.policy)
    plan = replace(record.plan, policy=policy)
    with pytest.raises(PlanError, match="a yardstick is never the gate"):
        check_plan(plan, blocks=3, candidates=["yardstick"], references=["yardstick"])
    attacks = record.subject["attacks"]
    verdict = decide(plan, record.sanity, [*record.cells, *cells], attacks=attacks).verdict
    assert (verdict.outcome, verdict.exit_code) == (Outcome.INCONCLUSIVE, 3)
    with pytest.raises(PlanError, match="yardstick"):
        redecide(replace(record, verdict=replace(verdict, gate="deployed")), policy)
