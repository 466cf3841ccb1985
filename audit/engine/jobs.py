"""The jobs of an audit: what each cell will be made of, and which goes on from which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from poison_audit.case.contenders import Contender
from poison_audit.case.load import Trial
from poison_audit.methods import METHODS
from poison_audit.records import Kind, Plan, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one cell will be made of."""

    candidate: str
    kind: Kind
    seed: int = 0
    method: Step | None = None
    budget: float | None = None
    """Fraction of the original training; None: no bound, no method."""
    contender: Contender | None = None


def jobs(plan: Plan, trial: Trial) -> list[Job]:
    """List the cells of an audit: deployed, methods by budget and seed, contenders."""
    found = [Job(candidate="deployed", kind="deployed")]
    for step in plan.methods:
        # Retrained on all but a part of the poison, it is no yardstick of never having seen it.
        reference = METHODS[step.name].reference and plan.found == 1
        for name, budget in _budgets(step, plan):
            kind: Kind = "reference" if reference else "method"
            found += [
                Job(candidate=name, kind=kind, seed=seed, method=step, budget=budget)
                for seed in range(plan.seeds)
            ]
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


def lines(todo: Sequence[Job]) -> list[list[int]]:
    """Return the places of the jobs by method and seed, the smallest budget first.

    Each job of such a line goes on from where the one before it ended.
    """
    found: dict[tuple[str, int], list[int]] = {}
    for place, job in enumerate(todo):
        name = job.method.name if job.method else job.candidate
        found.setdefault((name, job.seed), []).append(place)
    return [sorted(line, key=lambda place: todo[place].budget or 0) for line in found.values()]
