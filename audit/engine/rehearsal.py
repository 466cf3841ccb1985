"""Rehearsal: the methods tried on a copy of the model that was poisoned for the purpose.

For the usual incident: a forget set without keys, trigger or targets. Nothing then shows whether
the deployed model still carries the poison. What can be shown is which methods would remove a
poison of this size from *this* model. The forget samples get keyed noise of our own, a copy is
trained on until it holds them, the methods run on the copy, and the probes judge them as they judge
a real case. A rehearsal judges methods, never the deployed model.

What is planted, and how much, stands in engine.rehearsal_planting; how the copy is made, and what
"holds" means, in engine.rehearsal_copy.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from poison_audit.atomic import digest_of
from poison_audit.case.case import Case
from poison_audit.case.load import Trial
from poison_audit.checks.sanity import check_sanity
from poison_audit.engine.probes import PROBES, probe_parameters
from poison_audit.engine.rehearsal_copy import FORGIVEN, Copy, store_copy, stored_copy, train_copy
from poison_audit.engine.rehearsal_planting import (
    bare,
    check_size,
    commitment,
    dose,
    mean_loss,
    poisoned,
    sample,
    spread_of,
)
from poison_audit.engine.run import Progress, run
from poison_audit.methods import METHODS, UNLEARNING
from poison_audit.models.seeds import Rng
from poison_audit.poisons.gaussian.reading import POISON
from poison_audit.records import CandidateVerdict, Cell, Finding, Outcome, Plan, Rehearsal, Step

__all__ = ["Judge", "check_size", "rehearse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Who decides about the cells of a rehearsal: an engine measures, and does not judge."""

    name: str
    """Of the copy among the candidates."""
    probes: tuple[str, ...]
    """What is asked of it, and of what the methods make of it."""
    decide: Callable[..., tuple[tuple[Finding, ...], tuple[CandidateVerdict, ...]]]
    """(plan, cells, *, planted, held) -> findings and candidates."""
    sentence: Callable[..., str]
    """(findings, candidates, *, useless, epochs, held, planted, sigma) -> what it comes to."""


def rehearse(
    trial: Trial,
    plan: Plan,
    out: Path,
    *,
    key: str,
    judge: Judge,
    sigma: float | None = None,
    epochs: int | None = None,
    report: Callable[[Progress], None] = lambda _: None,
) -> Rehearsal:
    """Poison a copy, run the methods of the plan on it, and say which of them would have helped.

    An interrupted rehearsal goes on where it stopped.

    Args:
        trial: the validated case; its own evidence and contenders are left out.
        plan: whose methods, seeds, budget and tolerances hold; retraining is left out.
        out: the run directory; the rehearsal lies in its folder `rehearsal`.
        key: the audit's `fingerprint`.
        judge: decides whether the copy holds the poison, and about what the methods make of it.
        sigma: standard deviation of the noise, above 0, in pixels or embedding units; by default
            as engine.rehearsal_planting says.
        epochs: passes over train that the copy may be trained further, at least 1; by default
            the recipe's.
        report: called when a job of the rehearsal starts and when it ends.

    Raises:
        InputError: the noise would not fit into memory (`check_size`).
        ValueError: neither `epochs` nor the recipe says how long the copy may be trained.
    """
    limit = epochs if epochs is not None else math.ceil(trial.case.recipe.epochs or 0)
    if limit < 1:
        raise ValueError("a rehearsal needs the recipe's epochs")
    folder, case = out / "rehearsal", bare(trial.case)
    check_size(case)
    rng = Rng(plan.seed).named("rehearsal")
    usual = sample(case.retain, len(case.forget), rng.named("usual"))
    usual_loss, unseen_loss = mean_loss(case.model, usual), mean_loss(case.model, case.test)
    secret = hashlib.sha256(f"poison-audit rehearsal\0{plan.seed}".encode()).digest()
    if sigma is None:
        sigma = dose(case, secret, spread=spread_of(case.model, usual), unseen_loss=unseen_loss)
    case = poisoned(case, secret, sigma)
    own = digest_of([key, "rehearsal", sigma, limit])
    target = usual_loss + FORGIVEN * max(0.0, unseen_loss - usual_loss)
    copy = stored_copy(case.model, folder, own)
    if copy is None:
        copy = train_copy(case, rng, target=target, limit=limit)
        store_copy(copy, folder, own)
    stage = replace(trial, case=replace(case, model=copy.model), contenders=())
    own_plan = _own_plan(plan, judge.probes, stage.case)
    cells, findings, candidates, found = _perform(
        stage, own_plan, folder, copy, key=own, judge=judge, report=report
    )
    told: dict[str, Any] = {
        "planted": len(case.forget), "sigma": sigma, "epochs": float(copy.epochs),
        "held": copy.held,
    }  # fmt: skip
    return Rehearsal(
        commitment=commitment(secret),
        loss=copy.loss,
        usual_loss=usual_loss,
        cells=cells,
        findings=findings,
        candidates=candidates,
        sentence=judge.sentence(findings, candidates, useless=found, **told),
        **told,
    )


def _own_plan(plan: Plan, probes: Sequence[str], case: Case) -> Plan:
    """Return the plan of the rehearsal: unlearning only, at one budget."""
    given = {step.name: step for step in plan.probes}
    return replace(
        plan,
        methods=tuple(
            step
            for step in plan.methods
            if step.name in UNLEARNING and METHODS[step.name].unfit(case) is None
        ),
        probes=tuple(
            given.get(name) or Step(name=name, params=probe_parameters(name))
            for name in probes
            if name in PROBES
        ),
        sweep=(),
        reaudit=False,
        own=(),
    )


def _perform(
    stage: Trial,
    plan: Plan,
    folder: Path,
    copy: Copy,
    *,
    key: str,
    judge: Judge,
    report: Callable[[Progress], None],
) -> tuple[tuple[Cell, ...], tuple[Finding, ...], tuple[CandidateVerdict, ...], str | None]:
    """Probe the copy, and run the methods if its poison is found; the last says why not, if not."""
    case, sanity = check_sanity(stage.case, alpha=plan.policy.alpha)
    stage = replace(stage, case=case)
    useless = copy.broken
    if useless is None and not sanity.works:
        useless = f"it answers only {sanity.correct} of {sanity.total} test samples correctly"
    if useless is not None:
        return (), (), _untried(plan, useless), useless
    relabelled = _labelling(report, judge.name)
    alone = replace(plan, methods=())
    cells = _named(judge.name, run(stage, alone, folder, key=key, report=relabelled))
    told: dict[str, Any] = {"planted": len(case.forget), "held": copy.held}
    findings, candidates = judge.decide(alone, cells, **told)
    if not any(_is_effect(finding) for finding in findings):
        useless = "no effect of the canaries was found in it"
        return cells, findings, (*candidates, *_untried(plan, useless)), useless
    cells = _named(judge.name, run(stage, plan, folder, key=key, report=relabelled))
    return cells, *judge.decide(plan, cells, **told), None


def _is_effect(finding: Finding) -> bool:
    """Say whether the canaries were found, on the side of a model that trained on them."""
    return (
        finding.probe in [reading.name for reading in POISON.readings]
        and finding.outcome in (Outcome.RESIDUAL, Outcome.INCONCLUSIVE)
        and finding.interval is not None
        and finding.null is not None
        and finding.interval.low > finding.null
    )


def _untried(plan: Plan, why: str) -> tuple[CandidateVerdict, ...]:
    reason = f"Not tried: the rehearsed copy is of no use, since {why}."
    return tuple(
        CandidateVerdict(
            candidate=step.name, kind="method", outcome=Outcome.INCONCLUSIVE, reason=reason
        )
        for step in plan.methods
    )


def _labelling(report: Callable[[Progress], None], copy: str) -> Callable[[Progress], None]:
    def labelled(progress: Progress) -> None:
        job = progress.job
        name = copy if job.kind == "deployed" else f"rehearsal of {job.candidate}"
        report(replace(progress, job=replace(job, candidate=name)))

    return labelled


def _named(copy: str, cells: Sequence[Cell]) -> tuple[Cell, ...]:
    return tuple(replace(c, candidate=copy) if c.kind == "deployed" else c for c in cells)
