"""A report decided again under another policy, from the measurements that it holds. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from poison_audit.commands.config import Config, read_config
from poison_audit.errors import InputError, PlanError, Problem, did_you_mean
from poison_audit.records import AuditRecord, Policy, from_json
from poison_audit.verdict.decide import decide
from poison_audit.verdict.evidence import wrong_evidence
from poison_audit.verdict.policy import make_policy

UNTOUCHED = (
    "The rehearsal stands as it was decided at first: the other policy holds for the audit alone."
)


def read_policy(
    path: Path | None,
    record: AuditRecord,
    *,
    gate: str | None,
    alpha: float | None,
    tolerances: Mapping[str, float],
    exit_zero: bool,
    today: str,
) -> Policy:
    """Return the policy to decide by: flags over a file, else over the record's own.

    Args:
        path: an audit.toml, of which [policy] and [[accept]] count and what it does not say is the
            default; or a report.json, whose policy is taken. None: the record's.
        record: what is to be decided.
        gate: must be on trial in it.
        today: the UTC day, YYYY-MM-DD, by which acceptances expire.

    Raises:
        InputError: the file cannot be read.
        PlanError: everything that is unknown or impossible.
    """
    config, base = Config(), record.plan.policy
    if path is not None and path.suffix == ".json":
        base = _policy_in(path)
    elif path is not None:
        config, base = read_config(path), Policy()
    policy = make_policy(
        config,
        tolerances=tolerances,
        alpha=alpha,
        gate=gate,
        exit_zero=exit_zero,
        today=today,
        base=base,
    )
    known = ["deployed", "any-method", *(c.candidate for c in record.verdict.candidates)]
    if policy.gate not in known and policy.gate != record.plan.policy.gate:
        hint = did_you_mean(policy.gate, known)
        raise PlanError(Problem(f"nothing named {policy.gate!r} is on trial", "--gate", hint))
    return policy


def _policy_in(path: Path) -> Policy:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Problem(f"cannot be read ({error})", str(path))) from error
    return from_json(AuditRecord, text, where=str(path)).plan.policy


def redecide(record: AuditRecord, policy: Policy) -> AuditRecord:
    """Return a record with the findings and the verdict that its measurements have under a policy.

    What explains (hypotheses) stays; a rehearsal stays as it was decided, and the limits say so.

    Raises:
        InputError: its measurements are none, so that nothing can be decided.
    """
    plan = replace(record.plan, policy=policy)
    attacks = record.subject.get("attacks")
    if problems := wrong_evidence(record):
        raise InputError(problems)
    if not isinstance(attacks, Mapping | None):
        raise InputError(Problem("expected an object", "report.json.subject.attacks"))
    decision = decide(plan, record.sanity, record.cells, attacks=attacks or {})
    probes = {step.name for step in plan.probes}
    judged = {f.probe for f in decision.findings} | probes
    explained = tuple(f for f in record.findings if f.probe not in judged)
    limits = record.limits
    if record.rehearsal is not None and policy != record.plan.policy and UNTOUCHED not in limits:
        limits = (*limits, UNTOUCHED)
    return replace(
        record,
        plan=plan,
        findings=(*decision.findings, *explained),
        verdict=decision.verdict,
        limits=limits,
    )
