"""An in-toto attestation of the test result: Statement v1 with the predicate test-result v0.1.

The file is the statement alone, unsigned; `poison-audit attest` signs it (`formats/envelope.py`).
The predicate knows PASSED, WARNED and FAILED, and nothing for what could not be decided: that is
FAILED here, since a policy that asks for PASSED or WARNED must not let it through, and `outcome`
says INCONCLUSIVE. An accepted risk is WARNED. `--exit-zero` changes no result.

Source: github.com/in-toto/attestation, spec/v1/statement.md and spec/predicates/test-result.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from poison_audit.records import Finding, Json, Outcome
from poison_audit.reports.view.machine import exit_line, judged
from poison_audit.reports.view.words import printable
from poison_audit.verdict.record import AuditRecord

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"
_RESULTS = {Outcome.CLEAN: "PASSED", Outcome.ACCEPTED: "WARNED"}
_LONGEST = 1000


def render_attestation(record: AuditRecord, *, report: tuple[str, str] | None = None) -> str:
    """Return the statement as JSON.

    Args:
        record: the report.
        report: name and SHA-256 of its file, which only who signs knows.
    """
    verdict = record.verdict
    tests: dict[str, list[str]] = {"passedTests": [], "warnedTests": [], "failedTests": []}
    for each in judged(record):
        if each.standing != "aside":
            kind = {"clean": "passedTests", "accepted": "warnedTests", "elsewhere": "warnedTests"}
            tests[kind.get(each.standing, "failedTests")].append(_test(each.finding))
    statement = {
        "_type": STATEMENT,
        "subject": [_subject(record)],
        "predicateType": PREDICATE,
        "predicate": {
            "result": _RESULTS.get(verdict.outcome, "FAILED"),
            "configuration": list(_configuration(record)),
            **tests,
            # Further fields, which the specification allows and readers must ignore.
            "outcome": verdict.outcome.value,
            "exitCode": verdict.exit_code,
            "reason": exit_line(verdict),
            "gate": _name(verdict.gate),
            "alpha": record.plan.policy.alpha,
            "comparability": record.comparability,
            **_written(report),
        },
    }
    return json.dumps(statement, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _subject(record: AuditRecord) -> dict[str, Json]:
    digest = record.subject.get("model_sha256")
    name = _name(str(record.subject.get("model") or "model"))
    return {"name": name, "digest": {"sha256": str(digest)} if digest else {}}


def _written(report: tuple[str, str] | None) -> dict[str, Json]:
    if report is None:
        return {}
    name, digest = report
    return {"report": {"name": _name(name), "digest": {"sha256": digest}}}


def _test(finding: Finding) -> str:
    seed = f"#{finding.seed}" if finding.seed else ""
    return f"{_name(finding.candidate)}{seed}/{_name(finding.probe)}"


def _configuration(record: AuditRecord) -> Iterator[Mapping[str, Json]]:
    """Yield what the result depends on, as resource descriptors."""
    for each in record.files:
        if each.role != "weights":
            told = {"name": f"{_name(each.role)}: {_name(each.path)}"}
            how = {"annotations": {"sha256 of": "the lines `sha256  path` of its files"}}
            yield {**told, "digest": {"sha256": each.sha256}, **(how if each.folder else {})}
    for name, key in (("training samples", "train_sha256"), ("test samples", "test_sha256")):
        if isinstance(digest := record.subject.get(key), str):
            yield {"name": name, "digest": {"sha256": digest}}
    yield {"name": f"poison-audit {_name(record.tool_version)}"}


def _name(text: str) -> str:
    return printable(text)[:_LONGEST]
