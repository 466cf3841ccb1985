"""Findings and verdict, from measurements and tolerances alone.

A measurement is judged by its interval (verdict.judge). Each interval has such a level that
the exit code errs with probability at most alpha in either direction: alpha is divided by the
candidate's gating probes, by the seeds of a method (judged by its worst), and, when any repaired
candidate may open the gate, by the number of those.

Why that is enough. A clean effect is called RESIDUAL only if its interval misses the null. An
effect beyond the tolerance is called CLEAN only if its interval misses the effect. Both happen
with probability at most 1 - level (two-sided) or (1 - level) / 2 (one-sided) per interval.
ACTIVATED renames what is RESIDUAL already, so it adds no error to the exit code.

An accepted risk is a wider bound on one figure, for a while: the whole interval must lie within it.
That is the same equivalence test at another tolerance, so it passes nothing that was not measured,
and an effect beyond the bound with no larger probability than one beyond a tolerance is CLEAN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from poison_audit.case.doubts import Doubt
from poison_audit.poisons.readings import POISONS
from poison_audit.records import (
    WORST_FIRST,
    CandidateVerdict,
    Cell,
    Finding,
    Kind,
    Measurement,
    Outcome,
    Plan,
    Policy,
    Sanity,
)
from poison_audit.verdict.judge import judge
from poison_audit.verdict.policy import far, looser
from poison_audit.verdict.readings import increase, reading_of
from poison_audit.verdict.record import ExitCode, Verdict

ACCEPTABLE = (Outcome.RESIDUAL, Outcome.BROKEN, Outcome.INCONCLUSIVE)
"""What may be accepted where it was measured; an attack that was made stronger may not."""
EXIT_CODES: Mapping[Outcome, ExitCode] = {
    Outcome.CLEAN: 0,
    Outcome.ACCEPTED: 0,
    Outcome.RESIDUAL: 1,
    Outcome.ACTIVATED: 1,
    Outcome.BROKEN: 1,
    Outcome.INCONCLUSIVE: 3,
    Outcome.NOT_MEASURED: 3,
    Outcome.FAILED: 3,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What `decide` returns."""

    findings: tuple[Finding, ...]
    verdict: Verdict


def decide(
    plan: Plan,
    sanity: Sanity,
    cells: Sequence[Cell],
    *,
    attacks: Mapping[str, int],
    doubts: Sequence[Doubt] = (),
) -> Decision:
    """Judge every measurement, every candidate and the audit.

    Args:
        plan: holds the policy, the number of seeds and the probes.
        sanity: if the model does not work as loaded, nothing passes.
        cells: one a candidate and seed.
        attacks: forget samples by the attack they are said to be part of ("" = unknown).
        doubts: with any of them nothing passes.
    """
    named = [POISONS[attack] for attack in attacks if attack in POISONS]
    required = {reading.name for poison in named for reading in poison.readings}
    by_name: dict[str, list[Cell]] = {}
    for cell in cells:
        by_name.setdefault(cell.candidate, []).append(cell)
    repaired = sum(group[0].kind in ("method", "candidate") for group in by_name.values())
    share = max(1, repaired) if plan.policy.gate == "any-method" else 1
    before = {m.probe: m for c in cells if c.kind == "deployed" for m in c.measurements}
    nothing_to_remove = False
    findings: list[Finding] = []
    verdicts: list[CandidateVerdict] = []
    for name, group in by_name.items():
        here: list[Finding] = []
        for cell in group:
            alpha = plan.policy.alpha / (share * len(group))
            seen = judge_cell(cell, plan, alpha=alpha, required=required)
            if cell.kind in ("method", "candidate"):
                now = {m.probe: m for m in cell.measurements}
                seen = [_activated(f, before.get(f.probe), now.get(f.probe)) for f in seen]
            suspect = {m.probe for m in cell.measurements if m.suspect}
            here += [_accepted(f, plan.policy, suspect=f.probe in suspect) for f in seen]
        if nothing_to_remove and group[0].kind == "method":
            here = [_said_of_clean(finding) for finding in here]
        verdict = judge_candidate(name, group[0].kind, here)
        if group[0].kind == "deployed":
            nothing_to_remove = verdict.outcome is Outcome.CLEAN
        findings += here
        verdicts.append(verdict)
    told = _audit_verdict(plan.policy, sanity, verdicts, doubts)
    return Decision(findings=tuple(findings), verdict=told)


def judge_cell(cell: Cell, plan: Plan, *, alpha: float, required: set[str]) -> list[Finding]:
    """Judge the measurements of one cell at simultaneous error `alpha`."""
    if cell.error is not None:
        return [
            Finding(
                probe=step.name,
                candidate=cell.candidate,
                seed=cell.seed,
                outcome=Outcome.FAILED,
                gating=reading_of(step.name).tolerance is not None,
                reason=f"Failed: {cell.error.rstrip('.')}.",
            )
            for step in plan.probes
        ]
    measured = {m.probe for m in cell.measurements}
    absent = [
        Measurement(probe=probe, evidence=None, missing=f"the {probe} probe was not run")
        for probe in sorted(required - measured)
    ]
    every = (*cell.measurements, *absent)
    tests = sum(
        m.evidence is not None
        and reading_of(m.probe).gates(named=m.probe in required)
        and (cell.kind != "deployed" or reading_of(m.probe).residue)
        for m in every
    )
    return [
        judge(m, cell, plan.policy, alpha=alpha / max(1, tests), required=m.probe in required)
        for m in every
    ]


def _activated(finding: Finding, before: Measurement | None, now: Measurement | None) -> Finding:
    """Return the finding as ACTIVATED if its attack is surely stronger than when deployed."""
    if finding.outcome is not Outcome.RESIDUAL or before is None or now is None:
        return finding
    value, null, tolerance = finding.statistic, finding.null, finding.tolerance
    if finding.interval is None or value is None or null is None or tolerance is None:
        return finding
    change = increase(before, now, level=finding.interval.level)
    # Away from the null on the far side (overshot) is no stronger attack.
    if change is None or value <= null:
        return finding
    grown = change.after - change.before
    if change.low <= 0 or grown <= tolerance - null:
        return finding
    points = reading_of(finding.probe).points
    scale, unit, digits = (100, " points", 2) if points else (1, "", 3)
    by, low, high, start, end = (
        f"{scale * figure:.{digits}f}"
        for figure in (grown, change.low, change.high, change.before, change.after)
    )
    note = f"Stronger than in the deployed model by {by}{unit} [{low}, {high}]"
    told = f"{finding.reason} {note}: from {start} to {end}."
    return replace(finding, outcome=Outcome.ACTIVATED, reason=told)


def _accepted(finding: Finding, policy: Policy, *, suspect: bool) -> Finding:
    """Return the finding as ACCEPTED if somebody answers for all that its interval leaves open."""
    of = (finding.probe, finding.candidate)
    acceptance = next((a for a in policy.accepted if (a.probe, a.candidate) == of), None)
    if acceptance is None or finding.outcome not in ACCEPTABLE or not finding.gating or suspect:
        return finding
    if finding.interval is None or finding.null is None:
        return finding
    told = f"{acceptance.owner}: {acceptance.reason.rstrip('.')}"
    if policy.decided is None or policy.decided > acceptance.expires:
        note = f"The acceptance by {told} expired on {acceptance.expires}."
        return replace(finding, reason=f"{finding.reason} {note}")
    room = acceptance.bound - finding.null
    lowest = finding.null - room if reading_of(finding.probe).two_sided else -math.inf
    if not lowest <= finding.interval.low <= finding.interval.high <= acceptance.bound:
        note = f"It is accepted up to {acceptance.bound:g} only, and the interval reaches further"
        return replace(finding, reason=f"{finding.reason} {note} (by {told}).")
    note = f"Accepted up to {acceptance.bound:g} until {acceptance.expires} by {told}."
    return replace(finding, outcome=Outcome.ACCEPTED, reason=f"{finding.reason} {note}")


def _said_of_clean(finding: Finding) -> Finding:
    if not reading_of(finding.probe).residue or finding.outcome is not Outcome.CLEAN:
        return finding
    note = "Nothing to remove: the deployed model already showed no effect."
    return replace(finding, reason=f"{finding.reason} {note}")


def judge_candidate(name: str, kind: Kind, findings: Sequence[Finding]) -> CandidateVerdict:
    """Return the worst of a candidate's gating findings; without a residue probe none passes."""
    gates = [(f.outcome, f.reason) for f in findings if f.gating]
    if not any(f.gating and reading_of(f.probe).residue for f in findings):
        reason = (
            "No probe could measure the poison: give its evidence (canaries, targets or a "
            "trigger). Without any, `check --rehearse` at least tries the methods on a copy."
        )
        gates.append((Outcome.INCONCLUSIVE, reason))
    outcome, reason = min(gates, key=lambda pair: WORST_FIRST.index(pair[0]))
    if outcome is Outcome.NOT_MEASURED:
        outcome = Outcome.INCONCLUSIVE
    if outcome is Outcome.CLEAN:
        reason = _passed(findings)
    return CandidateVerdict(candidate=name, kind=kind, outcome=outcome, reason=reason)


def _passed(findings: Sequence[Finding]) -> str:
    parts = [
        f"{f.probe} within {f.tolerance:.3g} ({f.null + f.detectable:.2g} would have been found)"
        for f in findings
        if f.gating
        and reading_of(f.probe).residue
        and f.null is not None
        and f.tolerance is not None
        and f.detectable is not None
    ]
    return f"Detected nothing beyond tolerance: {', '.join(parts)}."


def _audit_verdict(
    policy: Policy,
    sanity: Sanity,
    candidates: Sequence[CandidateVerdict],
    doubts: Sequence[Doubt],
) -> Verdict:
    if not sanity.works:
        outcome = Outcome.INCONCLUSIVE
        sentence = (
            f"The model does not work as loaded: it answers {sanity.correct} of {sanity.total} "
            f"clean test samples correctly, no better than always naming the commonest class."
        )
        step = (
            "Check the architecture, how inputs are read (--normalize, --prompt) and the order of "
            "the labels; nothing was measured."
        )
        if (doubt := _kept_shut(doubts, passes=False)) is not None:
            sentence, step = f"{sentence} {doubt.sentence}", doubt.step
    else:
        outcome, sentence = _gate(policy, candidates)
        step = _next_step(policy, outcome, candidates)
        if outcome in (Outcome.CLEAN, Outcome.ACCEPTED) and (told := looser(policy)):
            sentence += f" {told}"
        if outcome is Outcome.ACCEPTED and (told := far(policy)):
            sentence += f" {told}"
        doubt = _kept_shut(doubts, passes=EXIT_CODES[outcome] == 0)
        if doubt is not None:
            outcome, sentence, step = Outcome.INCONCLUSIVE, doubt.sentence, doubt.step
    code = EXIT_CODES[outcome]
    if policy.exit_zero and code == 1:
        code = 0
        sentence += " (Reported as 0 because of --exit-zero.)"
    return Verdict(
        outcome=outcome,
        exit_code=code,
        gate=policy.gate,
        sentence=sentence,
        next_step=step,
        candidates=tuple(candidates),
    )


def _kept_shut(doubts: Sequence[Doubt], *, passes: bool) -> Doubt | None:
    """Return the doubt that makes the verdict inconclusive, one that spoils all first."""
    grave = next((doubt for doubt in doubts if doubt.spoils), None)
    return grave or (doubts[0] if doubts and passes else None)


def _gate(policy: Policy, candidates: Sequence[CandidateVerdict]) -> tuple[Outcome, str]:
    if policy.gate == "any-method":
        repaired = [c for c in candidates if c.kind in ("method", "candidate")]
        clean = [c.candidate for c in repaired if c.outcome is Outcome.CLEAN]
        if clean:
            return Outcome.CLEAN, f"Repaired and clean: {', '.join(clean)}."
        for c in repaired:
            if c.outcome is Outcome.ACCEPTED:
                told = f"No repaired candidate is clean; {c.candidate} is let through as an"
                return Outcome.ACCEPTED, f"{told} accepted risk. {c.reason}"
        if not repaired:
            return Outcome.INCONCLUSIVE, "No repaired candidate was on trial."
        worst = min((c.outcome for c in repaired), key=WORST_FIRST.index)
        return worst, f"None of the {len(repaired)} repaired candidates is clean."
    chosen = next((c for c in candidates if c.candidate == policy.gate), None)
    if chosen is None:
        return Outcome.INCONCLUSIVE, f"The gate, {policy.gate}, was not on trial."
    if chosen.kind == "reference":
        told = f"The gate, {policy.gate}, is a reference: a yardstick says nothing of the model."
        return Outcome.INCONCLUSIVE, told
    subject = "The deployed model" if chosen.kind == "deployed" else f"Candidate {chosen.candidate}"
    says = {
        Outcome.CLEAN: f"shows no residual poison (alpha {policy.alpha:g})",
        Outcome.ACCEPTED: "is let through as an accepted risk",
        Outcome.RESIDUAL: "still carries the poison",
        Outcome.ACTIVATED: "carries poison that unlearning made stronger",
        Outcome.BROKEN: "is broken",
        Outcome.FAILED: "could not be measured",
        Outcome.INCONCLUSIVE: "could not be cleared",
    }[chosen.outcome]
    return chosen.outcome, f"{subject} {says}. {chosen.reason}"


def _next_step(policy: Policy, outcome: Outcome, candidates: Sequence[CandidateVerdict]) -> str:
    references = [c for c in candidates if c.kind == "reference"]
    if suspicious := [c.candidate for c in references if c.outcome is Outcome.RESIDUAL]:
        return (
            f"First look into the reference {', '.join(suspicious)}: a model that never saw the "
            "poison should be clean. Was it trained without the forget set?"
        )
    repaired = [c for c in candidates if c.kind in ("method", "candidate")]
    clean = [c.candidate for c in repaired if c.outcome is Outcome.CLEAN]
    if outcome is Outcome.CLEAN:
        return "The gate is open: the model may ship. Keep this report with it."
    if outcome is Outcome.ACCEPTED:
        days = [a.expires for a in policy.accepted if a.expires >= (policy.decided or "")]
        until = min(days, default="it expires")
        return (
            f"The gate is open until {until}, not because the model is clean: replace it or renew "
            "the acceptance by then. Keep this report with the model."
        )
    if EXIT_CODES[outcome] == 3:
        return (
            "Do not ship on this. Give more evidence: more canaries of the planting, targets or "
            "draws, or a larger test set; the findings say how many. Where a control failed, look "
            "into that first."
        )
    if clean and policy.gate != "any-method":
        return (
            f"Clean at its own level: {', '.join(clean)}. Before shipping one, audit it again by "
            "--gate any-method, which allows for having chosen the best."
        )
    if repaired:
        return (
            "No repair that was tried is clean: retrain without the poisoned samples (the forget "
            "set), or try another repair."
        )
    return (
        "Run `poison-audit check` to see which methods remove it, or retrain without the poisoned "
        "samples (the forget set)."
    )
