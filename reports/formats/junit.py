"""The report as JUnit XML: a suite a candidate, a test case a probe and seed, and the verdict's.

    found at the gate          <failure>
    undecided at the gate      <error>, never <skipped>: many pages paint skipped green
    accepted                   passes; who accepts it stands in <system-out> and in a property
    clean                      passes, with its figures in <system-out>
    decides nothing            <skipped>: neither a pass that proves something, nor a failure.
                               Findings that never gate, and what is wrong with a candidate that
                               is not at the gate: the exit code ignores them, too

The case `verdict` fails as the exit code says, so no reader of JUnit alone sees green where the
process ends red. Under `--exit-zero` it still fails: a report says what is. Times are given of
suites only: nobody measured those of single probes.
Schema: junit-10.xsd of the Jenkins xUnit plugin.
"""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree import ElementTree as ET

from poison_audit.reports.view.machine import (
    FOUND,
    Judged,
    digests,
    exit_line,
    figures,
    judged,
    justification,
    passes,
    seconds,
    started,
)
from poison_audit.reports.view.words import printable, value
from poison_audit.verdict.record import AuditRecord


def render_junit(record: AuditRecord) -> str:
    """Return the report as JUnit XML."""
    root = ET.Element("testsuites", name="poison-audit")
    root.append(_verdict(record))
    by_name: dict[str, list[Judged]] = {c.candidate: [] for c in record.verdict.candidates}
    for one in judged(record):
        by_name.setdefault(one.finding.candidate, []).append(one)
    root.extend(_suite(name, found, record) for name, found in by_name.items())
    when = started(record)
    for suite in root:
        _count(suite, ("tests", "failures", "errors", "skipped"))
        if when:
            suite.set("timestamp", when)
    _count(root, ("tests", "failures", "errors"))
    _time(root, seconds([record.environment.get("seconds")]))
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


_TAGS = {"tests": "testcase", "failures": "failure", "errors": "error", "skipped": "skipped"}


def _count(element: ET.Element, names: Iterable[str]) -> None:
    for name in names:
        element.set(name, str(sum(1 for _ in element.iter(_TAGS[name]))))


def _time(element: ET.Element, time: float | None) -> None:
    if time is not None:
        element.set("time", f"{time:.3f}")


def _verdict(record: AuditRecord) -> ET.Element:
    verdict, policy = record.verdict, record.plan.policy
    model = record.subject.get("model")
    suite = ET.Element("testsuite", name="poison-audit")
    told = {
        "tool": f"poison-audit {printable(record.tool_version)}",
        "model": printable(model) if isinstance(model, str) else "not recorded",
        "outcome": verdict.outcome.value,
        "exit_code": str(verdict.exit_code),
        "gate": printable(verdict.gate),
        "alpha": value(policy.alpha),
        "root_seed": str(record.plan.seed),
        "seeds": str(record.plan.seeds),
        "comparability": printable(record.comparability or "not recorded"),
        **digests(record),
    }
    _properties(suite, told.items())
    case = ET.SubElement(suite, "testcase", classname="poison-audit", name="verdict")
    line = exit_line(verdict)
    if passes(verdict):
        ET.SubElement(case, "system-out").text = line
        return suite
    tag = "failure" if verdict.outcome in FOUND or verdict.exit_code == 1 else "error"
    shut = ET.SubElement(case, tag, type=verdict.outcome.value, message=line)
    shut.text = f"{line}\nNext: {printable(verdict.next_step)}"
    return suite


def _suite(name: str, found: list[Judged], record: AuditRecord) -> ET.Element:
    cells = [cell for cell in record.cells if cell.candidate == name]
    suite = ET.Element("testsuite", name=printable(name))
    spent = [cell.cost.seconds for cell in cells if cell.cost]
    _time(suite, seconds([*spent, *(cell.probe_seconds for cell in cells)]))
    policy = record.plan.policy
    kinds = [("kind", c.kind) for c in record.verdict.candidates if c.candidate == name]
    weights = [(f"weights_sha256.seed_{c.seed}", printable(c.digest)) for c in cells if c.digest]
    accepted = [
        (f"accepted.{printable(one.finding.probe)}", justification(policy.accepted[one.number]))
        for one in found
        if one.number is not None
    ]
    _properties(suite, [*kinds, *weights, *accepted])
    suite.extend(_case(one, record) for one in found)
    return suite


def _properties(suite: ET.Element, pairs: Iterable[tuple[str, str]]) -> None:
    parent = ET.SubElement(suite, "properties")
    for name, told in pairs:
        ET.SubElement(parent, "property", name=name, value=told)


def _case(one: Judged, record: AuditRecord) -> ET.Element:
    finding = one.finding
    case = ET.Element("testcase", classname=printable(finding.candidate), name=one.name)
    told = f"{one.told}\n{figures(finding)}"
    if one.standing in ("found", "undecided"):
        tag = "failure" if one.standing == "found" else "error"
        ET.SubElement(case, tag, type=finding.outcome.value, message=one.told).text = told
        return case
    if one.standing in ("elsewhere", "aside"):
        gate = printable(record.verdict.gate)
        why = f"Not at the gate ({gate})" if one.standing == "elsewhere" else "Decides nothing"
        ET.SubElement(case, "skipped", message=f"{why}: {one.told}")
    if one.number is not None:
        told += f"\n{justification(record.plan.policy.accepted[one.number])}"
    ET.SubElement(case, "system-out").text = told
    return case
