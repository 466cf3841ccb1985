"""A CycloneDX ML-BOM (1.6): the model, its data, the figures, and the verdict as a claim.

The deployed model is the component, its measured figures are performance metrics of its model card,
and the verdict stands in `declarations` as a claim with evidence for or against it. A fragment: it
names what the audit saw, not what the model was built with.

Source: cyclonedx.org/docs/1.6/json, modelCard and declarations.
"""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from collections.abc import Iterator
from datetime import datetime

from poison_audit.records import Finding, Json, Outcome
from poison_audit.reports.view.answer import answer
from poison_audit.reports.view.machine import exit_line
from poison_audit.reports.view.words import about, printable, value
from poison_audit.verdict.record import AuditRecord

_MODEL, _TOOL, _CLAIM = "model", "poison-audit", "claim-verdict"
_NAMESPACE = uuid.UUID("6c1f5b1e-6d2f-5c58-9b43-0f3c0d2d7b11")
_LONGEST = 1000
_HEX = re.compile(r"[0-9a-f]{64}")


def render_bom(record: AuditRecord) -> str:
    """Return the BOM as JSON; the same record gives the same BOM, its serial number included."""
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, _identity(record))}",
        "version": 1,
        "metadata": _metadata(record),
        "components": [_model(record), *_data(record)],
        "declarations": _declarations(record),
    }
    return json.dumps(bom, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _identity(record: AuditRecord) -> str:
    told = [record.subject.get("model_sha256"), record.comparability, exit_line(record.verdict)]
    return json.dumps([*map(str, told), record.environment.get("started")], default=str)


def _metadata(record: AuditRecord) -> dict[str, Json]:
    version = _text(record.tool_version) or "0"
    tool = {"type": "application", "bom-ref": _TOOL, "name": "poison-audit", "version": version}
    return {"tools": {"components": [tool]}, **_started(record, "timestamp")}


def _started(record: AuditRecord, key: str) -> dict[str, Json]:
    started = record.environment.get("started")
    if isinstance(started, str):
        with contextlib.suppress(ValueError):
            return {key: datetime.fromisoformat(started).isoformat()}
    return {}


def _named(record: AuditRecord, ref: str) -> dict[str, Json]:
    name = _text(str(record.subject.get("model") or "")) or "model"
    return {"type": "machine-learning-model", "bom-ref": ref, "name": name}


def _model(record: AuditRecord) -> dict[str, Json]:
    subject = record.subject
    limits = [_text(limit) for limit in dict.fromkeys((*record.notices, *record.limits))]
    limits += [
        f"Not decided, {_text(f.candidate)}, {_text(f.probe)}: {_text(f.reason)}"
        for f in _deployed(record)
        if f.gating and f.outcome in (Outcome.INCONCLUSIVE, Outcome.NOT_MEASURED, Outcome.FAILED)
    ]
    datasets = [{"ref": f"data-{place}"} for place, _ in enumerate(_tables(record))]
    parameters: dict[str, Json] = {"task": "classification", "datasets": datasets}
    if isinstance(arch := subject.get("arch"), str) and arch:
        parameters["modelArchitecture"] = _text(arch)
    card: dict[str, Json] = {
        "modelParameters": parameters,
        "quantitativeAnalysis": {"performanceMetrics": list(_metrics(record))},
    }
    if limits:
        card["considerations"] = {"technicalLimitations": limits}
    return {**_named(record, _MODEL), **_hashes(subject.get("model_sha256")), "modelCard": card}


def _hashes(digest: Json) -> dict[str, Json]:
    if not (isinstance(digest, str) and _HEX.fullmatch(digest)):
        return {}
    return {"hashes": [{"alg": "SHA-256", "content": digest}]}


def _tables(record: AuditRecord) -> list[tuple[str, str, Json]]:
    subject = record.subject
    return [
        (name, _text(str(subject[key])), subject.get(f"{key}_sha256"))
        for name, key in (("training", "train"), ("forget", "forget"), ("test", "test"))
        if subject.get(key)
    ]


def _data(record: AuditRecord) -> Iterator[dict[str, Json]]:
    for place, (name, path, digest) in enumerate(_tables(record)):
        yield {
            "type": "data",
            "bom-ref": f"data-{place}",
            "name": path or name,
            "description": f"{name} table, as the audit read it",
            **_hashes(digest),
        }


def _deployed(record: AuditRecord) -> list[Finding]:
    names = {c.candidate for c in record.verdict.candidates if c.kind == "deployed"}
    return [f for f in record.findings if f.candidate in names and not f.way]


def _metrics(record: AuditRecord) -> Iterator[dict[str, Json]]:
    for finding in _deployed(record):
        if finding.statistic is None or finding.interval is None:
            continue
        told, ends = about(finding.probe), finding.interval
        yield {
            "type": f"{told.title}: {told.unit}",
            "value": value(finding.statistic),
            "slice": f"{finding.sample_size} {told.samples}, seed {finding.seed}",
            "confidenceInterval": {"lowerBound": value(ends.low), "upperBound": value(ends.high)},
        }


def _declarations(record: AuditRecord) -> dict[str, Json]:
    refs: dict[bool, list[str]] = {True: [], False: []}
    evidence = []
    for place, finding in enumerate(f for f in record.findings if f.gating):
        one = {
            "bom-ref": f"evidence-{place}",
            "propertyName": "/".join(
                _text(part) for part in (finding.candidate, finding.probe, finding.way) if part
            ),
            "description": f"{finding.outcome.value}. {_text(finding.reason)}",
        }
        evidence.append(one | _started(record, "created"))
        refs[finding.outcome is Outcome.CLEAN].append(one["bom-ref"])
    line = exit_line(record.verdict)[: 4 * _LONGEST]
    claim: dict[str, Json] = {
        "bom-ref": _CLAIM,
        "target": "target-model",
        "predicate": "holds no more of the named poison than is tolerated",
        "reasoning": line,
        "evidence": refs[True],
        "counterEvidence": refs[False],
    }
    clean = record.verdict.outcome is Outcome.CLEAN
    share = {"score": 1.0 if clean else 0.0, "rationale": answer(record)}
    mapped = [{"claims": [_CLAIM], "conformance": share}]
    return {
        "assessors": [{"bom-ref": "assessor", "thirdParty": False}],
        "attestations": [{"summary": line, "assessor": "assessor", "map": mapped}],
        "claims": [claim],
        "evidence": evidence,
        "targets": {"components": [_named(record, "target-model")]},
    }


def _text(text: str) -> str:
    return printable(text)[:_LONGEST]
