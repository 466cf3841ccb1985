"""A Policy from audit.toml and flags: tolerances, alpha, the gate, and risks that were accepted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from poison_audit.commands.config import Config, parse_number
from poison_audit.errors import PlanError, Problem, did_you_mean
from poison_audit.records import Acceptance, Policy

LEAST = {"exposure": 0.5, "token-canary": 0.5}
"""Below which a tolerance of these probes says nothing; of the others below 0."""


def make_policy(
    config: Config,
    *,
    tolerances: Mapping[str, float],
    alpha: float | None,
    gate: str | None,
    exit_zero: bool,
    today: str | None = None,
    base: Policy | None = None,
) -> Policy:
    """Merge the flags over audit.toml over `base`; None means that no flag was given.

    Args:
        config: its [policy] and [[accept]].
        tolerances: by probe.
        alpha: largest probability of a wrong exit code.
        gate: whose verdict is the audit's.
        exit_zero: whether exit code 1 is reported as 0.
        today: the UTC day, YYYY-MM-DD, by which acceptances expire; needed where there are any.
        base: what neither says; default: the standard policy.

    Raises:
        PlanError: everything that is unknown or impossible.
    """
    problems: list[Problem] = []
    standard = base or Policy()
    level = alpha if alpha is not None else config.get("policy", "alpha", standard.alpha)
    if not 0 < level < 0.5:
        problems.append(Problem(f"must lie between 0 and 0.5, got {level}", "--alpha"))
    chosen = dict(standard.tolerances)
    for name in standard.tolerances:
        chosen[name] = config.get("policy.tolerances", name, chosen[name])
    for name, value in tolerances.items():
        if name not in chosen:
            hint = did_you_mean(name, chosen)
            problems.append(Problem(f"no tolerance is named {name!r}", "--tolerance", hint))
        chosen[name] = value
    problems += _wrong_tolerances(chosen)
    accepted = config.accepted or standard.accepted
    where = str(config.path) if config.accepted else "[[accept]]"
    problems += _wrong_acceptances(accepted, chosen, where)
    if problems:
        raise PlanError(problems)
    return Policy(
        alpha=level,
        gate=gate if gate is not None else config.get("policy", "gate", standard.gate),
        tolerances=chosen,
        exit_zero=exit_zero or standard.exit_zero,
        accepted=accepted,
        decided=today if accepted else None,
    )


def read_tolerances(pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Return the tolerances of `--tolerance PROBE=VALUE`.

    Raises:
        PlanError: every value that is no number.
    """
    found, problems = {}, []
    for name, text in pairs:
        value = parse_number(text)
        if isinstance(value, str):
            problems.append(Problem(f"expected a number, got {text!r}", f"--tolerance {name}"))
        else:
            found[name] = float(value)
    if problems:
        raise PlanError(problems)
    return found


def _wrong_tolerances(chosen: Mapping[str, float]) -> list[Problem]:
    problems = []
    for name, value in chosen.items():
        low, high = LEAST.get(name, 0.0), 1.0 if name != "gaussian" else math.inf
        if not low < value < high:
            text = f"must be above {low:g}" + (f" and below {high:g}" if high == 1 else "")
            problems.append(Problem(f"{text}, got {value}", f"tolerance of {name}"))
    return problems


def _wrong_acceptances(
    accepted: Sequence[Acceptance], tolerances: Mapping[str, float], where: str
) -> list[Problem]:
    problems = []
    for number, each in enumerate(accepted, start=1):
        place = f"{where} [[accept]] {number}"
        tolerance = tolerances.get(each.probe)
        if tolerance is None:
            hint = did_you_mean(each.probe, tolerances)
            problems.append(
                Problem(f"no probe with a tolerance is named {each.probe!r}", place, hint)
            )
        elif not (tolerance < each.bound and math.isfinite(each.bound)):
            what = f"bound is {each.bound:g}, and {each.probe} tolerates {tolerance:g} already"
            problems.append(Problem(what, place, "Give the larger figure that is accepted."))
        earlier = [(a.probe, a.candidate) for a in accepted[: number - 1]]
        if (each.probe, each.candidate) in earlier:
            what = f"{each.probe} of {each.candidate} is accepted twice"
            problems.append(Problem(what, place, "Keep one of them."))
    return problems
