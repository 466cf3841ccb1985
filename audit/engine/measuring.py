"""Makes one cell: the candidate, how far it moved, and what every probe sees in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from poison_audit.case.case import Answers, Case
from poison_audit.case.contenders import load_contender
from poison_audit.case.load import Trial
from poison_audit.checks.honesty import believed, distrust
from poison_audit.engine import unlearning
from poison_audit.engine.cells import Lack, blank
from poison_audit.engine.jobs import Job
from poison_audit.engine.own_probe import ask_own
from poison_audit.engine.waking import asked, awake, wake, ways
from poison_audit.hypotheses.movement import movement
from poison_audit.models.memory import limited
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.poisons.probes import ASKED
from poison_audit.records import Cell, Measurement, Plan
from poison_audit.training.ledger import Trail
from poison_audit.training.scoring import correct, exact


def load_references(trial: Trial, *, allow_pickle: bool = False) -> list[Model]:
    """Return the contenders that never saw the poison, in their order."""
    return [
        load_contender(trial.case.model, contender, allow_pickle=allow_pickle)
        for contender in trial.contenders
        if contender.kind == "reference"
    ]


def answers(trial: Trial, references: Sequence[Model]) -> tuple[Answers, ...]:
    """Return what the references answer on the test samples, and what else probes ask them."""
    case = trial.case
    found = []
    names = [contender.name for contender in trial.contenders if contender.kind == "reference"]
    for name, model in zip(names, references, strict=True):
        with exact(model.module):
            right = correct(model, case.test)
        asked = {poison: ask(case, model) for poison, ask in ASKED.items()}
        found.append(Answers(name=name, digest=model.digest(), correct=right, asked=asked))
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A cell, and the model that was measured in it."""

    cell: Cell
    model: Model | None = None
    """None where there is none, or nobody wants it."""
    lack: Lack | None = None
    """Why something of the cell is missing that another try may bring."""


Tell = Callable[[int, float], object]
"""(place of a job, share of what its method may spend that is spent): 0 when it begins."""
Line = tuple[tuple[int, Job], ...]
"""Jobs of one method and seed with their places, each of which goes on from the one before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What makes cells of jobs, wherever it runs."""

    case: Case
    """With the answers of its references."""
    plan: Plan
    references: Sequence[Model]
    """Models that never saw the poison: what a movement is measured against."""
    keep: bool
    """Whether the unlearned models are wanted, too."""
    allow_pickle: bool
    lr: float | None = None
    """At which models learn on when they are woken, as `waking.rate_of` returns it."""

    def on(self, line: Line, tell: Tell = lambda place, share: None) -> Iterator[tuple[int, Made]]:
        """Yield the place and the cell of every job of a line, its model where that is wanted."""
        trail = Trail() if len(line) > 1 else None
        for place, job in line:
            tell(place, 0.0)
            made = _measured(self, job, trail, partial(tell, place))
            yield place, made if self.keep else replace(made, model=None)


def _measured(work: Work, job: Job, trail: Trail | None, tell: Callable[[float], object]) -> Made:
    """Make the candidate of a job, and ask every probe of it."""
    case, plan, cell = work.case, work.plan, blank(job)
    rng, model = Rng(plan.seed), case.model
    if job.method is not None:
        found, own = unlearning.found_part(case, plan), rng.named(job.method.name, job.seed)
        done = unlearning.unlearn(found, job.method, own, budget=job.budget, trail=trail, tell=tell)
        cell = replace(cell, cost=done.cost, error=done.error)
        if done.model is None:
            return Made(cell=cell, lack=done.lack)
        model = done.model
    elif job.contender is not None:
        model = load_contender(case.model, job.contender, allow_pickle=work.allow_pickle)
    if job.kind in ("method", "candidate"):
        cell = replace(cell, movement=movement(model, case.model, work.references))
    start, digest = time.perf_counter(), model.digest()
    given = job.kind == "deployed"
    how = ways(job.kind, model, plan, same=not given and digest == case.model.digest())
    with limited() as limit:
        measurements, lack = probed(model, case, plan, rng)
        up = job.kind != "reference" and awake(measurements, plan)
        unasked = given and not plan.reaudit
        roused = wake(model, case, plan, rng, how, lr=work.lr, awake=up, unasked=unasked)
    seen = replace(
        cell,
        digest=digest,
        measurements=measurements,
        woken=roused.woken,
        batch=limit.size,
        own=ask_own(model, case, plan, rng),
        probe_seconds=time.perf_counter() - start,
    )
    return Made(cell=seen, model=model, lack=lack or roused.lack)


def probed(
    model: Model, case: Case, plan: Plan, rng: Rng
) -> tuple[tuple[Measurement, ...], Lack | None]:
    """Return what every probe sees in a model, and why something is missing, if for a while."""
    lack = None
    try:
        doubt = distrust(model, case.test, rng.named("honesty"))
    except torch.OutOfMemoryError:
        lack = Lack.OUT_OF_MEMORY
        doubt = f"checking that it is a function of its input {lack} on {model.device}"
    found = []
    for step in plan.probes:
        seen, none = asked(model, case, step, rng)
        lack = lack or none
        found.append(believed(seen, doubt))
    return tuple(found), lack
