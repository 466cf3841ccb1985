"""What `repair` does: looks for a repair from cheap to dear, and writes the first that passes.

Each that looks promising on the half to choose by is audited on the other, as `probe` would, the
repaired model at the gate. A k-th audit may err with alpha / 2^k, so that all of them together keep
the level (a fixed sequence with the level spent by halves).
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from poison_audit.case.case import Case
from poison_audit.case.load import Trial
from poison_audit.checks.sanity import check_sanity
from poison_audit.commands.arguments import CheckSettings
from poison_audit.commands.check import COMMAND_LINE, audited
from poison_audit.commands.inputs import NO_EPOCHS, device_named, load, read_inputs
from poison_audit.commands.progress import Reporter
from poison_audit.commands.rendering import show
from poison_audit.commands.telling import Caller
from poison_audit.commands.unlearn import unlearned_file
from poison_audit.engine.cells import save_unlearned
from poison_audit.engine.repairing import Tried, repairs
from poison_audit.engine.runs import unused
from poison_audit.engine.tuning import parted
from poison_audit.errors import PlanError, Problem, Problems
from poison_audit.models.seeds import Rng
from poison_audit.poisons.probes import THOROUGH
from poison_audit.records import CandidateVerdict, Outcome, Plan
from poison_audit.verdict.record import AuditRecord

BUDGET = 0.02
"""Share of the original training's gradient evaluations, of all that is tried together."""
FIXED = "repaired"
"""What the repaired model is called in its audit."""
SPARE = 2
"""Repairs that are audited last: clean, but a few poisons bring the trigger back, or the test
samples are too few to tell whether the accuracy that it costs is tolerated."""
HALF = (
    "A random half of the test samples, and of the samples that a key names, chose this repair: "
    "every figure is measured on the other half."
)


def repair(settings: CheckSettings, *, given: Mapping[str, Any]) -> int:
    """Look for a repair and write it; return the exit code.

    Args:
        settings: what is asked for.
        given: the command line's values: where to write, and the budget.
    """
    output = given["output"]
    found = repaired(settings, budget=given["budget"], output=output)
    show(found.record)
    print(found.told)
    return found.exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search for a repair came to."""

    record: AuditRecord
    """The audit of the repair, or of the best; of the model as it is where there is no need."""
    told: str
    """What was found, in sentences."""
    exit_code: int
    tried: Tried | None = None
    """The repair that passed; None: none did, or there was no need."""
    made_of: tuple[str, ...] = ()


def repaired(
    settings: CheckSettings,
    *,
    budget: float | None = None,
    output: Path | None = None,
    caller: Caller = COMMAND_LINE,
) -> Found:
    """Look for a repair, and write it where somebody says.

    Args:
        settings: what is asked for.
        budget: of all that is tried together; None: `BUDGET`.
        output: where to write the repair; None: nowhere.
        caller: who asks.
    """
    budget = BUDGET if budget is None else float(budget)
    problems = Problems(settings.problems)
    if not 0 < budget <= 1:
        problems.append(Problem(f"must be above 0 and at most 1, got {budget:g}", "--budget"))
    if settings.recipe.epochs is None:
        problems.append(NO_EPOCHS)
    given_numbers = settings.numbers
    # A repair leaves little of the poison: fewer inputs could not tell it from too much.
    numbers = {**given_numbers} | {
        probe: {**params, **given_numbers.get(probe, {})} for probe, params in THOROUGH.items()
    }
    settings = replace(settings, problems=tuple(problems), numbers=numbers)
    sources, plan = read_inputs(settings)
    reporter = Reporter(quiet=settings.output.quiet, call=caller.call)
    with reporter.stage("Loading the model, the tables and the keys"):
        trial = load(sources, settings.recipe, device_named(settings.subject.device))
    file = None if output is None else unlearned_file(output, trial.case.model)
    case, _ = check_sanity(trial.case, alpha=plan.policy.alpha)
    search = _Search(settings, trial, plan, reporter, caller)
    if (none := search.begun()) is not None:
        return none
    best: Tried | None = None
    spare: list[Tried] = []
    for tried in repairs(_halves(case, plan)[0], replace(plan, budget=budget)):
        reporter.say(f"{tried.name}: {tried.told} ({tried.gradients:,.0f} gradient evaluations).")
        if tried.worst is not None and (best is None or tried.worst < (best.worst or 0.0)):
            best = tried
        if tried.lasting and search.passes(tried):
            return search.written(tried, output, file)
        if tried.promising and not tried.lasting:
            last = sorted([*spare, tried], key=lambda one: (one.undecided, one.returns or 0.0))
            spare = last[:SPARE]
    if best is None:
        raise PlanError(Problem("no repair could be tried", "", "Give a larger --budget"))
    # None lasts where poisons are learned again, of which no audit without a reference decides, or
    # all change too many answers for so few test samples.
    for tried in spare or [best]:
        if search.passes(tried):
            return search.written(tried, output, file)
    return search.ended(best)


def _halves(case: Case, plan: Plan) -> tuple[Case, Case]:
    return parted(case, Rng(plan.seed).named("repair", "halves"), "repair")


class _Search:
    """The audits of the repairs that looked promising."""

    def __init__(
        self, settings: CheckSettings, trial: Trial, plan: Plan, reporter: Reporter, caller: Caller
    ) -> None:
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        self._settings, self._trial, self._plan = settings, trial, plan
        self._reporter, self._caller = reporter, caller
        self._out = settings.output.out or unused(Path(f"repair-{stamp}"))
        self._audits = 0

    def begun(self) -> Found | None:
        """Audit the model as it is; return what that came to where there is nothing to repair."""
        record = self._audit(self._settings, self._plan.policy.alpha)
        # None where nothing was measured: it does not work, or is perhaps read wrongly.
        judged = next((v for v in record.verdict.candidates if v.candidate == "deployed"), None)
        if judged is not None and judged.outcome is not Outcome.CLEAN:
            return None
        why = "Nothing can be told of this model" if judged is None else "Nothing to repair"
        told = f"{why}; nothing was written."
        return Found(record=record, told=told, exit_code=record.verdict.exit_code)

    def passes(self, tried: Tried) -> bool:
        """Audit a repair; say whether it is clean, whatever else keeps the gate shut."""
        self._record = self._fixed(tried)
        told = _told(self._record, FIXED)
        self._reporter.say(f"{tried.name}: {told.outcome}. {told.reason}")
        return told.outcome in (Outcome.CLEAN, Outcome.ACCEPTED)

    def written(self, tried: Tried, output: Path | None, file: Path | None) -> Found:
        """Write a repair that is clean, where somebody says where."""
        if tried.model is None:
            raise ValueError("a repair that is clean is a model")
        record, made_of = self._record, self._trial.made_of
        if file is not None:
            save_unlearned(tried.model, tried.name, file, made_of=made_of, anew=False)
        told = f"{tried.name}, {tried.gradients:,.0f} gradient evaluations."
        return Found(
            record=record, told=told if output is None else f"{output}: {told}",
            exit_code=record.verdict.exit_code, tried=tried, made_of=made_of,
        )  # fmt: skip

    def ended(self, best: Tried) -> Found:
        """Say that no repair is clean, and name the best."""
        record = self._fixed(best)
        told = (
            f"No repair that was tried is clean; nothing was written. The best: {best.name} "
            f"({best.told}). {_told(record, FIXED).reason} It lies in {self._path(best)}."
        )
        # Another level is no reason to pass it now.
        return Found(record=record, told=told, exit_code=record.verdict.exit_code or 3)

    def _path(self, tried: Tried) -> Path:
        return self._out / "models" / f"{'-'.join(tried.name.split(', '))}.safetensors"

    def _fixed(self, tried: Tried) -> AuditRecord:
        """Audit a repair, awake."""
        if tried.model is None:
            raise ValueError("there is no model to audit")
        self._audits += 1
        path, settings = self._path(tried), self._settings
        save_unlearned(tried.model, tried.name, path, made_of=self._trial.made_of, anew=False)
        judged = replace(settings.judged, candidate=((FIXED, str(path)),))
        deciding = replace(settings.deciding, gate=FIXED)
        settings = replace(settings, judged=judged, deciding=deciding)
        return self._audit(settings, self._plan.policy.alpha / 2**self._audits)

    def _audit(self, settings: CheckSettings, alpha: float) -> AuditRecord:
        settings = replace(
            settings,
            judged=replace(settings.judged, reaudit=True),
            deciding=replace(settings.deciding, alpha=alpha),
            output=replace(settings.output, out=self._out),
        )
        quiet = settings.output.quiet
        found = audited(
            settings, quiet=quiet, part=lambda case: (self._judged(case), HALF),
            caller=self._caller,
        )  # fmt: skip
        if found is None:
            raise ValueError("a repair is never a dry run")
        return found

    def _judged(self, case: Case) -> Case:
        return _halves(case, self._plan)[1]


def _told(record: AuditRecord, name: str) -> CandidateVerdict:
    return next(each for each in record.verdict.candidates if each.candidate == name)
