"""Findings and verdict, from measurements and tolerances alone.

A measurement becomes a finding by its interval against its tolerance, never by a p-value:

    CLEAN         the whole interval lies within the tolerance: an equivalence test
    RESIDUAL      the interval excludes the null and reaches beyond the tolerance
    INCONCLUSIVE  neither, so more samples are needed

A two-sided effect (gaussian, exposure) is judged in both directions; a one-sided one (utility) in
the harmful one, as BROKEN. The level of each interval is chosen so that the exit code errs with
probability at most alpha in either direction: alpha is divided by the candidate's gating probes, by
the seeds of a method (judged by its worst), and, when any repaired candidate may open the gate, by
the number of those.

Why that is enough. A clean effect is called RESIDUAL only if its interval misses the null. An
effect beyond the tolerance is called CLEAN only if its interval misses the effect. Both happen
with probability at most 1 - level (two-sided) or (1 - level) / 2 (one-sided) per interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scipy import stats as scipy_stats

from audit import stats
from audit.records import (
    CandidateVerdict,
    Cell,
    Finding,
    Interval,
    Kind,
    Measurement,
    Outcome,
    Plan,
    Policy,
    Sanity,
    Verdict,
)

EXIT_CODES = {
    Outcome.CLEAN: 0,
    Outcome.RESIDUAL: 1,
    Outcome.ACTIVATED: 1,
    Outcome.BROKEN: 1,
    Outcome.INCONCLUSIVE: 3,
    Outcome.NOT_MEASURED: 3,
    Outcome.FAILED: 3,
}

WORST_FIRST = (
    Outcome.ACTIVATED,
    Outcome.RESIDUAL,
    Outcome.BROKEN,
    Outcome.FAILED,
    Outcome.INCONCLUSIVE,
    Outcome.NOT_MEASURED,
    Outcome.CLEAN,
    Outcome.INFO,
)

PROBES_OF = {
    "gaussian": ("gaussian", "exposure"),
    "targeted": ("targeted",),
    "backdoor": ("backdoor",),
    "indiscriminate": ("indiscriminate",),
}
"""The probes that a forget set must pass if it names this attack."""

RESIDUE = ("gaussian", "exposure")
TWO_SIDED = frozenset(RESIDUE)
GATING = (*RESIDUE, "utility")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What `decide` returns."""

    findings: tuple[Finding, ...]
    verdict: Verdict


def decide(
    plan: Plan, sanity: Sanity, cells: Sequence[Cell], *, attacks: Mapping[str, int]
) -> Decision:
    """Judge every measurement, every candidate and the audit.

    Args:
        plan: holds the policy, the number of seeds and the probes.
        sanity: if the model does not work as loaded, nothing passes.
        cells: one a candidate and seed.
        attacks: forget samples by the attack they are said to be part of ("" = unknown).
    """
    required = {probe for attack in attacks for probe in PROBES_OF.get(attack, ())}
    by_name: dict[str, list[Cell]] = {}
    for cell in cells:
        by_name.setdefault(cell.candidate, []).append(cell)
    repaired = sum(group[0].kind in ("method", "candidate") for group in by_name.values())
    share = max(1, repaired) if plan.policy.gate == "any-method" else 1
    nothing_to_remove = False
    findings: list[Finding] = []
    verdicts: list[CandidateVerdict] = []
    for name, group in by_name.items():
        here: list[Finding] = []
        for cell in group:
            alpha = plan.policy.alpha / (share * len(group))
            here += judge_cell(cell, plan, alpha=alpha, required=required)
        if nothing_to_remove and group[0].kind == "method":
            here = [_said_of_clean(finding) for finding in here]
        verdict = judge_candidate(name, group[0].kind, here)
        if group[0].kind == "deployed":
            nothing_to_remove = verdict.outcome is Outcome.CLEAN
        findings += here
        verdicts.append(verdict)
    return Decision(findings=tuple(findings), verdict=_audit_verdict(plan.policy, sanity, verdicts))


def judge_cell(cell: Cell, plan: Plan, *, alpha: float, required: set[str]) -> list[Finding]:
    """Judge the measurements of one cell at simultaneous error `alpha`."""
    if cell.error is not None:
        return [
            Finding(
                probe=step.name,
                candidate=cell.candidate,
                seed=cell.seed,
                outcome=Outcome.FAILED,
                gating=step.name in GATING,
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
    gating = RESIDUE if cell.kind == "deployed" else GATING
    tests = sum(m.probe in gating and m.evidence is not None for m in every)
    return [
        judge(m, cell, plan.policy, alpha=alpha / max(1, tests), required=m.probe in required)
        for m in every
    ]


def judge(
    measurement: Measurement, cell: Cell, policy: Policy, *, alpha: float, required: bool
) -> Finding:
    """Judge one measurement at error `alpha` in either direction."""
    probe, evidence = measurement.probe, measurement.evidence
    who: dict[str, Any] = {"probe": probe, "candidate": cell.candidate, "seed": cell.seed}
    if evidence is None:
        return Finding(
            **who,
            outcome=Outcome.NOT_MEASURED,
            gating=required or (probe == "utility" and cell.kind != "deployed"),
            reason=f"Not measured: {measurement.missing}.",
        )
    if probe == "membership":
        return _membership(who, evidence)
    level = 1 - alpha if probe in TWO_SIDED else 1 - 2 * alpha
    tolerance = policy.tolerances[probe]
    estimate = _estimate(probe, evidence, level=level, tolerance=tolerance)
    outcome, overshot = _outcome(probe, estimate, tolerance)
    if measurement.suspect:
        outcome = Outcome.INCONCLUSIVE
    reason = _sentence(probe, outcome, estimate, tolerance, overshot, measurement.suspect)
    yardstick = cell.kind == "deployed" and probe == "utility"
    if yardstick:
        outcome, reason = Outcome.INFO, "The yardstick: the others' accuracy is compared with it."
    return Finding(
        **who,
        outcome=outcome,
        gating=not yardstick,
        reason=reason,
        statistic=estimate.value,
        null=estimate.null,
        tolerance=tolerance,
        interval=Interval(low=estimate.low, high=estimate.high, level=estimate.level),
        p_value=estimate.p_value,
        z=estimate.z,
        sample_size=estimate.n,
        detectable=estimate.detectable,
        needed=estimate.needed,
        details=_details(probe, evidence, estimate),
    )


def _estimate(
    probe: str, evidence: Mapping[str, Any], *, level: float, tolerance: float
) -> stats.Estimate:
    if probe == "gaussian":
        return stats.mean_score(evidence["scores"], level=level, tolerance=tolerance)
    if probe == "exposure":
        return stats.mean_rank(
            evidence["wins"], evidence["draws"], level=level, tolerance=tolerance
        )
    return stats.paired_loss(
        only_before=evidence["only_deployed"],
        only_after=evidence["only_candidate"],
        n=evidence["n"],
        level=level,
        tolerance=tolerance,
    )


def _outcome(probe: str, estimate: stats.Estimate, tolerance: float) -> tuple[Outcome, bool]:
    """Return the outcome, and whether it is on the far side of the null (overshot)."""
    low, high = estimate.low - estimate.null, estimate.high - estimate.null
    width = tolerance - estimate.null
    if probe not in TWO_SIDED:
        if high <= width:
            return Outcome.CLEAN, False
        return (Outcome.BROKEN if low > 0 else Outcome.INCONCLUSIVE), False
    if -width <= low and high <= width:
        return Outcome.CLEAN, False
    if low > 0:
        return Outcome.RESIDUAL, False
    if high < 0:
        return Outcome.RESIDUAL, True
    return Outcome.INCONCLUSIVE, False


_MEANS = {
    "gaussian": "The mean leak score",
    "exposure": "The chance that planted noise beats fresh noise",
    "utility": "The accuracy lost against the deployed model",
}
_UNITS = {"gaussian": "canaries", "exposure": "canaries", "utility": "test samples"}


def _sentence(
    probe: str,
    outcome: Outcome,
    estimate: stats.Estimate,
    tolerance: float,
    overshot: bool,
    suspect: str | None,
) -> str:
    figure = (
        f"{_told(probe, estimate.value)} "
        f"[{_told(probe, estimate.low)}, {_told(probe, estimate.high)}]"
    )
    if suspect:
        return f"A control failed: {suspect}. The figure, {figure}, cannot be trusted."
    band = (
        f"{_told(probe, 2 * estimate.null - tolerance)} to {_told(probe, tolerance)}"
        if probe in TWO_SIDED
        else f"at most {_told(probe, tolerance)}"
    )
    what = f"{_MEANS[probe]} is {figure}"
    if outcome is Outcome.CLEAN:
        return f"{what}, within tolerance ({band})."
    if outcome is Outcome.INCONCLUSIVE:
        more = (
            f"About {estimate.needed} {_UNITS[probe]} would decide it for a clean model"
            if estimate.needed > estimate.n
            else f"The {estimate.n} {_UNITS[probe]} suffice for most clean models, not for this one"
        )
        return f"{what}, neither within tolerance ({band}) nor surely beyond it. {more}."
    if overshot:
        return (
            f"{what}: overshot. The model was pushed against the canaries, beyond tolerance "
            f"({band}), so it differs from one that never saw them."
        )
    if outcome is Outcome.BROKEN:
        return f"{what}: surely some, and not within tolerance ({band})."
    return (
        f"{what}: surely above {estimate.null:g}, which a model that never saw them has, and not "
        f"within tolerance ({band})."
    )


def _told(probe: str, value: float) -> str:
    """Return a figure as sentences give it: utility in points, the others as they are."""
    return f"{100 * value:.2f} points" if probe == "utility" else f"{value:.3f}"


def _details(probe: str, evidence: Mapping[str, Any], estimate: stats.Estimate) -> dict[str, Any]:
    if probe == "exposure":
        return {"draws": evidence["draws"], "spread": estimate.spread}
    if probe == "utility":
        n, before = evidence["n"], evidence["both"] + evidence["only_deployed"]
        after = evidence["both"] + evidence["only_candidate"]
        low, high = stats.clopper_pearson(after, n)
        return {
            "accuracy": after / n,
            "accuracy_low": low,
            "accuracy_high": high,
            "deployed_accuracy": before / n,
        }
    scores, fpr = evidence["scores"], 0.01
    threshold = float(scipy_stats.norm.isf(fpr))
    hits = sum(score > threshold for score in scores)
    low, high = stats.clopper_pearson(hits, len(scores))
    held_out = evidence["held_out"]
    return {
        "tpr": hits / len(scores),
        "tpr_low": low,
        "tpr_high": high,
        "fpr": fpr,
        "held_out_mean": math.fsum(held_out) / len(held_out) if held_out else None,
        "held_out_p": float(scipy_stats.kstest(held_out, "norm").pvalue) if held_out else None,
        "dropped": evidence["dropped"],
        "spread": estimate.spread,
    }


def _membership(who: dict[str, Any], evidence: Mapping[str, Any]) -> Finding:
    level = 0.95
    half = float(scipy_stats.norm.ppf(0.5 + level / 2)) * evidence["auc_se"]
    value, hits, n = evidence["auc"], evidence["hits"], evidence["forget"]
    low, high = stats.clopper_pearson(hits, n)
    z = (value - 0.5) / evidence["auc_se"] if evidence["auc_se"] > 0 else None
    return Finding(
        **who,
        outcome=Outcome.INFO,
        gating=False,
        reason="Shown because it is expected; it misses poison, so it decides nothing.",
        statistic=value,
        null=0.5,
        interval=Interval(low=max(0.0, value - half), high=min(1.0, value + half), level=level),
        p_value=None if z is None else float(2 * scipy_stats.norm.sf(abs(z))),
        z=z,
        sample_size=n,
        details={"tpr": hits / n, "tpr_low": low, "tpr_high": high, "fpr": evidence["fpr"]},
    )


def _said_of_clean(finding: Finding) -> Finding:
    if finding.probe not in RESIDUE or finding.outcome is not Outcome.CLEAN:
        return finding
    note = "Nothing to remove: the deployed model already showed no effect."
    return replace(finding, reason=f"{finding.reason} {note}")


def judge_candidate(name: str, kind: Kind, findings: Sequence[Finding]) -> CandidateVerdict:
    """Return the worst of a candidate's gating findings; without a residue probe none passes."""
    gates = [(f.outcome, f.reason) for f in findings if f.gating]
    if not any(f.gating and f.probe in RESIDUE for f in findings):
        reason = (
            "No probe could measure the poison: give its evidence (canaries, targets or a trigger)."
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
        f"{f.probe} within {f.tolerance:.3g} (an effect of {f.detectable:.2g} would have been "
        "found)"
        for f in findings
        if f.gating and f.probe in RESIDUE and f.tolerance is not None and f.detectable is not None
    ]
    return f"No residual poison detected: {'; '.join(parts)}."


def _audit_verdict(
    policy: Policy, sanity: Sanity, candidates: Sequence[CandidateVerdict]
) -> Verdict:
    if not sanity.works:
        outcome = Outcome.INCONCLUSIVE
        sentence = (
            f"The model does not work as loaded: it answers {sanity.correct} of {sanity.total} "
            f"clean test samples correctly, no better than always naming the commonest class."
        )
        step = "Check --arch, --normalize and the order of the labels; nothing was measured."
    else:
        outcome, sentence = _gate(policy, candidates)
        step = _next_step(policy, outcome, candidates)
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


def _gate(policy: Policy, candidates: Sequence[CandidateVerdict]) -> tuple[Outcome, str]:
    if policy.gate == "any-method":
        repaired = [c for c in candidates if c.kind in ("method", "candidate")]
        clean = [c.candidate for c in repaired if c.outcome is Outcome.CLEAN]
        if clean:
            return Outcome.CLEAN, f"Repaired and clean: {', '.join(clean)}."
        if not repaired:
            return Outcome.INCONCLUSIVE, "No repaired candidate was on trial."
        worst = min((c.outcome for c in repaired), key=WORST_FIRST.index)
        return worst, f"None of the {len(repaired)} repaired candidates is clean."
    chosen = next((c for c in candidates if c.candidate == policy.gate), None)
    if chosen is None:
        return Outcome.INCONCLUSIVE, f"The gate, {policy.gate}, was not on trial."
    subject = "The deployed model" if chosen.kind == "deployed" else f"Candidate {chosen.candidate}"
    says = {
        Outcome.CLEAN: "shows no residual poison",
        Outcome.RESIDUAL: "still carries the poison",
        Outcome.ACTIVATED: "carries poison that unlearning made stronger",
        Outcome.BROKEN: "is broken",
        Outcome.FAILED: "could not be measured",
        Outcome.INCONCLUSIVE: "could not be cleared",
    }[chosen.outcome]
    return chosen.outcome, f"{subject} {says}. {chosen.reason}"


def _next_step(policy: Policy, outcome: Outcome, candidates: Sequence[CandidateVerdict]) -> str:
    suspicious = [
        c.candidate for c in candidates if c.kind == "reference" and c.outcome is Outcome.RESIDUAL
    ]
    if suspicious:
        return (
            f"First look into the reference {', '.join(suspicious)}: a model that never saw the "
            "poison should be clean. Was it trained without the forget set?"
        )
    repaired = [c for c in candidates if c.kind in ("method", "candidate")]
    clean = [c.candidate for c in repaired if c.outcome is Outcome.CLEAN]
    if outcome is Outcome.CLEAN:
        return "The gate is open. Keep this report with the model."
    if EXIT_CODES[outcome] == 3:
        return "Give more evidence: more canaries of the planting, or a larger test set."
    if clean and policy.gate != "any-method":
        return (
            f"Clean at its own level: {', '.join(clean)}. Before shipping one, audit it again by "
            "--gate any-method, which allows for having chosen the best."
        )
    if repaired:
        return "No repair on trial is clean: retrain without the forget set, or try another."
    return "Run `poison-audit check` to see which methods remove it, or retrain without it."
