import json

import pytest
from google.protobuf import json_format
from hypothesis import given, settings

from builders.audits import audits
from builders.more_records import ALL as EVERY
from poison_audit.records import Outcome
from poison_audit.reports.formats.attestation import render_attestation

# github.com/in-toto/attestation, spec/v1/statement.md and spec/predicates/test-result.md.
STATEMENT = {"_type", "subject", "predicateType", "predicate"}
REQUIRED = {"result", "configuration"}
FIELDS = REQUIRED | {"url", "passedTests", "warnedTests", "failedTests"}
DESCRIPTOR = {
    "name", "uri", "digest", "content", "downloadLocation", "mediaType", "annotations",
}  # fmt: skip


def statement(record):
    return json.loads(render_attestation(record))


def check(record):
    told = statement(record)
    assert set(told) == STATEMENT
    assert told["_type"] == "https://in-toto.io/Statement/v1"
    assert told["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    predicate = told["predicate"]
    assert set(predicate) >= REQUIRED
    assert predicate["result"] in ("PASSED", "WARNED", "FAILED")
    assert predicate["configuration"]
    for each in (*told["subject"], *predicate["configuration"]):
        assert set(each) <= DESCRIPTOR
        assert each["name"]
        assert all(isinstance(value, str) for value in each.get("digest", {}).values())
    for kind in ("passedTests", "warnedTests", "failedTests"):
        assert all(isinstance(name, str) and name for name in predicate[kind])
    # No result may be read as a pass that is none, whatever the process was told to exit with.
    assert (predicate["result"] == "PASSED") == (record.verdict.outcome is Outcome.CLEAN)
    assert (predicate["result"] == "WARNED") == (record.verdict.outcome is Outcome.ACCEPTED)
    assert predicate["outcome"] == record.verdict.outcome
    assert predicate["exitCode"] == record.verdict.exit_code
    if predicate["result"] == "PASSED" and record.verdict.gate == "deployed":
        assert not [name for name in predicate["failedTests"] if name.startswith("deployed")]


@pytest.mark.parametrize("name", EVERY)
def test_a_statement_has_the_fields_of_its_specification(name):
    check(EVERY[name]())


@pytest.mark.usefixtures("no_sizes")
@settings(max_examples=20)
@given(audits())
def test_so_has_that_of_any_audit(record):
    check(record)


@pytest.mark.parametrize("name", EVERY)
def test_the_specification_s_own_messages_read_it(name):
    pytest.importorskip("in_toto_attestation", reason="in-toto-attestation is not installed")
    from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
    from in_toto_attestation.v1 import statement_pb2

    told = statement(EVERY[name]())
    json_format.ParseDict(told, statement_pb2.Statement())
    known = {key: value for key, value in told["predicate"].items() if key in FIELDS}
    read = json_format.ParseDict(known, test_result_pb2.TestResult())
    assert read.result == told["predicate"]["result"]
    assert len(read.configuration) == len(told["predicate"]["configuration"])


def test_the_tests_of_a_residual_audit():
    predicate = statement(EVERY["residual"]())["predicate"]
    assert "deployed/gaussian" in predicate["failedTests"]
    assert "retrained/gaussian" in predicate["passedTests"]
    assert "gd/gaussian" in predicate["warnedTests"]  # not at the gate
