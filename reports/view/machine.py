"""An audit as checks that pass or fail: what the formats for machines share.

A check fails only if it keeps the gate shut, so that whoever reads nothing but checks comes to
the exit code of the process. The exception is `--exit-zero`, which changes what the process says
and not what was found: the checks fail all the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from poison_audit.poisons.readings import POISONS
from poison_audit.records import Acceptance, Finding, Json, Outcome, Policy
from poison_audit.reports.view.words import about, printable, value
from poison_audit.verdict.record import AuditRecord, Verdict

FOUND = frozenset((Outcome.RESIDUAL, Outcome.ASLEEP, Outcome.ACTIVATED, Outcome.BROKEN))
_PASSES = frozenset((Outcome.CLEAN, Outcome.ACCEPTED))

Standing = Literal["found", "undecided", "accepted", "elsewhere", "clean", "aside"]
"""What a finding means for the gate. `elsewhere` is not clean, but of a candidate that is not at
the gate; `aside` never gates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A finding, and what it means for the gate."""

    finding: Finding
    standing: Standing
    number: int | None = None
    """Of an accepted one: which of the policy's acceptances it is, from 0."""

    @property
    def name(self) -> str:
        """What was asked, within its candidate: `gaussian, seed 0`, `gaussian rounded, seed 0`."""
        what = f"{self.finding.probe} {self.finding.way}".rstrip()
        return f"{printable(what)}, seed {self.finding.seed}"

    @property
    def told(self) -> str:
        """The outcome and its reason, on one line."""
        return f"{self.finding.outcome.value}. {printable(self.finding.reason)}"


def judged(record: AuditRecord) -> tuple[Judged, ...]:
    """Return what every finding means for the gate, in the order of the record.

    The rehearsal's findings are left out: they judge methods, never the model on trial.
    """
    names = at_gate(record.verdict)
    policy = record.plan.policy
    return tuple(_judged(f, policy, here=f.candidate in names) for f in record.findings)


def _judged(finding: Finding, policy: Policy, *, here: bool) -> Judged:
    if not finding.gating or finding.outcome is Outcome.INFO:
        return Judged(finding=finding, standing="aside")
    if finding.outcome is Outcome.CLEAN:
        return Judged(finding=finding, standing="clean")
    if finding.outcome is Outcome.ACCEPTED:
        number = acceptance(finding, policy)
        if number is not None:
            return Judged(finding=finding, standing="accepted", number=number)
    if not here:
        return Judged(finding=finding, standing="elsewhere")
    # Said to be accepted, and no acceptance is on record: that is no pass.
    standing: Standing = "found" if finding.outcome in FOUND else "undecided"
    return Judged(finding=finding, standing=standing)


def passes(verdict: Verdict) -> bool:
    """Say whether the audit passed: `--exit-zero` makes no pass of a failure."""
    return verdict.outcome in _PASSES and verdict.exit_code == 0


def at_gate(verdict: Verdict) -> frozenset[str]:
    """Return the candidates that the verdict rests on.

    Of the gate `any-method` that are those that opened it, or all repaired ones if none did.
    """
    if verdict.gate != "any-method":
        return frozenset((verdict.gate,))
    repaired = [c for c in verdict.candidates if c.kind in ("method", "candidate")]
    if passes(verdict):
        repaired = [c for c in repaired if c.outcome is verdict.outcome]
    return frozenset(c.candidate for c in repaired)


def acceptance(finding: Finding, policy: Policy) -> int | None:
    """Return which acceptance covers an accepted finding, from 0; None if none does any more."""
    return next(
        (
            number
            for number, one in enumerate(policy.accepted)
            if (one.probe, one.candidate) == (finding.probe, finding.candidate)
            and policy.decided is not None
            and policy.decided <= one.expires
        ),
        None,
    )


def justification(one: Acceptance) -> str:
    """Return who accepts what until when, and why, on one line."""
    return (
        f"Accepted up to {value(one.bound)} until {printable(one.expires)} by "
        f"{printable(one.owner)}: {printable(one.reason)}"
    )


def exit_line(verdict: Verdict) -> str:
    """Return `exit N: OUTCOME. Reason`, the same in every renderer."""
    return f"exit {verdict.exit_code}: {verdict.outcome.value}. {printable(verdict.sentence)}"


def figures(finding: Finding) -> str:
    """Return a finding's figures on one line; `no figure` where nothing was measured."""
    if finding.statistic is None or finding.interval is None:
        return "no figure"
    at = finding.interval
    told = f"{value(finding.statistic)} [{value(at.low)}, {value(at.high)}] at level "
    told += value(at.level)
    if finding.null is not None:
        told += f", null {value(finding.null)}"
    if finding.tolerance is not None:
        told += f", tolerance {value(finding.tolerance)}"
    return f"{told}, {value(finding.sample_size)} {about(finding.probe).samples}"


def digests(record: AuditRecord) -> dict[str, str]:
    """Return the SHA-256 of what was on trial, by name, as far as they are recorded."""
    subject = record.subject
    found = {name: subject.get(name) for name in _DIGESTS}
    for part in (each.name for poison in POISONS.values() for each in poison.files):
        inner = subject.get(part)
        if isinstance(inner, Mapping):
            found |= {f"{part}.{name}": inner.get(name) for name in ("commitment", "sha256")}
    return {name: printable(text) for name, text in found.items() if isinstance(text, str)}


_DIGESTS = ("model_sha256", "train_sha256", "forget_sha256", "test_sha256")


def started(record: AuditRecord) -> str | None:
    """Return when the audit began, `YYYY-MM-DDThh:mm:ss` in UTC; None if not recorded."""
    told = record.environment.get("started")
    try:
        when = datetime.fromisoformat(told) if isinstance(told, str) else None
        if when is None or when.tzinfo is None:
            return None
        return when.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds")
    except (ValueError, OverflowError):
        return None


def seconds(times: Iterable[Json]) -> float | None:
    """Return the sum of what was timed; None where nothing was, or where it is no time."""
    known = [t for t in times if isinstance(t, int | float) and not isinstance(t, bool)]
    if not known or not all(0 <= t < 1e9 for t in known):
        return None
    return math.fsum(known) or None
