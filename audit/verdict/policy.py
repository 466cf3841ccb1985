"""A Policy from what was asked for: tolerances, alpha, the gate, and risks that were accepted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from poison_audit.errors import PlanError, Problem, Problems, did_you_mean
from poison_audit.records import Acceptance, Policy
from poison_audit.verdict.readings import READINGS, reading_of


def standard_policy() -> Policy:
    """Return the policy of whoever states none: every reading's own tolerance.

    >>> min(standard_policy().tolerances.values())
    0.01
    """
    known = {name: each.tolerance for name, each in READINGS.items() if each.tolerance is not None}
    return Policy(tolerances=known)


def make_policy(
    *,
    alpha: float | None = None,
    gate: str | None = None,
    tolerances: Mapping[str, float],
    accepted: Sequence[Acceptance] = (),
    where: str = "",
    exit_zero: bool = False,
    allow_loose: bool = False,
    today: str | None = None,
    base: Policy | None = None,
) -> Policy:
    """Put what was asked for over `base`; None and empty mean that nothing was.

    Args:
        alpha: largest probability of a wrong exit code.
        gate: whose verdict is the audit's.
        tolerances: by probe.
        accepted: risks that somebody answers for.
        where: the file that `accepted` stands in.
        exit_zero: whether exit code 1 is reported as 0.
        allow_loose: whether tolerances and bounds may be such that next to nothing fails.
        today: the UTC day, YYYY-MM-DD, by which acceptances expire; needed where there are any.
        base: what nobody asked for otherwise; default: the standard policy.

    Raises:
        PlanError: everything that is unknown or impossible.
    """
    problems = Problems()
    standard = base or standard_policy()
    level = standard.alpha if alpha is None else alpha
    if not 0 < level < 0.5:
        problems.append(Problem(f"must lie between 0 and 0.5, got {level}", "--alpha"))
    for name in tolerances:
        if name not in standard.tolerances:
            hint = did_you_mean(name, standard.tolerances)
            problems.append(Problem(f"no tolerance is named {name!r}", "--tolerance", hint))
    chosen = {**standard.tolerances, **tolerances}
    problems += _wrong_tolerances(chosen, loose=allow_loose)
    risks = tuple(accepted) or standard.accepted
    told = where if accepted else ""
    problems += _wrong_acceptances(risks, chosen, told, loose=allow_loose)
    problems.raise_any(PlanError)
    return Policy(
        alpha=level,
        gate=standard.gate if gate is None else gate,
        tolerances=chosen,
        exit_zero=exit_zero or standard.exit_zero,
        accepted=risks,
        decided=today if risks else None,
    )


def _wrong_tolerances(chosen: Mapping[str, float], *, loose: bool) -> list[Problem]:
    problems = []
    for name, value in chosen.items():
        reading, where = reading_of(name), f"tolerance of {name}"
        low, high = reading.least, reading.most
        if not low < value < high:
            text = f"must be above {low:g}" + (f" and below {high:g}" if high < math.inf else "")
            problems.append(Problem(f"{text}, got {value}", where))
        elif value > reading.loosest and not loose:
            what = f"{value:g} lets next to every model pass (usual: {reading.tolerance:g})"
            fix = f"Give at most {reading.loosest:g}, or add --allow-tolerance"
            problems.append(Problem(what, where, fix))
    return problems


def looser(policy: Policy) -> str:
    """Say which tolerances are looser than the usual ones; empty if none is."""
    told = [
        f"{name} {value:g} instead of {usual:g}"
        for name, usual in standard_policy().tolerances.items()
        if (value := policy.tolerances.get(name, usual)) > usual
    ]
    return f"Judged by looser tolerances than usual: {', '.join(told)}." if told else ""


def far(policy: Policy) -> str:
    """Say which risks were accepted up to a bound by which next to every model passes."""
    told = [
        f"{each.probe} of {each.candidate} up to {each.bound:g}"
        for each in policy.accepted
        if each.bound > reading_of(each.probe).loosest
    ]
    return f"Next to every model passes what was accepted: {', '.join(told)}." if told else ""


def _wrong_acceptances(
    accepted: Sequence[Acceptance], tolerances: Mapping[str, float], where: str, *, loose: bool
) -> list[Problem]:
    problems = []
    for number, each in enumerate(accepted, start=1):
        place = f"{where} [[accept]] {number}".strip()
        tolerance = tolerances.get(each.probe)
        if tolerance is None:
            what = f"no probe with a tolerance is named {each.probe!r}"
            problems.append(Problem(what, place, did_you_mean(each.probe, tolerances)))
        elif problem := _wrong_bound(each, tolerance, place, loose=loose):
            problems.append(problem)
        earlier = [(a.probe, a.candidate) for a in accepted[: number - 1]]
        if (each.probe, each.candidate) in earlier:
            what = f"{each.probe} of {each.candidate} is accepted twice"
            problems.append(Problem(what, place, "Keep one of them."))
    return problems


def _wrong_bound(each: Acceptance, tolerance: float, place: str, *, loose: bool) -> Problem | None:
    reading, bound = reading_of(each.probe), each.bound
    if not (tolerance < bound and math.isfinite(bound)):
        what = f"bound is {bound:g}, and {each.probe} tolerates {tolerance:g} already"
        return Problem(what, place, "Give the larger figure that is accepted.")
    if bound > reading.most:
        what = f"bound is {bound:g}, and {each.probe} is never above {reading.most:g}"
        return Problem(what, place, "Give the larger figure that is accepted.")
    if bound > reading.loosest and not loose:
        what = f"bound is {bound:g}, by which next to every model passes"
        fix = f"Give at most {reading.loosest:g}, or add --allow-tolerance."
        return Problem(what, place, fix)
    return None
