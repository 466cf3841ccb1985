"""Repairs and short sequences of them, tried from cheap to dear, each looked at on its own half.

The test samples and what a key names are split once, at random (engine.tuning). Repairs are made
and looked at on one half; the verdict is on the other, which no choice has seen. What is looked at
here are figures without intervals: where a trigger is known, what it does to the answers
(training.stamped), as the model stands, with BatchNorm's statistics of clean samples, and once it
has learned on with five poisons among clean samples (checks.waking); else, as `--tune` looks, the
canaries' figure and the accuracy.

The budget bounds what all tries spend together, in gradient evaluations; looking is not charged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from poison_audit.case.case import Case
from poison_audit.checks.readings import UTILITY
from poison_audit.checks.waking import Waking, rate, woken
from poison_audit.engine.tuning import figures, keyed
from poison_audit.engine.unlearning import allowance, run_method
from poison_audit.errors import DivergedError, PlanError, Problem
from poison_audit.methods import METHODS
from poison_audit.methods.repairs import CLEAN, FINISHES, STARTS, recalibrate
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.records import Plan
from poison_audit.statistics.estimates import paired_loss
from poison_audit.training.ledger import Ledger
from poison_audit.training.recalibrate import norm_layers, recalibrated
from poison_audit.training.stamped import RISE, Effect, answers, effect

LOOKED = 1000
"""Test samples that a repair is looked at with, at most."""
FINISH, LEAST = 0.01, 100.0
"""What each finishing step may spend: a share of the budget, but gradient evaluations at least."""
FIVE = Waking(way="relearned", poisons=5)
AGAIN = 4.0
"""How far the trigger may come with these, in tolerances: no more than the luck of a training
(verdict.asleep)."""
TOO_FEW = "to judge by are likely too few to clear its accuracy"
PROMISING = 0.8
"""In tolerances: up to here a repair is worth an audit. Intervals need some room to the tolerance.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A repair that was tried, and what was seen of it."""

    name: str
    """The steps that made it, in order."""
    gradients: float
    """What these steps spent."""
    model: Model | None = None
    """None: a step failed, or it changed nothing."""
    worst: float | None = None
    """The worst of its figures, in tolerances."""
    returns: float | None = None
    """How far the trigger comes back with five poisons, in tolerances; None: not looked at."""
    undecided: bool = False
    """Whether an audit would likely leave open if the accuracy that it costs is tolerated."""
    told: str = ""
    """The figures, or why there are none, in words."""

    @property
    def promising(self) -> bool:
        """Whether it is worth an audit."""
        return self.worst is not None and self.worst <= PROMISING

    @property
    def lasting(self) -> bool:
        """Whether it is worth one before dearer repairs are tried."""
        return self.promising and not self.undecided and (self.returns or 0.0) <= AGAIN


def repairs(case: Case, plan: Plan) -> Iterator[Tried]:
    """Yield every repair as it is made.

    Args:
        case: with the half to choose by.
        plan: its budget bounds all of them together; its seed decides every draw.

    Raises:
        PlanError: nothing is known of the poison by which a repair could be chosen.
    """
    if case.stamp is None and not keyed(case):
        what = (
            "nothing tells which repair works: no trigger was given or recovered, and no canaries"
        )
        fix = "Give one of them (--trigger, --canaries, --strings), or retrain without the samples"
        raise PlanError(Problem(what, "--forget", fix))
    most, whole = allowance(case, plan.budget), Ledger()
    rng, look = Rng(plan.seed).named("repair"), _Look(case, plan)
    made: dict[tuple[int, tuple[str, ...]], _Made] = {}
    seen = {case.model.digest()}
    for place, finish in [(p, f) for p in range(len(STARTS)) for f in FINISHES]:
        start = STARTS[place]
        step, share, params = (
            (finish[-1], 0.0, {}) if finish else (start.method, start.share, start.params)
        )
        base = (place, finish[:-1]) if finish else start.after
        if not finish and base not in made:  # a finish of it that this model has no use for
            base = (base[0], ())
        if not step:
            made[place, finish] = _Made(model=case.model, steps=(), gradients=0.0)
            continue
        if base not in made or _unfit(step, case) or (start.blind and case.stamp is not None):
            continue
        before = made[base]
        steps = before.steps if before.steps[-1:] == (step,) else (*before.steps, step)
        name, left = ", ".join(steps), most - whole.spent
        own = share * most if share else max(FINISH * most, LEAST)
        ledger, draws = Ledger(allowed=min(left, own)), rng.named(place, *finish, step)
        try:
            model = STEPS[step](before.model, case, draws, ledger=ledger, **params)
        except (DivergedError, torch.OutOfMemoryError) as error:
            yield Tried(name=name, gradients=before.gradients, told=f"failed: {error}")
            continue
        whole.charge(ledger.spent)
        # What did nothing, for want of budget, is not finished again.
        if (digest := model.digest()) not in seen:
            seen.add(digest)
            spent = before.gradients + ledger.spent
            made[place, finish] = _Made(model=model, steps=steps, gradients=spent)
            yield look.at(name, model, spent)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A model that others go on from."""

    model: Model
    steps: tuple[str, ...]
    """That made it, one that went on once."""
    gradients: float


STEPS: dict[str, Callable[..., Model]] = {
    recalibrate.__name__: recalibrate, **{name: partial(run_method, name) for name in METHODS},
}  # fmt: skip
"""By name: (model, case, rng, *, ledger, numbers) -> Model."""


def _unfit(step: str, case: Case) -> bool:
    """Say whether a step cannot be run on a case, or would do nothing."""
    if step in METHODS:
        return METHODS[step].unfit(case) is not None
    return not norm_layers(case.model.module)


class _Look:
    """Looks at repairs on the half to choose by."""

    def __init__(self, case: Case, plan: Plan) -> None:
        self._case, self._plan = case, plan
        order = Rng(plan.seed).named("repair", "looked").numpy().permutation(len(case.test))
        self._plain = case.test.at(sorted(order[:LOOKED].tolist()))
        self._stamped = None if case.stamp is None else case.stamp(self._plain)
        self._before = answers(case.model, self._plain)
        order = Rng(plan.seed).named("repair", "clean").numpy().permutation(len(case.retain))
        self._clean = case.retain.at(sorted(order[:CLEAN].tolist()))
        self._lr: list[float | None] = []

    def at(self, name: str, model: Model, gradients: float) -> Tried:
        """Return a repair and its figures, as it stands and, if these will do, recalibrated."""
        plain = answers(model, self._plain)
        undecided = self._undecided(plain)
        who: dict[str, Any] = {
            "name": name, "gradients": gradients, "model": model, "undecided": undecided,
        }  # fmt: skip
        so = f"; {len(self._case.test):,} test samples {TOO_FEW}" if undecided else ""
        if self._stamped is None:
            found = figures(model, self._case, self._plan)
            if isinstance(found, str):
                return Tried(**who, told=found)
            residue, lost = found
            told = f"canaries at {residue:.2f} tolerances, accuracy at {lost:.2f}{so}"
            return Tried(**who, worst=max(residue, lost), told=told)
        one = self._effect(model, plain)
        told, worst = f"{_words(one)}{so}", one.worst
        if worst <= 1 and norm_layers(model.module):
            again = self._effect(recalibrated(model, self._clean))
            told = f"{told}; recalibrated {_words(again)}"
            worst = max(worst, again.left)  # waking may cost accuracy
        returns = None
        if worst <= 1 and (taught := self._taught(model)) is not None:
            returns = self._effect(taught).rise / RISE
            told = f"{told}; with five poisons again it raises one by {100 * RISE * returns:.1f}"
        return Tried(**who, worst=worst, returns=returns, told=told)

    def _taught(self, model: Model) -> Model | None:
        """Return the model once it has learned on with five poisons; None: it cannot be tried."""
        rng = Rng(self._plan.seed)
        if not self._lr:
            self._lr.append(rate(self._case.model, self._case, rng))
        try:
            return woken(model, self._case, FIVE, rng, lr=self._lr[0])
        except DivergedError:
            return None

    def _effect(self, model: Model, plain: Tensor | None = None) -> Effect:
        if self._stamped is None:
            raise ValueError("an effect is that of a trigger")
        plain = answers(model, self._plain) if plain is None else plain
        stamped, labels = answers(model, self._stamped), self._plain.y.cpu()
        return effect(self._before, plain, stamped, labels, classes=model.classes)

    def _undecided(self, plain: Tensor) -> bool:
        """Say whether the other half would be too small, were it answered as this one is."""
        y, n = self._plain.y.cpu(), len(self._case.test)
        before, after = self._before == y, plain == y
        gone, come = (
            round(int(part.sum()) * n / max(1, len(y)))
            for part in (before & ~after, after & ~before)
        )
        tolerance, alpha = self._plan.policy.tolerances[UTILITY.name], self._plan.policy.alpha
        # The first audit may err with alpha / 2, and accuracy is asked of one side.
        seen = paired_loss(
            only_before=gone, only_after=come, n=n, level=1 - alpha, tolerance=tolerance
        )
        return seen.high > tolerance


def _words(seen: Effect) -> str:
    rise, wrong, lost = (f"{100 * each:.1f}" for each in (seen.rise, seen.wrong, seen.lost))
    return (
        f"the trigger raises a class by {rise} points and costs {wrong} of the right answers, the "
        f"repair {lost}"
    )
