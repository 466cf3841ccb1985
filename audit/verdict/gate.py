"""The gate: from what the candidates come to, to the audit's verdict, its exit code and advice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from poison_audit.case.doubts import Doubt
from poison_audit.records import WORST_FIRST, CandidateVerdict, Outcome, Policy, Sanity
from poison_audit.verdict.policy import far, looser
from poison_audit.verdict.record import ExitCode, Verdict

EXIT_CODES: Mapping[Outcome, ExitCode] = {
    Outcome.CLEAN: 0,
    Outcome.ACCEPTED: 0,
    Outcome.RESIDUAL: 1,
    Outcome.ACTIVATED: 1,
    Outcome.ASLEEP: 1,
    Outcome.BROKEN: 1,
    Outcome.INCONCLUSIVE: 3,
    Outcome.NOT_MEASURED: 3,
    Outcome.FAILED: 3,
}


def audit_verdict(
    policy: Policy,
    sanity: Sanity,
    candidates: Sequence[CandidateVerdict],
    doubts: Sequence[Doubt],
    steps: Mapping[str, str],
) -> Verdict:
    """Return what the audit comes to.

    Args:
        policy: holds the gate.
        sanity: if the model does not work as loaded, nothing passes.
        candidates: what each comes to.
        doubts: with any of them nothing passes.
        steps: what to do about the worst that was found, by candidate.
    """
    if not sanity.works:
        outcome = Outcome.INCONCLUSIVE
        sentence = (
            f"The model does not work as loaded: it answers {sanity.correct:,} of "
            f"{sanity.total:,} clean test samples correctly, no better than always guessing the "
            "most common class."
        )
        step = (
            "Nothing was measured. Check the architecture, how inputs are read (--normalize, "
            "--prompt) and the order of the labels."
        )
        if (doubt := _kept_shut(doubts, passes=False)) is not None:
            sentence, step = f"{sentence} {doubt.sentence}", doubt.step
    else:
        outcome, sentence = _gate(policy, candidates)
        step = _next_step(policy, outcome, candidates, steps)
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
        undecided = [c.candidate for c in repaired if EXIT_CODES[c.outcome] != 1]
        if undecided:
            told = f"No repaired candidate is surely clean; these may be: {', '.join(undecided)}."
            return Outcome.INCONCLUSIVE, told
        worst = min((c.outcome for c in repaired), key=WORST_FIRST.index)
        return worst, f"None of the {len(repaired)} repaired candidates is clean."
    chosen = next((c for c in candidates if c.candidate == policy.gate), None)
    if chosen is None:
        return Outcome.INCONCLUSIVE, f"The gate, {policy.gate}, was not on trial."
    if chosen.kind == "reference":
        told = f"The gate, {policy.gate}, is a reference. That says nothing about the model."
        return Outcome.INCONCLUSIVE, told
    subject = "The deployed model" if chosen.kind == "deployed" else f"Candidate {chosen.candidate}"
    says = {
        Outcome.CLEAN: "shows no more poison than is tolerated",
        Outcome.ACCEPTED: "is let through as an accepted risk",
        Outcome.RESIDUAL: "is still poisoned",
        Outcome.ACTIVATED: "is poisoned, and unlearning made it worse",
        Outcome.ASLEEP: "is still poisoned: the poison is only asleep",
        Outcome.BROKEN: "is broken",
        Outcome.FAILED: "could not be measured",
        Outcome.INCONCLUSIVE: "could not be cleared",
    }[chosen.outcome]
    return chosen.outcome, f"{subject} {says}. {chosen.reason}"


def _next_step(
    policy: Policy,
    outcome: Outcome,
    candidates: Sequence[CandidateVerdict],
    steps: Mapping[str, str],
) -> str:
    references = [c for c in candidates if c.kind == "reference"]
    if suspicious := [c.candidate for c in references if c.outcome is Outcome.RESIDUAL]:
        return (
            f"Look into the reference {', '.join(suspicious)} first: a model that never saw the "
            "poison should be clean. Was it trained without the forget set?"
        )
    repaired = [c for c in candidates if c.kind in ("method", "candidate")]
    clean = [c.candidate for c in repaired if c.outcome is Outcome.CLEAN]
    if outcome is Outcome.CLEAN:
        return (
            "The gate passed: this audit found no reason to block the release. Keep this report "
            "with the model."
        )
    if outcome is Outcome.ACCEPTED:
        days = [a.expires for a in policy.accepted if a.expires >= (policy.decided or "")]
        until = min(days, default="it expires")
        return (
            f"The gate passes until {until}, though the model is not clean. Replace it, or renew "
            "the acceptance, by then. Keep this report with the model."
        )
    if EXIT_CODES[outcome] == 3:
        return (
            "Do not release the model on this result. Give the evidence that is missing, and audit "
            "again. If a control failed, look into that first."
        )
    if clean and policy.gate != "any-method":
        return (
            f"Do not release this model. Clean by itself: {', '.join(clean)}. Before you release "
            "one, run the audit again with `--gate any-method`, which allows for picking the best "
            "of several; `--keep` writes the files."
        )
    if outcome is Outcome.BROKEN:
        return (
            "Do not use this repair. Give it a smaller budget or another method, or retrain "
            "without the poisoned samples (the forget set)."
        )
    if outcome is Outcome.ACTIVATED:
        told = "Do not use this repair: go back to the model that it was made of, and retrain"
    elif repaired:
        told = "Do not release the model. No repair that was tried is clean: try others, or retrain"
    else:
        told = "Do not release the model. Try repairs with `poison-audit repair`, or retrain"
    own = steps.get(policy.gate, "")
    return f"{told} without the poisoned samples (the forget set). {own}".rstrip()
