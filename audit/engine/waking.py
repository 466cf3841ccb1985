"""Which models are woken, in which ways, and what the poisons' probes see in them then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from poison_audit.case.case import Case
from poison_audit.checks.honesty import believed
from poison_audit.checks.waking import (
    ALONE,
    LOST,
    RECALIBRATED,
    STEPS,
    TAUGHT,
    Waking,
    clean_part,
    rate,
    right,
    woken,
)
from poison_audit.engine.cells import READINGS, Lack
from poison_audit.engine.probes import PROBES
from poison_audit.errors import DivergedError
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.poisons.probes import SPARING
from poison_audit.records import Kind, Measurement, Plan, Step, Woken
from poison_audit.training.recalibrate import norm_layers

LEVEL = 0.95
"""Of the interval that must lie beyond the tolerance for a model not to be woken. It decides
nothing: one that is not woken does not pass."""


def ways(kind: Kind, model: Model, plan: Plan, *, same: bool = False) -> tuple[Waking, ...]:
    """Return how a model is woken.

    One on trial is recalibrated whatever is asked: the deployed one may have been repaired before.
    A reference is woken only by what tells nothing without one.

    Args:
        kind: of candidate.
        model: one without BatchNorm has nothing to recalibrate.
        plan: says whether models are woken in every way.
        same: whether a candidate is the deployed model, whose findings it shares.
    """
    if kind == "reference":
        return TAUGHT if plan.reaudit else ()
    asked = plan.reaudit
    found = (*ALONE, *TAUGHT) if asked else () if same else (RECALIBRATED,)
    norms = norm_layers(model.module)
    return tuple(one for one in found if norms or one != RECALIBRATED)


def rate_of(case: Case, plan: Plan, references: Sequence[Model]) -> float | None:
    """Return the rate of relearning in an audit; None: nothing is relearned, or nothing can be."""
    if not plan.reaudit or len(case.retain) == 0:
        return None
    return rate(references[0] if references else case.model, case, Rng(plan.seed))


@dataclass(frozen=True, slots=True, kw_only=True)
class Roused:
    """What was seen in a model's woken states."""

    woken: tuple[Woken, ...] = ()
    lack: Lack | None = None
    """Why something is missing that another try may bring."""


def wake(
    model: Model,
    case: Case,
    plan: Plan,
    rng: Rng,
    how: Sequence[Waking],
    *,
    lr: float | None = None,
    awake: bool = False,
    unasked: bool = False,
) -> Roused:
    """Wake a model in each of these ways, and ask it what is left of poison.

    What could not be done is a measurement that says so.

    Args:
        model: stays as it is.
        case: with what is known of the poisons.
        plan: holds the probes.
        rng: the audit's root: every model is woken with the same draws, and asked with those that
            it was asked with as it stands.
        how: as `ways` returns it.
        lr: as `rate_of` returns it.
        awake: whether poison is at work in the model as it stands: then it is not woken, which the
            measurements say.
        unasked: say nothing of a model in which poison is at work, and leave out a state that is
            broken: nobody repaired this model that we know of, and training may have left BatchNorm
            with statistics that are not those of its data.
    """
    if not how:
        return Roused()
    if awake:
        return Roused(woken=() if unasked else tuple(_unwoken(waking, plan) for waking in how))
    before, found = right(model, case), list[Woken]()
    lack: Lack | None = None
    for waking in how:
        steps = _steps(waking, plan)
        seen: list[Measurement] = []
        made: Model | None = None
        why = ""
        try:
            made = woken(model, case, waking, rng, lr=lr)
            why = "" if made else _why_not(waking, case, lr)
        except DivergedError as error:
            why = f"the model diverged when it was woken: {error}"
        except torch.OutOfMemoryError:
            lack, why = Lack.OUT_OF_MEMORY, f"waking it {Lack.OUT_OF_MEMORY} on {model.device}"
        if made is None:
            seen = [Measurement(probe=s.name, evidence=None, missing=why) for s in steps]
        else:
            lost = before - right(made, case)
            if unasked and lost > LOST:
                continue
            broken = f"woken, it loses {100 * lost:.0f} points of accuracy"
            for step in steps:
                one, none = asked(made, case, step, rng)
                lack = lack or none
                seen.append(believed(one, broken if lost > LOST else None))
        relearned = waking.way == "relearned"
        found.append(Woken(
            way=waking.way, poisons=waking.poisons, measurements=tuple(seen),
            samples=0 if waking.way == "rounded" else len(clean_part(case, rng)),
            steps=STEPS if relearned else 0, lr=lr if relearned else None,
        ))  # fmt: skip
    return Roused(woken=tuple(found), lack=lack)


def awake(measurements: Sequence[Measurement], plan: Plan) -> bool:
    """Say whether poison is at work in a model as it stands, beyond what is tolerated.

    Waking such a model would cost as much as measuring it, and could change no verdict.
    """
    for seen in measurements:
        reading = READINGS[seen.probe]
        ranked = reading.residue and not reading.if_named and reading.estimate is not None
        if ranked and seen.evidence is not None and not seen.suspect and reading.estimate:
            tolerance = plan.policy.tolerances[seen.probe]
            if reading.estimate(reading.read(seen.evidence), LEVEL, tolerance).low > tolerance:
                return True
    return False


def _unwoken(waking: Waking, plan: Plan) -> Woken:
    seen = tuple(
        Measurement(probe=step.name, evidence=None, missing="poison is at work in it without that")
        for step in _steps(waking, plan)
    )
    return Woken(way=waking.way, poisons=waking.poisons, measurements=seen, samples=0)


def _steps(waking: Waking, plan: Plan) -> list[Step]:
    """Return the probes that are asked of a woken model: those of what is left of poison.

    Not those that hold its accuracy against references: waking itself changes that.
    """
    known = [(step, READINGS[step.name]) for step in plan.probes]
    residue = [step for step, reading in known if reading.residue and not reading.if_named]
    if not waking.compared:
        return residue
    # Beside a reference nothing is ranked among controls, so that few of them do.
    return [
        Step(name=s.name, params={
            key: min(value, SPARING.get(s.name, {}).get(key, value))
            for key, value in s.params.items()
        })
        for s in residue if READINGS[s.name].increase is not None
    ]  # fmt: skip


def _why_not(waking: Waking, case: Case, lr: float | None) -> str:
    if waking.way == "relearned" and lr is None:
        return "at no learning rate that was tried does the yardstick keep its accuracy"
    if len(case.forget) < waking.poisons:
        return f"the forget set has fewer than {waking.poisons} samples"
    return "there are no clean samples to wake it with"


def asked(model: Model, case: Case, step: Step, rng: Rng) -> tuple[Measurement, Lack | None]:
    """Return what one probe sees in a model, and why that is missing, if for a while."""
    # The draws do not depend on the candidate: all are measured against the same noise.
    draws = rng.named("probe", step.name)
    try:
        return PROBES[step.name](model, case, draws, **step.params), None
    except torch.OutOfMemoryError:
        missing = f"{Lack.OUT_OF_MEMORY} on {model.device}, with one sample at a time as well"
        return Measurement(probe=step.name, evidence=None, missing=missing), Lack.OUT_OF_MEMORY
