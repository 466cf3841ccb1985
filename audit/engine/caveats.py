"""What an audit says of itself beside its figures: repairs that did nothing, memory, halves."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from poison_audit.case.case import Case
from poison_audit.case.load import Trial
from poison_audit.case.tuning import Tuning
from poison_audit.engine.tuning import keyed
from poison_audit.engine.unlearning import found_size
from poison_audit.methods import METHODS
from poison_audit.models.seeds import Rng
from poison_audit.poisons.readings import POISONS
from poison_audit.records import Cell, Plan
from poison_audit.training.repeats import STEPS, apart
from poison_audit.training.sharding import processes


def caveats(plan: Plan, trial: Trial, cells: Sequence[Cell]) -> list[str]:
    """Say which repairs repaired nothing: the same bits, or parameters that cannot act."""
    told = []
    deployed = next((cell.digest for cell in cells if cell.kind == "deployed"), None)
    for cell in cells:
        if cell.kind != "deployed" and cell.digest is not None and cell.digest == deployed:
            told.append(f"{cell.candidate} is bit for bit the deployed model.")
    told += not_woken(plan)
    told += _backed_off(cells, trial.case.model.device)
    told += _unordered(plan, trial.case)
    if processes() > 1:
        told.append(
            f"Training steps were shared among {processes()} processes. Dropout and added noise "
            "are drawn by each for its own part: another number of them gives other figures."
        )
    total = len(trial.case.retain) + len(trial.case.forget)
    found = found_size(plan, len(trial.case.forget))
    idle = (METHODS[step.name].idle(step.params, total, found) for step in plan.methods)
    return told + [why for why in idle if why is not None]


def not_woken(plan: Plan) -> list[str]:
    """Say in which ways models were not woken."""
    if plan.reaudit:
        return []
    return [
        "Models in which no poison was at work were woken by recomputing BatchNorm's statistics "
        "alone, where they have any and that breaks nothing. --reaudit also rounds their weights "
        "and trains on."
    ]


def _backed_off(cells: Sequence[Cell], device: torch.device) -> list[str]:
    """Say whose work did not fit on the device as planned."""
    told = []
    smaller = [f"{cell.candidate} at most {cell.batch}" for cell in cells if cell.batch is not None]
    if smaller:
        told.append(
            f"The memory of {device} gave out; samples evaluated at once: {', '.join(smaller)}. "
            "Their figures change by rounding only, with BatchNorm recalibrated also by the batch."
        )
    offloaded = [cell.candidate for cell in cells if cell.cost and cell.cost.offloaded]
    if offloaded:
        told.append(
            f"The memory of {device} gave out in steps of {', '.join(dict.fromkeys(offloaded))}: "
            "they kept in main memory what their backward pass needs, which took longer and "
            "changes no figure."
        )
    return told


def _unordered(plan: Plan, case: Case) -> list[str]:
    """Say how closely the same command gives the same figures, where it may not be to the bit."""
    device = case.model.device
    if device.type != "cuda" or len(case.retain) == 0:
        return []
    far = apart(case.model, case.retain, case.recipe, Rng(plan.seed).named("apart"))
    if far == 0:
        return []
    told = f"the same {STEPS} training steps made twice ended"
    if far is None:
        return [f"Whether {told} alike on {device} could not be measured."]
    return [
        f"Some kernels of {device} add in no fixed order: {told} up to {far:.0e} of the largest "
        "logit apart. The same command gives the same figures up to about that."
    ]


def halved(tunings: Sequence[Tuning], judged: Case) -> list[str]:
    """Say what tuning looked at, what it cost, and what is judged."""
    if not tunings:
        return []
    counts = [
        (POISONS[name].readings[0].words.samples, len(part)) for name, part in keyed(judged).items()
    ]
    counts.append(("test samples", len(judged.test)))
    left = " and ".join(f"{count:,} {name}" for name, count in counts)
    attempts = [attempt for tuning in tunings for attempt in tuning.attempts]
    spent = sum(attempt.gradients for attempt in attempts)
    return [
        f"The methods were tuned on one half of the canaries and of the test samples; every figure "
        f"is of the other half, {left}. {len(attempts):,} trials cost {spent:,.0f} gradient "
        f"evaluations beside the budgets."
    ]
