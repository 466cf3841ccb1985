"""Runs the plan, one cell at a time: makes a candidate, probes it, stores what was seen.

A cell is one candidate under one seed. It lies on disk as one JSON file, whole or absent, under the
fingerprint of everything that decides it; an interrupted audit goes on where it stopped, and a
result of another model, data set, plan or version is never taken for this one's.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch

from poison_audit.atomic import from_json, to_json, write_atomically
from poison_audit.case.case import Answers, Case
from poison_audit.case.load import Trial
from poison_audit.checks.honesty import believed, distrust
from poison_audit.engine import unlearning
from poison_audit.engine.cells import (
    OUT_OF_MEMORY,
    Job,
    blank,
    cell_path,
    model_path,
    save_unlearned,
    starved,
    stored,
)
from poison_audit.engine.probes import PROBES
from poison_audit.errors import InputError
from poison_audit.hypotheses import ask
from poison_audit.hypotheses.movement import movement
from poison_audit.methods import METHODS
from poison_audit.models.checkpoint import load_like
from poison_audit.models.memory import limited
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.probe import answers_to
from poison_audit.records import Cell, Finding, Measurement, Outcome, Plan, Sanity, Step
from poison_audit.statistics import estimates
from poison_audit.training import loop
from poison_audit.training.scoring import exact


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What the engine reports while it works."""

    job: Job
    done: int
    total: int
    cell: Cell | None = None
    """None until the job ends."""
    share: float = 0.0
    """Of what its method may spend, how much is spent."""
    resumed: bool = False
    damaged: bool = False
    """Whether the cell lay there, and could not be read."""


def check_sanity(case: Case, *, alpha: float) -> tuple[Case, Sanity]:
    """Measure the accuracy on clean test data: does the model work as loaded?

    A strict load proves little: a stem's max-pool has no tensor and normalisation is nowhere in a
    file. So the adapter is proved by accuracy, before anything else is measured.

    Returns:
        The case with its baseline, and what was seen.
    """
    with exact(case.model.module):
        right = loop.correct(case.model, case.test)
    counts = torch.bincount(case.test.y)
    correct, total = int(right.sum()), len(right)
    low, _ = estimates.clopper_pearson(correct, total, level=1 - alpha, sides=1)
    sanity = Sanity(correct=correct, total=total, low=low, chance=int(counts.max()) / total)
    return replace(case, baseline=right), sanity


def jobs(plan: Plan, trial: Trial) -> list[Job]:
    """List the cells of an audit: deployed, methods by budget and seed, contenders."""
    found = [Job(candidate="deployed", kind="deployed")]
    for step in plan.methods:
        # Retrained on all but a part of the poison, it is no yardstick of never having seen it.
        reference = METHODS[step.name].reference and plan.found == 1
        for name, budget in _budgets(step, plan):
            for seed in range(plan.seeds):
                found.append(
                    Job(
                        candidate=name,
                        kind="reference" if reference else "method",
                        seed=seed,
                        method=step,
                        budget=budget,
                    )
                )
    for contender in trial.contenders:
        found.append(Job(candidate=contender.name, kind=contender.kind, contender=contender))
    return found


def _budgets(step: Step, plan: Plan) -> list[tuple[str, float | None]]:
    """Return (candidate, budget) of one method: its own name at the largest, `NAME@SHARE` below."""
    method = METHODS[step.name]
    if method.reference:
        return [(method.candidate, None)]
    smaller = [(f"{step.name}@{share:g}", share) for share in plan.sweep]
    return [(step.name, plan.budget), *smaller]


def run(
    trial: Trial,
    plan: Plan,
    out: Path,
    *,
    key: str,
    keep: bool = False,
    allow_pickle: bool = False,
    report: Callable[[Progress], None] = lambda _: None,
    perform: Performer | None = None,
) -> tuple[Cell, ...]:
    """Measure every cell that is not on disk yet, and return them all in order.

    Args:
        trial: the validated case, with its baseline.
        plan: what to run.
        out: the run directory; cells are read from and written to its folder `cells`.
        key: the audit's `fingerprint`.
        keep: whether to save each unlearned model in the folder `models`.
        allow_pickle: whether contenders may be pickles.
        report: called when a job starts and when it ends.
        perform: works on the lines of jobs; by default one after another, in this process.
    """
    todo = jobs(plan, trial)
    references = load_references(trial, allow_pickle=allow_pickle)
    case = replace(trial.case, references=_answers(trial, references))
    cells: dict[int, Cell] = {}
    damaged: set[int] = set()

    def tell(
        place: int, share: float = 0.0, *, cell: Cell | None = None, resumed: bool = False
    ) -> None:
        done = len(cells) + (cell is not None)
        job, broken = todo[place], place in damaged and cell is None
        report(Progress(
            job=job, done=done, total=len(todo), share=share, cell=cell, resumed=resumed,
            damaged=broken and share == 0,
        ))  # fmt: skip

    for place, job in enumerate(todo):
        cell, broken = stored(cell_path(out, job, key))
        damaged |= {place} if broken else set()
        unkept = keep and job.method and not model_path(out, job, case.model).exists()
        if cell is not None and not unkept:
            tell(place, cell=cell, resumed=True)
            cells[place] = cell
    lines = [
        tuple((place, todo[place]) for place in line if place not in cells) for line in _lines(todo)
    ]
    work = Work(case=case, plan=plan, references=references, keep=keep, allow_pickle=allow_pickle)
    for place, cell, model in (perform or in_turn)(work, [line for line in lines if line], tell):
        job = todo[place]
        if model is not None and job.method:
            save_unlearned(model, cell, model_path(out, job, case.model))
        if not starved(cell):  # with more memory at hand, the same command tries again
            write_atomically(cell_path(out, job, key), to_json(cell))
        tell(place, cell=cell)
        cells[place] = cell
    return tuple(cells[place] for place in range(len(todo)))


Tell = Callable[[int, float], object]
"""(place of a job, share of what its method may spend that is spent): 0 when it begins."""
Line = tuple[tuple[int, Job], ...]
"""Jobs of one method and seed with their places, each of which goes on from the one before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What makes cells of jobs, wherever it runs."""

    case: Case
    plan: Plan
    references: Sequence[Model]
    keep: bool
    """Whether the unlearned models are wanted, too."""
    allow_pickle: bool

    def on(
        self, line: Line, tell: Tell = lambda place, share: None
    ) -> Iterator[tuple[int, Cell, Model | None]]:
        """Yield the cell of every job of a line, and its model where that is wanted."""
        trail = loop.Trail() if len(line) > 1 else None
        for place, job in line:
            tell(place, 0.0)
            cell, model = _measure(
                job, self.case, self.plan, self.references, trail=trail,
                tell=partial(tell, place), allow_pickle=self.allow_pickle,
            )  # fmt: skip
            yield place, cell, model if self.keep else None


Performer = Callable[[Work, Sequence[Line], Tell], Iterator[tuple[int, Cell, Model | None]]]
"""(work, lines, told how far jobs are) -> its place, its cell, its model, as they come."""


def in_turn(
    work: Work, lines: Sequence[Line], tell: Tell
) -> Iterator[tuple[int, Cell, Model | None]]:
    """Work on one line after another, in this process."""
    for line in lines:
        yield from work.on(line, tell)


def _lines(todo: Sequence[Job]) -> list[list[int]]:
    """Return the places of the jobs by method and seed, the smallest budget first.

    Each job of such a line goes on from where the one before it ended.
    """
    lines: dict[tuple[str, int], list[int]] = {}
    for place, job in enumerate(todo):
        name = job.method.name if job.method else job.candidate
        lines.setdefault((name, job.seed), []).append(place)
    return [sorted(line, key=lambda place: todo[place].budget or 0) for line in lines.values()]


def load_references(trial: Trial, *, allow_pickle: bool = False) -> list[Model]:
    """Return the contenders that never saw the poison, in their order."""
    return [
        load_like(trial.case.model, contender.path, allow_pickle=allow_pickle)[0]
        for contender in trial.contenders
        if contender.kind == "reference"
    ]


def _answers(trial: Trial, references: Sequence[Model]) -> tuple[Answers, ...]:
    case = trial.case
    found = []
    names = [contender.name for contender in trial.contenders if contender.kind == "reference"]
    for name, model in zip(names, references, strict=True):
        with exact(model.module):
            right = loop.correct(model, case.test)
        stamped = answers_to(case.trigger, model, case.test) if case.trigger else None
        found.append(Answers(name=name, digest=model.digest(), correct=right, stamped=stamped))
    return tuple(found)


def _measure(
    job: Job,
    case: Case,
    plan: Plan,
    references: Sequence[Model],
    *,
    trail: loop.Trail | None,
    tell: Callable[[float], object],
    allow_pickle: bool,
) -> tuple[Cell, Model | None]:
    rng = Rng(plan.seed)
    cell = blank(job)
    if job.method is not None:
        model, cost, error = unlearning.unlearn(
            unlearning.found_part(case, plan),
            job.method,
            rng.named(job.method.name, job.seed),
            budget=job.budget,
            trail=trail,
            tell=tell,
        )
        if model is None:
            return replace(cell, cost=cost, error=error), None
        cell = replace(cell, cost=cost)
    elif job.contender is not None:
        model, _ = load_like(case.model, job.contender.path, allow_pickle=allow_pickle)
    else:
        model = case.model
    if job.kind in ("method", "candidate"):
        cell = replace(cell, movement=movement(model, case.model, references))
    start = time.perf_counter()
    with limited() as limit:
        measurements = probed(model, case, plan, rng)
    seen = replace(
        cell,
        digest=model.digest(),
        measurements=measurements,
        batch=limit.size,
        probe_seconds=time.perf_counter() - start,
    )
    return seen, model


def probed(model: Model, case: Case, plan: Plan, rng: Rng) -> tuple[Measurement, ...]:
    """Ask every probe of the plan of one model."""
    try:
        doubt = distrust(model, case.test, rng.named("honesty"))
    except torch.OutOfMemoryError:
        doubt = f"checking that it is a function of its input {OUT_OF_MEMORY} on {model.device}"
    found = []
    for step in plan.probes:
        # The draws do not depend on the candidate: all are measured against the same noise.
        draws = rng.named("probe", step.name)
        try:
            seen = PROBES[step.name](model, case, draws, **step.params)
        except torch.OutOfMemoryError:
            missing = f"{OUT_OF_MEMORY} on {model.device}, with one sample at a time as well"
            seen = Measurement(probe=step.name, evidence=None, missing=missing)
        found.append(believed(seen, doubt))
    return tuple(found)


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
            findings.append(_without_memory(step.name, model.device))
            continue
        write_atomically(path, to_json(finding))
        findings.append(finding)
    return tuple(findings)


def _without_memory(hypothesis: str, device: torch.device) -> Finding:
    return Finding(
        probe=hypothesis,
        candidate="deployed",
        seed=0,
        gating=False,
        outcome=Outcome.NOT_MEASURED,
        reason=f"Not measured: it {OUT_OF_MEMORY} on {device}.",
    )
