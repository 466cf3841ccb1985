"""A report decided again under another policy, from the measurements that it holds. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from poison_audit.checks.own import is_own
from poison_audit.errors import InputError, PlanError, Problem, did_you_mean
from poison_audit.records import Policy
from poison_audit.verdict.decide import decide
from poison_audit.verdict.forms import wrong_evidence
from poison_audit.verdict.record import SCHEMA_VERSION, AuditRecord

UNTOUCHED = (
    "The rehearsal stands as it was decided at first: the other policy holds for the audit alone."
)


def redecide(record: AuditRecord, policy: Policy) -> AuditRecord:
    """Return a record with the findings and the verdict that its measurements have under a policy.

    What explains (hypotheses) stays; a rehearsal stays as it was decided, and the limits say so.

    Raises:
        InputError: its measurements are none, so that nothing can be decided.
        PlanError: the policy's gate is not on trial.
    """
    candidates = record.verdict.candidates
    known = ["deployed", "any-method", *(c.candidate for c in candidates if c.kind != "reference")]
    if policy.gate not in known and policy.gate != record.plan.policy.gate:
        hint = did_you_mean(policy.gate, known)
        raise PlanError(Problem(f"nothing named {policy.gate!r} is on trial", "--gate", hint))
    plan = replace(record.plan, policy=policy)
    attacks = record.subject.get("attacks")
    if problems := wrong_evidence(record):
        raise InputError(problems)
    if not isinstance(attacks, Mapping | None):
        raise InputError(Problem("expected an object", "report.json.subject.attacks"))
    decision = decide(
        plan, record.sanity, record.cells, attacks=attacks or {}, doubts=record.doubts
    )
    probes = {step.name for step in plan.probes}
    judged = {f.probe for f in decision.findings} | probes
    explained = tuple(f for f in record.findings if f.probe not in judged and not is_own(f.probe))
    limits = record.limits
    if record.rehearsal is not None and policy != record.plan.policy and UNTOUCHED not in limits:
        limits = (*limits, UNTOUCHED)
    return replace(
        record,
        schema_version=SCHEMA_VERSION,
        plan=plan,
        findings=(*decision.findings, *explained),
        verdict=decision.verdict,
        limits=limits,
    )
