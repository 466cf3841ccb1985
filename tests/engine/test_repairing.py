"""Repairs as they are looked at before an audit."""

from dataclasses import replace

import pytest

from builders.attacked import backdoored, case_of, pictures
from poison_audit.engine.plan import make_plan
from poison_audit.engine.repairing import repairs
from poison_audit.poisons.backdoor.stamping import stamper
from poison_audit.verdict.policy import standard_policy


@pytest.mark.parametrize(
    # Of n samples that are answered as before, Tango's interval at 95% ends at z^2 / (n + z^2):
    # 3.7 points of 100, .2 of 2,000; 2 are tolerated.
    ("tests", "undecided"), [(100, True), (2000, False)]
)  # fmt: skip
def test_test_samples_that_could_not_clear_a_repair_put_its_audit_last(tests, undecided):
    model, trigger = backdoored()
    forget = pictures(10, 60)
    forget = replace(forget, x=trigger.stamp(forget.x))
    case = case_of(
        model, trigger=trigger, forget=forget, retain=pictures(10, 600), test=pictures(4, tests)
    )
    plan = make_plan(policy=standard_policy(), methods=("none",), budgets=(1.0,))
    tried = next(repairs(replace(case, stamp=stamper(trigger, None)), plan))
    assert tried.name == "head_edit"
    assert tried.undecided is undecided
    assert ("too few to clear its accuracy" in tried.told) is undecided
    assert not (undecided and tried.lasting)
