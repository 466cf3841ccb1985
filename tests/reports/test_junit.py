"""JUnit XML: valid by the schema of Jenkins' xUnit plugin, and red where the process is."""

import re
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings

from builders.audits import audits
from builders.machine_records import ACCEPTANCE, accepted, one, strange
from builders.more_records import ALL
from builders.some_records import (
    clean,
    gaussian,
    inconclusive,
    membership,
    missing,
    residual,
    several_seeds,
    unusable,
    utility,
)
from poison_audit.records import CandidateVerdict, Outcome
from poison_audit.reports.formats.junit import render_junit
from poison_audit.reports.view.view import view

RED = ("failure", "error")
# XML 1.0, section 2.2: Char.
ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@pytest.fixture(scope="module")
def schema():
    xmlschema = pytest.importorskip("xmlschema", reason="no xmlschema to validate JUnit XML by")
    return xmlschema.XMLSchema(str(Path(__file__).parent / "junit-10.xsd"))


def cases(text):
    """{(suite, case): what it comes to}."""
    found = {}
    for suite in ET.fromstring(text):
        for case in suite.iter("testcase"):
            marks = [child.tag for child in case if child.tag != "system-out"]
            assert len(marks) < 2
            found[suite.get("name"), case.get("name")] = marks[0] if marks else "passed"
    return found


def case(text, suite, name):
    (found,) = [
        c
        for s in ET.fromstring(text)
        if s.get("name") == suite
        for c in s.iter("testcase")
        if c.get("name") == name
    ]
    return found


def properties(text, suite):
    (found,) = [s for s in ET.fromstring(text) if s.get("name") == suite]
    return {p.get("name"): p.get("value") for p in found.find("properties")}


def check_counts(text):
    """Every count is that of the elements."""
    root = ET.fromstring(text)
    total = Counter()
    for suite in root:
        tags = Counter(child.tag for c in suite.iter("testcase") for child in c)
        assert int(suite.get("tests")) == len(suite.findall("testcase"))
        assert int(suite.get("failures")) == tags["failure"]
        assert int(suite.get("errors")) == tags["error"]
        assert int(suite.get("skipped")) == tags["skipped"]
        total.update({name: int(suite.get(name)) for name in ("tests", "failures", "errors")})
    assert {name: int(root.get(name)) for name in total} == total


@pytest.mark.parametrize("name", ALL)
def test_every_record_is_valid_and_tells_the_verdict(name, schema):
    record = ALL[name]()
    text = render_junit(record)
    schema.validate(text)
    check_counts(text)
    verdict = case(text, "poison-audit", "verdict")
    assert view(record).exit_line in ET.tostring(verdict, encoding="unicode", method="text") + str(
        [child.get("message") for child in verdict]
    )
    assert render_junit(record) == text


def test_the_schema_can_fail(schema):
    text = render_junit(residual())
    assert not schema.is_valid(text.replace("<failure ", "<fault ").replace("</failure", "</fault"))
    assert not schema.is_valid(text.replace('name="verdict"', ""))


def test_a_poisoned_model_by_hand():
    found = cases(render_junit(residual()))
    assert found["poison-audit", "verdict"] == "failure"
    assert found["deployed", "gaussian, seed 0"] == "failure"
    assert found["deployed", "exposure, seed 0"] == "failure"
    assert found["deployed", "utility, seed 0"] == "passed"
    assert found["deployed", "membership, seed 0"] == "skipped"
    # The gate is the deployed model: what methods come to is told, and counts for nothing.
    assert found["gd", "gaussian, seed 0"] == "skipped"
    assert found["ssd", "utility, seed 0"] == "skipped"
    assert found["ssd", "gaussian, seed 0"] == "passed"
    text = render_junit(residual())
    assert case(text, "gd", "gaussian, seed 0").find("skipped").get("message") == (
        "Not at the gate (deployed): RESIDUAL. Judged."
    )
    failure = case(text, "deployed", "gaussian, seed 0").find("failure")
    assert failure.get("type") == "RESIDUAL"
    assert failure.text == (
        "RESIDUAL. Judged.\n"
        "1.29 [1.132, 1.448] at level 0.975, null 0, tolerance 0.25, 200 canaries"
    )


def test_a_clean_model_is_green():
    text = render_junit(clean())
    assert set(cases(text).values()) == {"passed", "skipped"}
    assert (
        case(text, "deployed", "exposure, seed 0")
        .find("system-out")
        .text.startswith("CLEAN. Judged.\n0.504 [")
    )


def test_what_was_not_measured_is_an_error_and_never_skipped():
    found = cases(render_junit(inconclusive()))
    assert found == {
        ("poison-audit", "verdict"): "error",
        ("deployed", "gaussian, seed 0"): "error",
        ("deployed", "exposure, seed 0"): "error",
        ("deployed", "utility, seed 0"): "passed",
    }


@pytest.mark.parametrize(
    ("outcome", "tag"),
    [
        (Outcome.RESIDUAL, "failure"),
        (Outcome.ACTIVATED, "failure"),
        (Outcome.BROKEN, "failure"),
        (Outcome.INCONCLUSIVE, "error"),
        (Outcome.FAILED, "error"),
        (Outcome.NOT_MEASURED, "error"),
        (Outcome.CLEAN, "passed"),
        (Outcome.INFO, "skipped"),
        # Nobody's acceptance is on record.
        (Outcome.ACCEPTED, "error"),
    ],
)
def test_outcomes_at_the_gate(outcome, tag):
    finding = gaussian("deployed", 2, outcome, 0.3)
    record = one(finding, outcome=Outcome.INCONCLUSIVE, exit_code=3)
    assert cases(render_junit(record))["deployed", "gaussian, seed 2"] == tag


def test_a_model_that_does_not_work_is_an_error_without_any_finding():
    assert cases(render_junit(unusable())) == {("poison-audit", "verdict"): "error"}


def test_exit_zero_stays_red():
    record = residual()
    record = replace(record, verdict=replace(record.verdict, exit_code=0))
    assert cases(render_junit(record))["poison-audit", "verdict"] == "failure"


@pytest.mark.parametrize(("exit_code", "tag"), [(1, "failure"), (3, "error")])
def test_a_clean_verdict_with_another_exit_code_is_not_green(exit_code, tag):
    record = replace(clean(), verdict=replace(clean().verdict, exit_code=exit_code))
    assert cases(render_junit(record))["poison-audit", "verdict"] == tag


def test_an_accepted_risk_passes_and_says_who_answers_for_it():
    text = render_junit(accepted())
    assert set(cases(text).values()) == {"passed", "skipped"}
    told = "Accepted up to 0.5 until 2027-03-31 by ada@example.org: retraining is booked"
    assert told in case(text, "deployed", "gaussian, seed 0").find("system-out").text
    assert properties(text, "deployed")["accepted.gaussian"] == told
    assert properties(text, "poison-audit")["outcome"] == "ACCEPTED"


@pytest.mark.parametrize("decided", ["2027-04-01", None])
def test_an_acceptance_that_does_not_count_passes_nothing(decided):
    found = cases(render_junit(accepted(decided=decided)))
    assert found["deployed", "gaussian, seed 0"] == "error"


def test_an_acceptance_of_another_probe_or_candidate_passes_nothing():
    for other in ({"probe": "exposure"}, {"candidate": "gd"}):
        record = accepted()
        policy = replace(record.plan.policy, accepted=(replace(ACCEPTANCE, **other),))
        record = replace(record, plan=replace(record.plan, policy=policy))
        assert cases(render_junit(record))["deployed", "gaussian, seed 0"] == "error"


def test_of_several_seeds_each_has_a_case():
    found = cases(render_junit(replace(several_seeds(), verdict=at("scrub", several_seeds()))))
    assert [found["scrub", f"gaussian, seed {seed}"] for seed in range(3)] == [
        "passed",
        "failure",
        "error",
    ]


def at(gate, record):
    return replace(record.verdict, gate=gate)


def test_any_method_opens_the_gate_for_all():
    """gd is residual and ssd is clean: by `any-method` the process exits with 0."""
    kinds = {"deployed": "deployed", "gd": "method", "ssd": "method"}
    worst = {"deployed": Outcome.RESIDUAL, "gd": Outcome.RESIDUAL, "ssd": Outcome.CLEAN}
    record = one(
        *(gaussian(name, 0, outcome, 0.1) for name, outcome in worst.items()),
        outcome=Outcome.CLEAN,
        exit_code=0,
        gate="any-method",
    )
    candidates = tuple(
        CandidateVerdict(candidate=name, kind=kinds[name], outcome=worst[name], reason="")
        for name in kinds
    )
    opened = replace(record, verdict=replace(record.verdict, candidates=candidates))
    assert not set(cases(render_junit(opened)).values()) & {*RED}
    # None is clean: both methods keep it shut, and the deployed model is not asked.
    shut = replace(
        opened,
        findings=(
            *opened.findings[:2],
            utility("ssd", 0, Outcome.BROKEN, 0.4, 0.4),
            missing("exposure", "ssd", 0),
        ),
        verdict=replace(
            opened.verdict,
            outcome=Outcome.RESIDUAL,
            exit_code=1,
            candidates=(*candidates[:2], replace(candidates[2], outcome=Outcome.BROKEN)),
        ),
    )
    assert cases(render_junit(shut)) == {
        ("poison-audit", "verdict"): "failure",
        ("deployed", "gaussian, seed 0"): "skipped",
        ("gd", "gaussian, seed 0"): "failure",
        ("ssd", "utility, seed 0"): "failure",
        ("ssd", "exposure, seed 0"): "error",
    }


def test_provenance_and_times():
    record = replace(clean(), comparability="ab" * 32)
    text = render_junit(record)
    told = properties(text, "poison-audit")
    assert told["model_sha256"] == "3f" * 32
    assert told["forget_sha256"] == "77" * 32
    assert told["canaries.commitment"] == "c0" * 32
    assert told["comparability"] == "ab" * 32
    assert (told["gate"], told["alpha"], told["root_seed"]) == ("deployed", "0.05", "0")
    assert properties(text, "deployed")["weights_sha256.seed_0"] == "ab" * 32
    root = ET.fromstring(text)
    # 187.2 s in all; of the candidate 1.5 s of probes, and for gd 12.34 s of the method as well.
    assert root.get("time") == "187.200"
    assert {s.get("name"): s.get("time") for s in root} == {
        "poison-audit": None,
        "deployed": "1.500",
    }
    (gd,) = [s for s in ET.fromstring(render_junit(residual())) if s.get("name") == "gd"]
    assert gd.get("time") == "13.840"
    assert {s.get("timestamp") for s in root} == {"2026-02-11T09:30:00"}


def test_a_start_in_another_zone_is_told_in_utc():
    record = replace(clean(), environment={"started": "2026-02-11T01:30:00+02:00"})
    assert {s.get("timestamp") for s in ET.fromstring(render_junit(record))} == {
        "2026-02-10T23:30:00"
    }


def test_what_was_not_timed_has_no_time():
    record = replace(clean(), cells=(), environment={"seconds": float("nan")})
    assert "time=" not in render_junit(record)


def test_what_never_gates_proves_nothing_and_fails_nothing():
    aside = replace(gaussian("deployed", 0, Outcome.RESIDUAL, 1.0), gating=False)
    record = one(aside, membership("deployed", 0), outcome=Outcome.CLEAN, exit_code=0)
    assert cases(render_junit(record)) == {
        ("poison-audit", "verdict"): "passed",
        ("deployed", "gaussian, seed 0"): "skipped",
        ("deployed", "membership, seed 0"): "skipped",
    }
    found = case(render_junit(record), "deployed", "gaussian, seed 0").find("skipped")
    assert found.get("message") == "Decides nothing: RESIDUAL. Judged."


@settings(max_examples=20)
@given(record=strange())
def test_whatever_a_report_holds_the_xml_is_legal_and_agrees(record, schema):
    text = render_junit(record)
    assert not ILLEGAL.search(text)
    schema.validate(text)
    check_counts(text)
    red = case_of_verdict(text)
    passes = record.verdict.outcome in (Outcome.CLEAN, Outcome.ACCEPTED)
    assert red != (passes and record.verdict.exit_code == 0)


def case_of_verdict(text):
    """Whether the case of the verdict is red; it is the only one of its name."""
    (found,) = [c for c in ET.fromstring(text).iter("testcase") if c.get("name") == "verdict"]
    return any(child.tag in RED for child in found)


@pytest.mark.usefixtures("no_sizes")
@settings(max_examples=13)
@given(record=audits())
def test_of_an_audit_something_is_red_if_and_only_if_the_gate_is_not_passed(record):
    red = any(mark in RED for mark in cases(render_junit(record)).values())
    shut = record.verdict.outcome not in (Outcome.CLEAN, Outcome.ACCEPTED)
    assert red == shut
    assert shut or record.verdict.exit_code == 0
    if record.verdict.exit_code:
        assert red
