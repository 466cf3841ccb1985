"""A Plan from audit.toml and flags: a flag wins over the file, the file over the default.

Unknown methods, probes, parameters and gates are refused, all at once, before anything is run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from poison_audit.commands.config import Config
from poison_audit.engine.probes import PROBES, probe_parameters
from poison_audit.errors import PlanError, Problem, did_you_mean
from poison_audit.hypotheses import HYPOTHESES, LEAST, hypothesis_parameters
from poison_audit.methods import METHODS, UNLEARNING, check_params, parameters
from poison_audit.records import Plan, Policy, Step
from poison_audit.verdict.policy import make_policy

MOST_TRIALS = 10_000
"""Of tuning, a method."""


def make_plan(
    config: Config,
    *,
    methods: Sequence[str] | None,
    settings: Mapping[str, Mapping[str, Any]],
    tolerances: Mapping[str, float],
    alpha: float | None,
    gate: str | None,
    budgets: Sequence[float] | None,
    seed: int | None,
    seeds: int | None,
    found: float | None = None,
    found_seed: int | None = None,
    tune: int | None = None,
    exit_zero: bool,
    today: str | None = None,
) -> Plan:
    """Merge the flags over audit.toml over the defaults; None means that no flag was given.

    `today` is the UTC day, YYYY-MM-DD, by which accepted risks expire. The hypotheses are asked
    wherever methods run: they explain why those fail.

    Raises:
        PlanError: everything that is unknown or impossible.
    """
    problems: list[Problem] = []
    names = _method_names(config, methods, problems)
    params = {name: dict(config.params.get(name, {})) for name in (*names, *PROBES, *HYPOTHESES)}
    known = [*METHODS, *PROBES, *HYPOTHESES]
    for name in config.params:
        if name not in known:
            hint = did_you_mean(name, known)
            problems.append(Problem(f"unknown method or probe {name!r}", str(config.path), hint))
    for name, given in settings.items():
        if name in params:
            params[name].update(given)
        elif name in METHODS:
            problems.append(Problem(f"{name} is not among the methods to run", "--set"))
        else:
            hint = did_you_mean(name, known)
            problems.append(Problem(f"unknown method or probe {name!r}", "--set", hint))
    for name in names:
        problems += check_params(name, params[name], blocks=None)
    for name in PROBES:
        problems += _check_counts(name, params[name], probe_parameters(name))
    for name in HYPOTHESES:
        problems += _check_counts(name, params[name], hypothesis_parameters(name), least=LEAST)
    policy = Policy()
    try:
        policy = make_policy(
            config,
            tolerances=tolerances,
            alpha=alpha,
            gate=gate,
            exit_zero=exit_zero,
            today=today,
        )
    except PlanError as error:
        problems += error.problems
    plan_values = {
        **_budgets(config, problems, budgets),
        "seeds": _within(config, problems, "seeds", seeds, 1, low=0, high=1000),
        "found": _within(config, problems, "found", found, 1.0, low=0.0, high=1.0),
        "found_seed": found_seed if found_seed is not None else config.get("plan", "found_seed", 0),
        "seed": seed if seed is not None else config.get("plan", "seed", 0),
        "tune": _trials(config, problems, tune, names),
    }
    if problems:
        raise PlanError(problems)
    return Plan(
        methods=tuple(Step(name=n, params={**parameters(n), **params[n]}) for n in names),
        probes=tuple(Step(name=n, params={**probe_parameters(n), **params[n]}) for n in PROBES),
        hypotheses=tuple(
            Step(name=n, params={**hypothesis_parameters(n), **params[n]})
            for n in (HYPOTHESES if names else ())
        ),
        policy=policy,
        **plan_values,
    )


def _method_names(
    config: Config, methods: Sequence[str] | None, problems: list[Problem]
) -> tuple[str, ...]:
    given = methods if methods is not None else config.get("plan", "methods", ["all"])
    names: list[str] = []
    for name in given:
        if name == "all":
            names += UNLEARNING
        elif name in METHODS:
            names.append(name)
        elif name != "none":
            problems.append(
                Problem(f"unknown method {name!r}", "--methods", did_you_mean(name, METHODS))
            )
    return tuple(dict.fromkeys(names))


def _budgets(
    config: Config, problems: list[Problem], given: Sequence[float] | None
) -> dict[str, Any]:
    """Return the largest budget, and the smaller ones as a sweep, largest first."""
    shares = config.get("plan", "budget", 0.1) if given is None else given
    every = sorted(set(shares if isinstance(shares, Sequence) else [shares]), reverse=True)
    for share in every:
        if not 0 < share <= 1:
            problems.append(Problem(f"must be above 0 and at most 1, got {share:g}", "--budget"))
    return {"budget": every[0], "sweep": tuple(every[1:])}


def _trials(config: Config, problems: list[Problem], flag: int | None, names: Sequence[str]) -> int:
    given: int | None = config.get("plan", "tune") if flag is None else flag
    if given is None or not any(name in UNLEARNING for name in names):
        return 0
    if not 1 <= given <= MOST_TRIALS:
        problems.append(Problem(f"must be from 1 to {MOST_TRIALS:,}, got {given}", "--tune"))
    return given


def _within(
    config: Config,
    problems: list[Problem],
    key: str,
    flag: Any,
    default: Any,
    *,
    low: float,
    high: float,
) -> Any:
    value = flag if flag is not None else config.get("plan", key, default)
    if not low < value <= high:
        problems.append(
            Problem(f"must be above {low:g} and at most {high:g}, got {value}", f"--{key}")
        )
    return value


def check_plan(plan: Plan, *, blocks: int, candidates: Sequence[str]) -> None:
    """Refuse what only the loaded model shows to be impossible: block counts, an unknown gate.

    Raises:
        PlanError: everything that is impossible.
    """
    problems: list[Problem] = []
    for step in plan.methods:
        problems += check_params(step.name, step.params, blocks=blocks)
    known = ["deployed", "any-method", *candidates]
    if plan.policy.gate not in known:
        hint = did_you_mean(plan.policy.gate, known)
        problems.append(Problem(f"nothing named {plan.policy.gate!r} is on trial", "--gate", hint))
    if problems:
        raise PlanError(problems)


def _check_counts(
    name: str,
    given: Mapping[str, Any],
    known: Mapping[str, int],
    *,
    least: Mapping[str, int] | None = None,
) -> list[Problem]:
    low = {key: (least or {}).get(key, 1) for key in known}
    return [
        Problem(f"{name} has no parameter {key!r}", "", did_you_mean(key, known))
        if known
        else Problem(f"{name} has no parameter {key!r}", "", f"{name} takes none.")
        for key in given
        if key not in known
    ] + [
        Problem(f"{name}.{key} must be a whole number of at least {low[key]}, got {value!r:.40}")
        for key, value in given.items()
        if key in known and not (isinstance(value, int) and value >= low[key])
    ]
