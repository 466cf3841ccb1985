"""One verdict and one exit code: in every renderer, in `decide`, in `verify`, in the process."""

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from builders.audits import audits
from poison_audit.atomic import to_json
from poison_audit.cli import invoke
from poison_audit.records import Outcome
from poison_audit.reports.formats import FORMATS
from poison_audit.verdict.compare import comparability
from poison_audit.verdict.seal import sealed

# What an outcome may be called in formats that have words of their own for it.
PASSES = {Outcome.CLEAN, Outcome.ACCEPTED}
FOUND = {Outcome.RESIDUAL, Outcome.ACTIVATED, Outcome.ASLEEP, Outcome.BROKEN}


def of_html(text):
    (found,) = re.findall(r'data-outcome="(\w+)" data-exit-code="(\d)"', text)
    return found[0], int(found[1])


def of_json(text):
    verdict = json.loads(text)["verdict"]
    return verdict["outcome"], verdict["exit_code"]


def of_line(text):
    (found,) = set(re.findall(r"exit (\d): ([A-Z_]+)\.", text))
    return found[1], int(found[0])


def of_sarif(text):
    (run,) = json.loads(text)["runs"]
    (invocation,) = run["invocations"]
    outcome, code = of_line(invocation["exitCodeDescription"])
    assert invocation["exitCode"] == code
    # A dashboard that only counts errors sees one wherever the gate is not passed.
    errors = [result for result in run["results"] if result["level"] == "error"]
    assert bool(errors) == (Outcome(outcome) not in PASSES)
    return outcome, code


def of_junit(text):
    root = ET.fromstring(text)
    (case,) = [c for c in root.iter("testcase") if c.get("name") == "verdict"]
    outcome, code = of_line(" ".join(case.itertext()) + " ".join(str(c.attrib) for c in case))
    red = case.find("failure") is not None or case.find("error") is not None
    assert red == (Outcome(outcome) not in PASSES)
    assert (case.find("failure") is not None) == (Outcome(outcome) in FOUND)
    assert case.find("skipped") is None
    return outcome, code


def of_attestation(text):
    predicate = json.loads(text)["predicate"]
    outcome, code = predicate["outcome"], predicate["exitCode"]
    assert (predicate["result"] == "PASSED") == (outcome == "CLEAN")
    assert (predicate["result"] == "FAILED") >= (Outcome(outcome) in FOUND)
    return outcome, code


READ = {
    "html": of_html,
    "json": of_json,
    "markdown": of_line,
    "junit": of_junit,
    "sarif": of_sarif,
    "in-toto": of_attestation,
    "cyclonedx": of_line,
    "model-card": of_line,
}


def test_every_format_is_read_here():
    assert READ.keys() == FORMATS.keys()


@pytest.mark.long
@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(record=audits())
def test_all_agree_on_verdict_and_exit_code(record, tmp_path_factory, capsys):
    record = sealed(replace(record, comparability=comparability(record)))
    folder = tmp_path_factory.mktemp("report")
    path = folder / "report.json"
    path.write_text(to_json(record), encoding="utf-8")
    expected = (record.verdict.outcome.value, record.verdict.exit_code)
    for name, each in FORMATS.items():
        assert READ[name](each.render(record)) == expected, name
    capsys.readouterr()
    assert invoke(["render", str(path)]) == expected[1]
    last = capsys.readouterr().out.rstrip("\n").splitlines()[-1]
    assert of_line(last) == expected
    assert invoke(["verify", str(path), "--no-files"]) == 0, capsys.readouterr().out
    capsys.readouterr()
    # Decided again by its own policy, on a later day, when acceptances may have run out.
    policy = record.plan.policy
    again = ["decide", str(path), "-o", str(folder / "again"), "--allow-tolerance"]
    code = invoke(again)
    last = capsys.readouterr().out.rstrip("\n").splitlines()[-1]
    assert of_line(last)[1] == code
    if not policy.accepted:
        assert of_line(last) == expected
    assert invoke(["verify", str(folder / "again"), "--no-files"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("outcome", Outcome)
def test_what_is_no_pass_exits_with_0_only_for_exit_zero(outcome):
    from poison_audit.verdict.gate import EXIT_CODES

    if outcome in EXIT_CODES:
        assert (EXIT_CODES[outcome] == 0) == (outcome in PASSES)
