"""The report as SARIF 2.1.0, for code scanning: an alert where the gate is not passed.

    found at the gate          rule poison/PROBE, level error
    undecided at the gate      rule audit/undecided, level error: the exit code is not 0 either
    accepted                   rule audit/accepted, level note, with SARIF's own `suppressions`
    not at the gate            rule audit/other-candidate, level note: the exit code ignores it
    no figure explains it      rule audit/verdict, level error

A rule has one severity at GitHub, and an alert shows no state of its own: hence the separate
rules. SARIF wants level `none` for results of kind `open` or `pass`, but GitHub takes the level
for the severity and shows every result as an alert. So what is undecided is of kind `fail`, and
what passed is no result: it is named in `run.properties.passed`.

Alerts point at text that is committed (the forget table, audit.toml), never at the checkpoint.
Source: SARIF 2.1.0 (OASIS), sections 3.4 to 3.51; GitHub, "SARIF support for code scanning".
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict
from typing import Any

from poison_audit.checks.own import is_own
from poison_audit.poisons.readings import POISONS
from poison_audit.records import WORST_FIRST, Finding
from poison_audit.reports.formats.sarif_parts import (
    FOLDER,
    ROOT,
    artifact,
    at,
    location,
    message,
    unique,
)
from poison_audit.reports.formats.sarif_rules import RULES, Rule
from poison_audit.reports.view.machine import (
    Judged,
    digests,
    exit_line,
    judged,
    justification,
    passes,
    started,
)
from poison_audit.reports.view.words import about, printable, value
from poison_audit.verdict.record import AuditRecord

MOST = 5000
"""Results that GitHub shows of a run; the worst come first."""

_RULES = {
    "found": "poison/{probe}",
    "undecided": "audit/undecided",
    "accepted": "audit/accepted",
    "elsewhere": "audit/other-candidate",
}
"""The rule that a finding falls under by its standing, the most urgent first."""
_ATTACKS = {each.name: poison.name for poison in POISONS.values() for each in poison.readings}
"""The attack that a probe looks for."""


def render_sarif(record: AuditRecord) -> str:
    """Return the report as a SARIF log with one run.

    Under `--exit-zero` the results are the same: a report says what is.
    """
    log = {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0"}
    return json.dumps({**log, "runs": [_run(record)]}, indent=1, allow_nan=False) + "\n"


def _run(record: AuditRecord) -> dict[str, Any]:
    every = judged(record)
    alerts = [one for one in every if one.standing in _RULES]
    alerts.sort(key=_urgency)
    results = [_result(one, record) for one in alerts]
    if not passes(record.verdict) and not any(r["level"] == "error" for r in results):
        results.insert(0, _of_verdict(record))
    passed = [f"{printable(j.finding.candidate)}: {j.name}" for j in every if j.standing == "clean"]
    forget = location(record, "forget")["physicalLocation"]["artifactLocation"]["uri"]
    return {
        "tool": {"driver": {
            "name": "poison-audit",
            "version": printable(record.tool_version),
            "rules": [_rule(name, rule) for name, rule in RULES.items()],
        }},
        "automationDetails": {"id": f"poison-audit/{forget}/"},
        "invocations": [_invocation(record)],
        "originalUriBaseIds": {
            ROOT: {"description": message("The top of the git working tree.")},
            FOLDER: {"description": message("The folder that the audit was started in.")},
        },
        "artifacts": unique(artifact(file) for file in record.files),
        "results": results[:MOST],
        "properties": {
            "outcome": record.verdict.outcome.value,
            "exitCode": record.verdict.exit_code,
            "gate": printable(record.verdict.gate),
            "nextStep": printable(record.verdict.next_step),
            "alpha": value(record.plan.policy.alpha),
            "comparability": printable(record.comparability or "not recorded"),
            "digests": digests(record),
            "passed": passed[:MOST],
            "resultsLeftOut": max(0, len(results) - MOST),
        },
    }  # fmt: skip


def _urgency(one: Judged) -> tuple[int, int]:
    return list(_RULES).index(one.standing), WORST_FIRST.index(one.finding.outcome)


def _rule(name: str, rule: Rule) -> dict[str, Any]:
    properties: dict[str, Any] = {"tags": list(rule.tags)}
    if rule.severity is not None:
        properties["security-severity"] = rule.severity
    return {
        "id": name,
        "name": rule.name,
        "shortDescription": {"text": rule.short},
        "fullDescription": {"text": rule.full},
        "help": {"text": rule.help},
        "defaultConfiguration": {"level": rule.level},
        "properties": properties,
    }


def _invocation(record: AuditRecord) -> dict[str, Any]:
    told: dict[str, Any] = {
        # The audit ran to its end, whatever it came to.
        "executionSuccessful": True,
        "exitCode": record.verdict.exit_code,
        "exitCodeDescription": exit_line(record.verdict),
    }
    command = record.environment.get("command")
    if isinstance(command, str):
        told["commandLine"] = printable(command)
    if when := started(record):
        told["startTimeUtc"] = f"{when}Z"
    return told


def _result(one: Judged, record: AuditRecord) -> dict[str, Any]:
    finding = one.finding
    attack = _ATTACKS.get(finding.probe, finding.probe)
    way = f", {printable(finding.way)}" if finding.way else ""
    title = f"{about(finding.probe).title}{way}"
    who = f"{printable(finding.candidate)}, {title}, seed {finding.seed}"
    result = _alert(
        _rule_of(one),
        f"{who}: {one.told}",
        location(record, f"forget.{attack}", "forget"),
        key=_question(finding, record),
    )
    related = [f"config.evidence.{attack}"]
    if one.number is not None:
        related.append(f"config.accept.{one.number}")
        told = justification(record.plan.policy.accepted[one.number])
        why = {"kind": "external", "status": "accepted", "justification": told}
        result["suppressions"] = [why]
    places = [record.places[name] for name in related if name in record.places]
    if places:
        result["relatedLocations"] = unique(map(at, places))
    return result | {"properties": _figures(finding)}


def _question(finding: Finding, record: AuditRecord) -> tuple[str, ...]:
    key = (finding.probe, finding.candidate, str(finding.seed), _forget(record))
    return (*key, finding.way) if finding.way else key


def _rule_of(one: Judged) -> str:
    probe = "own" if is_own(one.finding.probe) else one.finding.probe
    name = _RULES[one.standing].format(probe=probe)
    return name if name in RULES else "poison/other"


def _of_verdict(record: AuditRecord) -> dict[str, Any]:
    verdict = record.verdict
    told = f"{verdict.outcome.value}. {printable(verdict.sentence)} {printable(verdict.next_step)}"
    return _alert(
        "audit/verdict",
        told.rstrip(),
        location(record, "forget"),
        key=("verdict", verdict.gate, _forget(record)),
    )


def _alert(rule: str, text: str, where: dict[str, Any], *, key: tuple[str, ...]) -> dict[str, Any]:
    # Another number, another day or another acceptance of the same question is the same alert.
    mark = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    return {
        "ruleId": rule,
        "ruleIndex": list(RULES).index(rule),
        "kind": "fail",
        "level": RULES[rule].level,
        "message": message(text),
        "locations": [where],
        # The first is the one that GitHub compares; without it, it would hash the line pointed at.
        "partialFingerprints": {"primaryLocationLineHash": mark, "question/v1": mark},
    }


def _figures(finding: Finding) -> dict[str, Any]:
    told = {
        "statistic": finding.statistic,
        **(asdict(finding.interval) if finding.interval else {}),
        "null": finding.null,
        "tolerance": finding.tolerance,
    }
    return {
        "outcome": finding.outcome.value,
        "candidate": printable(finding.candidate),
        "probe": printable(finding.probe),
        "seed": finding.seed,
        "sampleSize": finding.sample_size,
        **{k: number for k, number in told.items() if number is not None and math.isfinite(number)},
    }


def _forget(record: AuditRecord) -> str:
    return digests(record).get("forget_sha256", "")
