"""What every method costs a model that there is nothing to repair in.

A reference takes the place of the deployed model, and as many random retain samples that of the
forget set. Each method gets the numbers and the gradient evaluations that it gets in the audit. The
accuracy that it costs there, on the same test samples before and after, explains what it costs the
deployed model, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch

from poison_audit.case.case import Case
from poison_audit.case.harm import Harm, figures_of
from poison_audit.case.load import Trial
from poison_audit.engine.cells import kept_place, store, stored
from poison_audit.engine.measuring import load_references
from poison_audit.engine.unlearning import allowance, found_part, unlearn
from poison_audit.errors import InputError, Problem
from poison_audit.methods import METHODS
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.records import Plan
from poison_audit.training.scoring import correct, exact


def harm(
    trial: Trial,
    plan: Plan,
    out: Path,
    *,
    key: str,
    allow_pickle: bool = False,
    tell: Callable[[str], object] = lambda name: None,
) -> tuple[Harm, ...]:
    """Run every method of the plan on the first reference that is not on disk yet; return all.

    Args:
        tell: told the name of a method before it runs.

    Raises:
        InputError: there is no reference.
    """
    names = references_of(trial)
    found = found_part(trial.case, plan)
    case: Case | None = None
    told = []
    for step in plan.methods:
        if METHODS[step.name].reference:
            continue
        place = kept_place(
            out, f"harm-{step.name}", {"key": key, "step": asdict(step), "budget": plan.budget}
        )
        seen = stored(Harm, place).record
        if seen is None:
            tell(step.name)
            if case is None:
                model = load_references(trial, allow_pickle=allow_pickle)[0]
                case = swapped(found, model, Rng(plan.seed).named("harm"))
            # As much as in the audit, where the training set is larger.
            share = plan.budget * allowance(found, 1.0) / allowance(case, 1.0)
            own = Rng(plan.seed).named("harm", step.name)
            done = unlearn(case, step, own, budget=share)
            plain = Harm(
                method=step.name, reference=names[0], forgotten=len(case.forget),
                missing=done.error or "it gave no model",
            )  # fmt: skip
            seen = plain if done.model is None else _counted(plain, case, done.model)
            if done.lack is None:
                store(place, seen)
        told.append(seen)
    return tuple(told)


def references_of(trial: Trial) -> list[str]:
    """Return the names of the models that never saw the poison; InputError: there is none."""
    names = [one.name for one in trial.contenders if one.kind == "reference"]
    if not names:
        fix = "Give a model that never saw the poison (--reference), or leave it out"
        raise InputError(Problem("needs a reference to try the methods on", "--harm", fix))
    return names


def swapped(case: Case, model: Model, rng: Rng) -> Case:
    """Return a case in which a clean model is to forget random retain samples.

    As many as the forget set holds, at most half of retain.
    """
    total = len(case.retain)
    order = torch.randperm(total, generator=rng.named("forget").torch())
    size = min(len(case.forget), total // 2)
    return replace(
        case,
        model=model,
        forget=case.retain.at(order[:size].sort().values),
        retain=case.retain.at(order[size:].sort().values),
        evidence={},
        references=(),
        attacks=(),
        baseline=None,
    )


def _counted(plain: Harm, case: Case, after: Model) -> Harm:
    """Return what a method did, by the answers on the test samples before and after."""
    answers = []
    for model in (case.model, after):
        with exact(model.module):
            answers.append(correct(model, case.test))
    old, new = answers
    only_before, only_after = int((old & ~new).sum()), int((~old & new).sum())
    lost, interval = figures_of(only_before, only_after, len(old))
    return replace(
        plain, both=int((old & new).sum()), neither=int((~old & ~new).sum()),
        only_before=only_before, only_after=only_after, lost=lost, interval=interval, missing=None,
    )  # fmt: skip
