"""Why methods fail: every hypothesis of the plan, asked of the deployed model once."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import torch

from poison_audit.atomic import from_json, to_json, write_atomically
from poison_audit.case.load import Trial
from poison_audit.engine.cells import Lack
from poison_audit.engine.measuring import load_references
from poison_audit.errors import InputError
from poison_audit.hypotheses import ask
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.records import Finding, Outcome, Plan
from poison_audit.training.scoring import exact


def explain(
    trial: Trial, plan: Plan, out: Path, *, key: str, allow_pickle: bool = False
) -> tuple[Finding, ...]:
    """Ask every hypothesis of the plan that is not on disk yet, and return all the findings."""
    references: list[Model] | None = None
    findings = []
    for step in plan.hypotheses:
        own = json.dumps({"key": key, "step": asdict(step)}, sort_keys=True)
        digest = hashlib.sha256(own.encode()).hexdigest()
        path = out / "cells" / f"why-{step.name}-{digest[:16]}.json"
        try:
            findings.append(from_json(Finding, path.read_text("utf-8"), where=str(path)))
            continue
        except (FileNotFoundError, UnicodeDecodeError, InputError):
            pass  # absent or damaged: it is asked again
        if references is None:
            references = load_references(trial, allow_pickle=allow_pickle)
        rng = Rng(plan.seed).named("hypothesis", step.name)
        model = trial.case.model
        try:
            with exact(model.module):
                finding = ask(
                    step.name, model, trial.case, rng, references=references, **step.params
                )
        except torch.OutOfMemoryError:
            findings.append(_unasked(step.name, f"it {Lack.OUT_OF_MEMORY} on {model.device}"))
            continue  # with more memory at hand, the same command tries again
        write_atomically(path, to_json(finding))
        findings.append(finding)
    return tuple(findings)


def _unasked(hypothesis: str, why: str) -> Finding:
    return Finding(
        probe=hypothesis,
        candidate="deployed",
        seed=0,
        gating=False,
        outcome=Outcome.NOT_MEASURED,
        reason=f"Not measured: {why}.",
    )
