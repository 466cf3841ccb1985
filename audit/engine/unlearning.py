"""One method under its budget: what it sees, what it may spend, what it cost."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from poison_audit.case.case import Case
from poison_audit.engine.cells import Lack
from poison_audit.errors import DivergedError, FailedError
from poison_audit.methods import METHODS
from poison_audit.models.memory import lacking
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.records import Cost, Plan, Step
from poison_audit.training import low_rank
from poison_audit.training.ledger import Ledger, Trail


def found_part(case: Case, plan: Plan) -> Case:
    """Return the case as methods see it: what was not found of the forget set is retain data."""
    if plan.found == 1:
        return case
    total = len(case.forget)
    order = Rng(plan.found_seed).named("found").numpy().permutation(total)
    size = found_size(plan, total)
    hidden = case.forget.at(sorted(order[size:].tolist()))
    return replace(
        case,
        forget=case.forget.at(sorted(order[:size].tolist())),
        retain=case.retain.joined(hidden),
    )


def found_size(plan: Plan, total: int) -> int:
    """Return how many of `total` forget samples the methods are given: at least one."""
    return max(1, round(plan.found * total))


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlearned:
    """What a method came to."""

    model: Model | None
    cost: Cost
    error: str | None = None
    """Why there is no model."""
    lack: Lack | None = None
    """The reason where another try may bring one."""


def unlearn(
    case: Case,
    step: Step,
    rng: Rng,
    *,
    budget: float | None,
    trail: Trail | None = None,
    tell: Callable[[float], object] = lambda share: None,
) -> Unlearned:
    """Run one method under its budget; a method that diverges or runs out of memory gives no model.

    Args:
        case: what the method sees; its recipe knows the epochs.
        budget: fraction of the original training's gradient evaluations; None: no bound.
        trail: where the same under a smaller budget ended; it is left where this run ends.
        tell: called with the share of the budget that is spent, as it grows.
    """
    allowed = None if budget is None else allowance(case, budget)
    whole = allowed or (case.recipe.epochs or 1) * len(case.retain)
    ledger = Ledger(allowed=allowed, trail=trail, tell=lambda spent: tell(min(1.0, spent / whole)))
    device = case.model.device
    begin_peak(device)
    start = time.perf_counter()
    model: Model | None = None
    error, lack = None, None
    try:
        with lacking():
            model = run_method(step.name, case.model, case, rng, ledger=ledger, **step.params)
    except DivergedError as reason:
        error = f"{step.name} diverged: {reason}"
    except FailedError as reason:
        error = f"{step.name} failed: {reason}"
    except torch.OutOfMemoryError:
        lack = Lack.OUT_OF_MEMORY
        error = f"{step.name} {lack} on {device}"
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    curve = tuple(loss for loss in ledger.curve() if torch.isfinite(torch.tensor(loss)))
    cost = Cost(
        gradients=ledger.spent, allowed=allowed, reused=ledger.reused, steps=len(ledger.losses),
        losses=curve, seconds=time.perf_counter() - start, peak_bytes=peak_bytes(device),
        offloaded=ledger.offloaded,
    )  # fmt: skip
    return Unlearned(model=model, cost=cost, error=error, lack=lack)


def run_method(name: str, model: Model, case: Case, rng: Rng, **given: Any) -> Model:
    """Run a method on what it may train. What trains anew does it as the model was trained."""
    method = METHODS[name]
    whole = not (model.adapter_alone or method.reference)
    return low_rank.run(method.run, model, case, rng, whole=whole, **given)


def allowance(case: Case, budget: float) -> float:
    """Return the gradient evaluations that a share of the original training is.

    ValueError if the recipe's epochs are not known.
    """
    if case.recipe.epochs is None:
        raise ValueError("a budget needs the recipe's epochs")
    return budget * case.recipe.epochs * (len(case.retain) + len(case.forget))


def begin_peak(device: torch.device) -> None:
    """Forget the peak so far, where that can be."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int:
    """Return the peak memory of a CUDA device, or of the process: there since it began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
