"""Tuning: each method's numbers, searched on one half of the evidence, judged on the other.

Nobody shall be able to say that a method failed because it was not tuned; and no search shall buy a
pass. The canaries and the test samples are split once, at random. A trial is scored on the tuning
halves alone: by the canaries' distance from what a model that never saw them has and by the
accuracy lost, each in tolerances, whichever is worse. All that the verdict reads is measured on the
judging halves, whose noise no choice has looked at, so that its intervals keep their level.

Source of the search: Akiba et al. 2019, Optuna, arXiv:1907.10902, whose tree-structured Parzen
estimator proposes the numbers. The split and the score are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from poison_audit.case.case import Case
from poison_audit.case.tuning import Attempt, Tuning
from poison_audit.checks.readings import UTILITY
from poison_audit.engine import unlearning
from poison_audit.engine.cells import Lack, kept_place, store, stored
from poison_audit.engine.probes import PROBES
from poison_audit.engine.runs import code_digest
from poison_audit.errors import InputError, PlanError, Problem
from poison_audit.methods import METHODS
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.poisons.readings import POISONS, READINGS
from poison_audit.records import Measurement, Plan, Policy, Step
from poison_audit.statistics.reading import Reading

FEWEST = 4
"""Canaries, and test samples, that can be split."""


def keyed(case: Case) -> dict[str, Any]:
    """Return what a case knows of samples that a key names, by poison."""
    return {
        name: case.evidence[name]
        for name, poison in POISONS.items()
        if poison.keyed and name in case.evidence
    }


def halves(case: Case, rng: Rng) -> tuple[Case, Case]:
    """Split the samples that a key names, and the test samples of a case, at random.

    Returns:
        (for tuning, for judging); the second halves are the larger by one where numbers are odd.

    Raises:
        PlanError: there are too few of them, or no canaries at all.
    """
    if not keyed(case):
        what = "needs canaries (--canaries, or --strings) to choose by"
        raise PlanError(Problem(what, "--tune", "Leave it out, or set parameters by --set"))
    return parted(case, rng, "--tune")


def parted(case: Case, rng: Rng, asked: str) -> tuple[Case, Case]:
    """Split a case likewise, whatever is known of its poison.

    Args:
        asked: the flag or command that wants it, for messages.

    Raises:
        PlanError: there are too few samples.
    """
    tuning, judging = _split(len(case.test), rng.named("test"), "test samples", asked)
    parts = [
        replace(
            case,
            test=case.test.at(part),
            baseline=None if case.baseline is None else case.baseline[part.to(case.test.y.device)],
        )
        for part in (tuning, judging)
    ]
    for name, evidence in keyed(case).items():
        poison = POISONS[name]
        called, what = poison.files[0].name, poison.readings[0].words.samples
        split = _split(len(evidence), rng.named(called), what, asked)
        for at, part in enumerate(split):
            own = {**parts[at].evidence, name: evidence.at(part)}
            parts[at] = replace(parts[at], evidence=own)
    return parts[0], parts[1]


def _split(n: int, rng: Rng, what: str, asked: str) -> tuple[Tensor, Tensor]:
    if n < FEWEST:
        raise PlanError(Problem(f"needs at least {FEWEST} {what}, there are {n}", asked))
    order = torch.from_numpy(rng.numpy().permutation(n))
    return order[: n // 2].sort().values, order[n // 2 :].sort().values


def tune(
    case: Case,
    step: Step,
    plan: Plan,
    out: Path,
    *,
    key: str,
    report: Callable[[int], None] = lambda _: None,
) -> Tuning:
    """Search a method's numbers; an interrupted search goes on where it stopped.

    Args:
        case: with the tuning halves.
        step: the method, and the numbers that the plan gives it: the first trial.
        plan: how many trials, and at which budget.
        out: the run directory; the trials lie among its cells.
        key: the audit's `fingerprint`.
        report: called with the number of trials done.
    """
    told = {
        "key": key, "step": asdict(step), "budget": plan.budget, "split": "tuning",
        # A trial's figures are in tolerances, by what the readings make of it.
        "tolerances": dict(plan.policy.tolerances),
        "readings": code_digest("*/reading.py", "*/readings.py", "statistics/*"),
    }  # fmt: skip
    place = kept_place(out, f"tune-{step.name}", told)
    before = stored(Tuning, place).record  # damaged: it is searched again
    kept, attempts = before.attempts if before else (), list[Attempt]()
    for params, tell in _proposals(case, step, plan):
        number = len(attempts)
        if number < len(kept) and kept[number].params == params:
            attempts.append(kept[number])
        else:
            made, lack = attempt(case, replace(step, params=params), plan)
            attempts.append(made)
            so_far = Tuning(method=step.name, attempts=tuple(attempts), chosen=best(attempts))
            if lack is None:
                store(place, so_far)
        tell(attempts[-1].score)
        report(len(attempts))
    return Tuning(method=step.name, attempts=tuple(attempts), chosen=best(attempts))


def attempt(case: Case, step: Step, plan: Plan) -> tuple[Attempt, Lack | None]:
    """Run a method once, and score it on `case`; say why that is not had, if for a while."""
    rng = Rng(plan.seed)
    found = unlearning.found_part(case, plan)
    done = unlearning.unlearn(found, step, rng.named(step.name, 0), budget=plan.budget)
    spent: dict[str, Any] = {
        "params": step.params, "gradients": done.cost.gradients, "seconds": done.cost.seconds,
    }  # fmt: skip
    if done.model is None:
        return Attempt(**spent, error=done.error), done.lack
    try:
        residue, utility = _measured(done.model, case, plan)
    except torch.OutOfMemoryError:
        lack = Lack.OUT_OF_MEMORY
        return Attempt(**spent, error=f"{step.name} {lack} on {done.model.device}"), lack
    return Attempt(**spent, **_scored(residue, utility, plan.policy)), None


def figures(model: Model, case: Case, plan: Plan) -> tuple[float, float] | str:
    """Return what is left of the canaries and the accuracy lost, in tolerances, or why not."""
    found = _scored(*_measured(model, case, plan), plan.policy)
    return found.get("error") or (found["residue"], found["lost"])


def _measured(model: Model, case: Case, plan: Plan) -> tuple[Measurement, Measurement]:
    given, rng = {probe.name: probe.params for probe in plan.probes}, Rng(plan.seed)
    readings = (POISONS[next(iter(keyed(case)))].readings[0], UTILITY)
    residue, utility = (
        PROBES[r.name](model, case, rng.named("probe", r.name), **given.get(r.name, {}))
        for r in readings
    )
    return residue, utility


def _scored(residue: Measurement, utility: Measurement, policy: Policy) -> dict[str, Any]:
    """Return both figures of a trial, in tolerances, or why there are none."""
    for seen in (residue, utility):
        if seen.evidence is None:
            return {"error": f"{seen.probe} was not measured: {seen.missing}"}
    return {
        "residue": abs(_in_tolerances(READINGS[residue.probe], residue, policy)),
        "lost": _in_tolerances(UTILITY, utility, policy),
    }


def _in_tolerances(reading: Reading[Any], seen: Measurement, policy: Policy) -> float:
    if reading.evidence is None or reading.figure is None or seen.evidence is None:
        raise ValueError(f"no search is scored by {reading.name}")
    figure = reading.figure(reading.evidence(**seen.evidence))
    return (figure - reading.least) / (policy.tolerances[reading.name] - reading.least)


def best(attempts: Sequence[Attempt]) -> int:
    """Return the place of the smallest score, the first of equals; 0 if no attempt has one."""
    scored = [(a.score, place) for place, a in enumerate(attempts) if a.score is not None]
    return min(scored)[1] if scored else 0


def chosen(plan: Plan, tunings: Sequence[Tuning]) -> Plan:
    """Return the plan with the numbers that were found."""
    found = {tuning.method: tuning.attempts[tuning.chosen].params for tuning in tunings}
    steps = tuple(replace(s, params=found.get(s.name, s.params)) for s in plan.methods)
    return replace(plan, methods=steps)


def _proposals(
    case: Case, step: Step, plan: Plan
) -> Iterator[tuple[dict[str, Any], Callable[[float | None], None]]]:
    """Yield (numbers to try, what takes their score), first those of the plan."""
    optuna = load_optuna()
    yield dict(step.params), lambda score: None
    seed = Rng(plan.seed).named("tuning", step.name).seed() % 2**32
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    failed = optuna.trial.TrialState.FAIL
    for _ in range(plan.tune - 1):
        trial = study.ask()
        params = {**step.params, **_drawn(trial, step.name, case)}

        def tell(score: float | None, trial: Any = trial) -> None:
            study.tell(trial, score, state=failed if score is None else None)

        yield params, tell


def _drawn(trial: Any, name: str, case: Case) -> dict[str, float | int]:
    drawn: dict[str, float | int] = {}
    for key, search in METHODS[name].search.items():
        if search.scale in ("whole", "blocks"):
            most = len(case.model.blocks) if search.scale == "blocks" else math.inf
            drawn[key] = trial.suggest_int(key, int(search.low), int(min(search.high, most)))
        elif search.scale == "linear":
            drawn[key] = trial.suggest_float(key, search.low, search.high)
        else:
            scale = case.recipe.lr if search.scale == "rate" else 1.0
            drawn[key] = scale * trial.suggest_float(key, search.low, search.high, log=True)
    return drawn


def load_optuna() -> Any:
    """Return the package; InputError where it is not installed."""
    try:
        import optuna
    except ImportError as error:
        fix = "Install it: pip install 'poison-audit[tune]'"
        raise InputError(Problem("needs Optuna, which is not installed", "--tune", fix)) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
