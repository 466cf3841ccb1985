"""Runs the plan, one cell at a time: makes a candidate, probes it, stores what was seen.

A cell is one candidate under one seed. It lies on disk as one signed JSON file, whole or absent,
under the fingerprint of everything that decides it; an interrupted audit goes on where it stopped,
and a result of another model, data set, plan or version, or of somebody else, is never taken for
this one's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from poison_audit.case.load import Trial
from poison_audit.engine.cells import (
    cell_place,
    has_model,
    model_path,
    save_unlearned,
    store,
    stored_cell,
)
from poison_audit.engine.jobs import Job, jobs, lines
from poison_audit.engine.measuring import Line, Made, Tell, Work, answers, load_references
from poison_audit.engine.waking import rate_of
from poison_audit.records import Cell, Plan


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
    why: str = ""
    """Why the cell that lay there was not taken: `is damaged`."""


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
        out: the run directory; cells are read from and written to its folder `cells`.
        key: the audit's `fingerprint`.
        keep: whether to save each unlearned model in the folder `models`.
        report: called when a job starts and when it ends.
        perform: works on the lines of jobs; by default one after another, in this process.
    """
    todo = jobs(plan, trial)
    references = load_references(trial, allow_pickle=allow_pickle)
    case = replace(trial.case, references=answers(trial, references))
    cells: dict[int, Cell] = {}

    def tell(place: int, share: float = 0.0, **more: Any) -> None:
        done = len(cells) + ("cell" in more)
        report(Progress(job=todo[place], done=done, total=len(todo), share=share, **more))

    deployed = case.model.digest()
    key = f"{key} reaudit" if plan.reaudit else key
    for place, job in enumerate(todo):
        digest = job.contender.digest if job.contender else None if job.method else deployed
        found = stored_cell(cell_place(out, job, key), job, digest)
        if found.why:
            tell(place, why=found.why)
        cell = found.record
        if cell is not None and not (
            keep and job.method and not has_model(out, job, cell, case.model)
        ):
            tell(place, cell=cell, resumed=True)
            cells[place] = cell
    left = [
        tuple((place, todo[place]) for place in line if place not in cells) for line in lines(todo)
    ]
    lr = rate_of(case, plan, references) if any(left) else None
    work = Work(
        case=case, plan=plan, references=references, keep=keep, allow_pickle=allow_pickle, lr=lr
    )
    for place, made in (perform or in_turn)(work, [line for line in left if line], tell):
        job = todo[place]
        if made.model is not None and job.method:
            path = model_path(out, job, case.model)
            anew = job.kind == "reference"
            save_unlearned(made.model, job.method.name, path, made_of=trial.made_of, anew=anew)
        if made.lack is None:  # with more memory at hand, the same command tries again
            store(cell_place(out, job, key), made.cell)
        tell(place, cell=made.cell)
        cells[place] = made.cell
    return tuple(cells[place] for place in range(len(todo)))


Performer = Callable[[Work, Sequence[Line], Tell], Iterator[tuple[int, Made]]]
"""(work, lines, told how far jobs are) -> a job's place and what was made of it, as they come."""


def in_turn(work: Work, lines: Sequence[Line], tell: Tell) -> Iterator[tuple[int, Made]]:
    """Work on one line after another, in this process."""
    for line in lines:
        yield from work.on(line, tell)
