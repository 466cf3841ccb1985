"""What an audit will take, before it starts: every part of it is done in miniature, and scaled up.

Each method makes a few steps of its own, so that frozen blocks, a teacher or one gradient at a time
cost what they cost here; the probes are asked of the deployed model with a few draws, and the
hypotheses with a few subsets. What that needs of memory, the audit needs: batches are as large as
they will be.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from poison_audit.case.case import Case
from poison_audit.case.load import Trial
from poison_audit.checks.waking import RATES, clean_part, relearned
from poison_audit.engine import unlearning
from poison_audit.engine.jobs import jobs
from poison_audit.engine.measuring import load_references, probed
from poison_audit.engine.waking import asked, ways
from poison_audit.errors import DivergedError, FailedError
from poison_audit.hypotheses import ask
from poison_audit.methods import METHODS, UNLEARNING, parameters
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.records import Plan, Step
from poison_audit.training.ledger import Ledger, Trail
from poison_audit.training.scoring import exact

FEW, MORE = 4, 12
"""Batches' worth of gradient evaluations between which a method's pace is measured."""
DRAWS = (2, 4)
"""Draws of a probe between which its pace is measured."""
SUBSETS = (2, 6)
"""Subsets between which a hypothesis's pace is measured."""


class Part(NamedTuple):
    """One part of an audit."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What an audit will take on this machine, as it is now."""

    parts: tuple[Part, ...]
    peak_bytes: int
    """Peak device memory on CUDA, peak resident memory of the process on the CPU."""


def forecast(trial: Trial, plan: Plan, *, allow_pickle: bool = False) -> Forecast:
    """Do every part of an audit in miniature, write nothing, and say what the whole will take."""
    references = load_references(trial, allow_pickle=allow_pickle)
    case = unlearning.found_part(trial.case, plan)
    rng = Rng(plan.seed).named("forecast")
    unlearning.begin_peak(case.model.device)
    parts = [
        Part(name=step.name, seconds=_method(case, step, plan, rng.named(step.name)))
        for step in plan.methods
    ]
    if plan.tune:
        alone = replace(plan, sweep=(), seeds=1)
        once = [_method(case, step, alone, rng.named(step.name)) for step in plan.methods
                if step.name in UNLEARNING]  # fmt: skip
        parts.append(Part(name=f"tuning, {plan.tune} trials each", seconds=plan.tune * sum(once)))
    model, todo = trial.case.model, jobs(plan, trial)
    woken = [way for job in todo for way in ways(job.kind, model, plan)]
    many = f"{len(todo)} models" if len(todo) > 1 else "1 model"
    seconds = (len(todo) + len(woken)) * _probes(trial.case, plan)
    parts.append(Part(name=f"probes of {many}", seconds=seconds))
    if learning := [way for way in woken if way.way == "relearned"]:
        clock = Clock(case.model.device)
        relearned(model, clean_part(trial.case, rng), rng, lr=RATES[-1])
        many = f"{len(learning)} woken models"
        parts.append(Part(name=f"training of {many}", seconds=len(learning) * clock.read()))
    for step in plan.hypotheses:
        parts.append(Part(name=step.name, seconds=_hypothesis(trial, step, references, rng)))
    return Forecast(parts=tuple(parts), peak_bytes=unlearning.peak_bytes(case.model.device))


class Clock:
    """Wall time since it was made, the device's work included."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start = self._now()

    def read(self) -> float:
        """Return the seconds since."""
        return self._now() - self._start

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def _probes(case: Case, plan: Plan) -> float:
    """Return the seconds of all probes of one model; those with many draws are asked for a few."""
    rng, few = Rng(plan.seed), [_drawing(step, DRAWS[0]) for step in plan.probes]
    clock = Clock(case.model.device)
    probed(case.model, case, replace(plan, probes=tuple(few)), rng)
    seconds = clock.read()
    for step in plan.probes:
        left = step.params.get("draws", 0) - DRAWS[0]
        told = []
        for draws in DRAWS if left > 0 else ():
            clock = Clock(case.model.device)
            asked(case.model, case, _drawing(step, draws), rng)
            told.append(clock.read())
        if told:
            seconds += max(0.0, told[1] - told[0]) * left / (DRAWS[1] - DRAWS[0])
    return seconds


def _drawing(step: Step, draws: int) -> Step:
    """Return a probe of at most so many draws."""
    if "draws" not in step.params:
        return step
    return replace(step, params={**step.params, "draws": min(draws, step.params["draws"])})


def _method(case: Case, step: Step, plan: Plan, rng: Rng) -> float:
    """Return the seconds of all runs of a method: each seed, each budget."""
    method = METHODS[step.name]
    if method.reference:
        pace, _ = _pace(case, Step(name=method.paced_by), rng)
        return plan.seeds * pace * method.spends(math.inf, case, step.params)
    pace, goes_on = _pace(case, step, rng)
    every = [unlearning.allowance(case, share) for share in (plan.budget, *plan.sweep)]
    spent = [method.spends(allowed, case, step.params) for allowed in every]
    if goes_on or len(set(spent)) == 1:  # what has no more to spend computes nothing again
        return plan.seeds * pace * max(spent)
    return plan.seeds * pace * sum(spent)


def _pace(case: Case, step: Step, rng: Rng) -> tuple[float, bool]:
    """Return a method's seconds a gradient evaluation, and whether a larger budget goes on."""
    unit, trail = case.recipe.batch_size, Trail()
    params = {**parameters(step.name), **step.params}
    told = []
    for batches, kept in ((1, None), (FEW, trail), (MORE, trail)):
        ledger = Ledger(allowed=float(batches * unit), trail=kept)
        clock = Clock(case.model.device)
        try:
            unlearning.run_method(step.name, case.model, case, rng, ledger=ledger, **params)
        except (DivergedError, FailedError, torch.OutOfMemoryError):
            return 0.0, False  # it will end as soon in the audit
        told.append((clock.read(), ledger.spent - ledger.reused))
    _, (few_seconds, few), (seconds, evaluations) = told
    goes_on = ledger.reused > 0 and not METHODS[step.name].anew
    if evaluations < few:  # the smaller allowance was enough for all
        seconds, evaluations = few_seconds, few
    elif not goes_on and evaluations > few and seconds > few_seconds:
        seconds, evaluations = seconds - few_seconds, evaluations - few
    return seconds / max(evaluations, 1.0), goes_on


def _hypothesis(trial: Trial, step: Step, references: Sequence[Model], rng: Rng) -> float:
    model, told = trial.case.model, []
    wanted: int = step.params["subsets"]
    for subsets in SUBSETS:
        clock = Clock(model.device)
        params = {**step.params, "subsets": min(subsets, wanted)}
        try:
            with exact(model.module):
                ask(step.name, model, trial.case, rng, references=references, **params)
        except torch.OutOfMemoryError:
            return clock.read()
        told.append(clock.read())
    pace = max(0.0, told[1] - told[0]) / (SUBSETS[1] - SUBSETS[0])
    return told[0] + pace * max(0, wanted - SUBSETS[0])
