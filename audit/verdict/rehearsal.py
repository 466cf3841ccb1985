"""What the cells of a rehearsal come to: findings, verdicts and a sentence. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from poison_audit.checks.readings import READINGS as CHECKS
from poison_audit.poisons.readings import REHEARSED
from poison_audit.records import (
    CandidateVerdict,
    Cell,
    Finding,
    Outcome,
    Plan,
    Policy,
    Sanity,
    Step,
)
from poison_audit.verdict.decide import decide

NAME = "rehearsed"
"""The copy among the candidates."""
PROBED = tuple(reading.name for reading in (*REHEARSED.readings, *CHECKS.values()))
_WORKS = Sanity(correct=1, total=1, low=1.0, chance=0.0)
"""Of the copy; what does not work is never decided about."""


def own_policy(policy: Policy) -> Policy:
    """Return the policy of a rehearsal: the copy at the gate, and nothing accepted."""
    return replace(policy, gate=NAME, exit_zero=False, accepted=(), decided=None)


def decide_rehearsal(
    plan: Plan, cells: Sequence[Cell], *, planted: int, held: bool
) -> tuple[tuple[Finding, ...], tuple[CandidateVerdict, ...]]:
    """Judge the cells of a rehearsal.

    Args:
        plan: the audit's, or the rehearsal's own.
        cells: the copy, named `NAME`, and the methods that were run on it.
        planted: canaries.
        held: whether the copy came to hold them; else what passes on it proves nothing.
    """
    probes = tuple(Step(name=name) for name in PROBED)
    own = replace(plan, probes=probes, policy=own_policy(plan.policy), reaudit=False, own=())
    decision = decide(own, _WORKS, cells, attacks={REHEARSED.name: planted})
    findings = tuple(map(_own_finding, decision.findings))
    candidates = tuple(_own_verdict(each, held=held) for each in decision.verdict.candidates)
    return findings, candidates


def _own_finding(finding: Finding) -> Finding:
    # The sentences of a real audit speak of the deployed model; here the copy takes its place.
    return replace(finding, reason=finding.reason.replace("deployed model", "rehearsed copy"))


def _own_verdict(verdict: CandidateVerdict, *, held: bool) -> CandidateVerdict:
    """Reword a verdict; what passes on a copy that holds less than a real poison proves nothing."""
    reason = verdict.reason.replace("deployed model", "rehearsed copy")
    if verdict.kind != "method" or verdict.outcome is not Outcome.CLEAN or held:
        return replace(verdict, reason=reason)
    note = "But the copy holds the canaries less firmly than ordinary training samples."
    return replace(verdict, outcome=Outcome.INCONCLUSIVE, reason=f"{reason} {note}")


_SAID = {
    "Would remove it": (Outcome.CLEAN,),
    "Would not": (Outcome.RESIDUAL, Outcome.ACTIVATED),
    "Would only put it to sleep": (Outcome.ASLEEP,),
    "Would break the model": (Outcome.BROKEN,),
    "Failed": (Outcome.FAILED,),
    "Undecided": (Outcome.INCONCLUSIVE, Outcome.NOT_MEASURED),
}


def rehearsal_sentence(
    findings: Sequence[Finding],
    candidates: Sequence[CandidateVerdict],
    *,
    useless: str | None,
    epochs: float,
    held: bool,
    planted: int,
    sigma: float,
) -> str:
    """Say what a rehearsal comes to, and that it is one: the fields of `records.Rehearsal`.

    Args:
        useless: why the copy is of no use; None: it is.
    """
    start = (
        f"A rehearsal: it judges methods, never the deployed model. A copy was trained on for "
        f"{epochs:g} epochs with {planted} canaries of our own (sigma {sigma:.3g})."
    )
    if useless is not None:
        told = f"The copy is of no use, since {useless}: this says nothing about any method."
        return f"{start} {told}"
    parts = [start, f"They were found in it ({_figure(NAME, findings)})."]
    if not held:
        parts.append(
            "It came to hold them less firmly than ordinary training samples, so no method can "
            "pass here; one that fails would fail all the more."
        )
    for what, outcomes in _SAID.items():
        here = [c.candidate for c in candidates if c.kind == "method" and c.outcome in outcomes]
        if Outcome.FAILED not in outcomes:
            here = [f"{name} ({_figure(name, findings)})" for name in here]
        if here:
            parts.append(f"{what}: {', '.join(here)}.")
    planting = {reading.name for reading in REHEARSED.readings}
    needed = max((f.needed or 0 for f in findings if f.probe in planting), default=0)
    if needed > planted:
        parts.append(
            f"{planted} forget samples seldom suffice to call a method clean; about {needed} would."
        )
    return " ".join(parts)


def _figure(candidate: str, findings: Sequence[Finding]) -> str:
    """Return the canaries' figures of a candidate's worst seed, with their intervals."""
    told = []
    for reading in REHEARSED.readings:
        asked = (candidate, reading.name, "")
        own = [f for f in findings if (f.candidate, f.probe, f.way) == asked]
        measured = [(abs(f.statistic - (f.null or 0.0)), f) for f in own if f.statistic is not None]
        if not measured:
            continue
        worst = max(measured, key=lambda pair: pair[0])[1]
        if worst.interval is None:
            raise ValueError("a statistic comes with its interval")
        low, high = worst.interval.low, worst.interval.high
        told.append(f"{reading.words.symbol} {worst.statistic:.2f} [{low:.2f}, {high:.2f}]")
    return ", ".join(told) or "not measured"
