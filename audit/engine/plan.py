"""A Plan from the names and numbers that somebody asked for.

Unknown methods, probes, parameters and gates are refused, all at once, before anything is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from poison_audit.engine.probes import PROBES, probe_parameters
from poison_audit.errors import PlanError, Problem, Problems, did_you_mean
from poison_audit.hypotheses import HYPOTHESES, LEAST, hypothesis_parameters
from poison_audit.methods import METHODS, UNLEARNING, check_params, filled
from poison_audit.records import Plan, Policy, Step

MOST_TRIALS = 10_000
"""Of tuning, a method."""
STANDARD = Plan(methods=(), probes=(), policy=Policy(tolerances={}))
"""What a plan is where nothing else is asked for."""


def make_plan(
    *,
    policy: Policy,
    methods: Sequence[str] = ("all",),
    params: Mapping[str, Mapping[str, Any]] | None = None,
    where: str = "",
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    budgets: Sequence[float] = (STANDARD.budget,),
    seed: int = STANDARD.seed,
    seeds: int = STANDARD.seeds,
    found: float = STANDARD.found,
    found_seed: int = STANDARD.found_seed,
    tune: int | None = None,
    reaudit: bool = False,
    trainable: Literal["all", "adapter"] = "all",
    probes_of_own: tuple[Step, ...] = (),
) -> Plan:
    """Check what was asked for, and write down every number of it.

    The hypotheses are asked wherever methods run: they explain why those fail.

    Args:
        policy: how it will be decided.
        methods: names; `all` stands for every unlearning method, `none` for none.
        params: numbers of methods and probes by name, as a file gives them; those of methods that
            do not run are left alone.
        where: that file.
        settings: the same as flags give them, which win, and must be of something that runs.
        budgets: shares of the original training, at least one; the largest is the budget, the
            smaller ones a sweep.
        seed: root seed.
        seeds: runs a method.
        found: share of the forget set that the methods are given.
        found_seed: decides which.
        tune: trials a method; None: none are asked for.
        reaudit: whether models are woken in every way.
        trainable: what of the model methods train.
        probes_of_own: of the user's, as `own_probe.own_probes` returns them.

    Raises:
        PlanError: everything that is unknown or impossible.
    """
    problems = Problems()
    names = _method_names(methods, problems)
    stated, known = params or {}, [*METHODS, *PROBES, *HYPOTHESES]
    numbers = {name: dict(stated.get(name, {})) for name in (*names, *PROBES, *HYPOTHESES)}
    for name in stated:
        if name not in known:
            hint = did_you_mean(name, known)
            problems.append(Problem(f"unknown method or probe {name!r}", where, hint))
    for name, given in (settings or {}).items():
        if name in numbers:
            numbers[name].update(given)
        elif name in METHODS:
            problems.append(Problem(f"{name} is not among the methods to run", "--set"))
        else:
            hint = did_you_mean(name, known)
            problems.append(Problem(f"unknown method or probe {name!r}", "--set", hint))
    for name in names:
        problems += check_params(name, numbers[name], blocks=None)
    for name in PROBES:
        problems += _check_counts(name, numbers[name], probe_parameters(name))
    for name in HYPOTHESES:
        problems += _check_counts(name, numbers[name], hypothesis_parameters(name), least=LEAST)
    shares = sorted(set(budgets), reverse=True)
    for share in shares:
        _within(problems, "--budget", share, high=1)
    _within(problems, "--seeds", seeds, high=1000)
    _within(problems, "--found", found, high=1)
    trials = tune if tune is not None and any(name in UNLEARNING for name in names) else None
    if trials is not None and not 1 <= trials <= MOST_TRIALS:
        problems.append(Problem(f"must be from 1 to {MOST_TRIALS:,}, got {trials}", "--tune"))
    problems.raise_any(PlanError)

    def steps(run: Iterable[str], defaults: Callable[[str], Mapping[str, Any]]) -> tuple[Step, ...]:
        return tuple(Step(name=name, params={**defaults(name), **numbers[name]}) for name in run)

    own = tuple(Step(name=name, params=filled(name, numbers[name])) for name in names)

    return Plan(
        methods=own,
        probes=steps(PROBES, probe_parameters),
        hypotheses=steps(HYPOTHESES if names else (), hypothesis_parameters),
        policy=policy, seed=seed, seeds=seeds, budget=shares[0], sweep=tuple(shares[1:]),
        found=found, found_seed=found_seed, tune=trials or 0, reaudit=reaudit,
        trainable=trainable,
        own=probes_of_own,
    )  # fmt: skip


def _method_names(given: Sequence[str], problems: list[Problem]) -> tuple[str, ...]:
    names: list[str] = []
    for name in given:
        if name == "all":
            names += UNLEARNING
        elif name in METHODS:
            names.append(name)
        elif name != "none":
            hint = did_you_mean(name, METHODS)
            problems.append(Problem(f"unknown method {name!r}", "--methods", hint))
    return tuple(dict.fromkeys(names))


def _within(problems: list[Problem], flag: str, value: float, *, high: float) -> None:
    if not 0 < value <= high:
        problems.append(Problem(f"must be above 0 and at most {high:g}, got {value}", flag))


def check_plan(
    plan: Plan, *, blocks: int, candidates: Sequence[str], references: Sequence[str] = ()
) -> None:
    """Refuse what only the loaded model shows to be impossible: block counts, an unknown gate.

    A reference is a yardstick, and never the gate.

    Raises:
        PlanError: everything that is impossible.
    """
    problems = Problems()
    for step in plan.methods:
        problems += check_params(step.name, step.params, blocks=blocks)
    known = {"deployed", "any-method", *candidates}
    if plan.policy.gate in references:
        what = f"{plan.policy.gate} is a reference, and a yardstick is never the gate"
        fix = "Leave --gate out, or audit that file as MODEL"
        problems.append(Problem(what, "--gate", fix))
    elif plan.policy.gate not in known:
        hint = did_you_mean(plan.policy.gate, known)
        problems.append(Problem(f"nothing named {plan.policy.gate!r} is on trial", "--gate", hint))
    problems.raise_any(PlanError)


def _check_counts(
    name: str,
    given: Mapping[str, Any],
    known: Mapping[str, int],
    *,
    least: Mapping[str, int] | None = None,
) -> list[Problem]:
    unknown, wrong = [], []
    for key, value in given.items():
        low = (least or {}).get(key, 1)
        if key not in known:
            hint = did_you_mean(key, known) if known else f"{name} takes none."
            unknown.append(Problem(f"{name} has no parameter {key!r}", "", hint))
        elif not (isinstance(value, int) and value >= low):
            what = f"{name}.{key} must be a whole number of at least {low}, got {value!r:.40}"
            wrong.append(Problem(what))
    return unknown + wrong
