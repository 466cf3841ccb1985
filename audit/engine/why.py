"""Why methods fail: every hypothesis of the plan, asked of the deployed model once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from poison_audit.case.load import Trial
from poison_audit.engine.cells import Lack, kept_place, store, stored
from poison_audit.engine.measuring import load_references
from poison_audit.hypotheses import ask
from poison_audit.hypotheses.features import not_measured
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.records import Finding, Plan
from poison_audit.training.scoring import exact


def explain(
    trial: Trial,
    plan: Plan,
    out: Path,
    *,
    key: str,
    allow_pickle: bool = False,
    tell: Callable[[str], object] = lambda text: None,
) -> tuple[Finding, ...]:
    """Ask every hypothesis of the plan that is not on disk yet, and return all the findings.

    `tell` is given a line before each that is asked.
    """
    references: list[Model] | None = None
    findings = []
    for number, step in enumerate(plan.hypotheses, start=1):
        place = kept_place(out, f"why-{step.name}", {"key": key, "step": asdict(step)})
        finding = stored(Finding, place).record  # damaged: it is asked again
        if finding is None:
            if references is None:
                references = load_references(trial, allow_pickle=allow_pickle)
            tell(f"Asking for {step.name} ({number} of {len(plan.hypotheses)})")
            rng, model = Rng(plan.seed).named("hypothesis", step.name), trial.case.model
            try:
                with exact(model.module):
                    finding = ask(
                        step.name, model, trial.case, rng, references=references, **step.params
                    )
                store(place, finding)
            except torch.OutOfMemoryError:  # with more at hand, the same command tries again
                finding = not_measured(step.name, f"it {Lack.OUT_OF_MEMORY} on {model.device}")
        findings.append(finding)
    return tuple(findings)
