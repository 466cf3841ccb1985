"""What `unlearn` does: one method, and the model it makes."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poison_audit.commands.arguments import CheckSettings
from poison_audit.commands.fields import PAIR, Field, fields_of
from poison_audit.commands.inputs import check_output, device_named, load, read_inputs
from poison_audit.commands.settings import EVIDENCE, Architecture, Subject, Texts, Trained
from poison_audit.engine import unlearning
from poison_audit.engine.cells import save_unlearned
from poison_audit.engine.own_method import own_methods
from poison_audit.engine.plan import check_plan
from poison_audit.errors import AuditError, InputError, PlanError, Problem
from poison_audit.methods import METHODS
from poison_audit.models.beside import files_beside, weights_file, wrong_company
from poison_audit.models.lora_files import WEIGHTS
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.records import Cost

SUBJECT = (Architecture, Texts, Subject, Trained)
"""What `probe` can be told of a case as well."""


def unlearn(settings: CheckSettings, *, output: Path, given: Mapping[str, Any]) -> int:
    """Unlearn by one method and write the model to `output`; return the exit code.

    Args:
        settings: what is asked for.
        output: where to write.
        given: the command line's values, which the next command repeats.
    """
    made = unlearned(settings, lambda model: unlearned_file(output, model))
    step, cost, file = made.step, made.cost, _file(output, made.model)
    save_unlearned(made.model, step, file, made_of=made.made_of, anew=made.anew)
    allowed = "no bound" if cost.allowed is None else f"{cost.allowed:,.0f} allowed"
    print(
        f"{output}: {step}, {cost.gradients:,.0f} gradient evaluations ({allowed}), "
        f"{cost.seconds:.1f} s. Not judged: that is done beside the model it was made of."
    )
    judged = ("--candidate", f"fixed={output}", "--gate", "fixed")
    print(f"Next: {command_of(given, 'probe', *judged)}")
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A model that one method made."""

    step: str
    """The method."""
    model: Model
    cost: Cost
    made_of: tuple[str, ...]
    """Digests of the models that it was made of, the deployed one last."""
    anew: bool
    """Whether it was trained anew, without the forget set."""


def unlearned(settings: CheckSettings, ready: Callable[[Model], object]) -> Made:
    """Unlearn by the one method that is asked for.

    Args:
        settings: what is asked for.
        ready: called with the deployed model before the method runs, to refuse what cannot be.

    Raises:
        AuditError: the method gave no model.
    """
    with own_methods(settings.own.method_from, settings.own.method_seconds):
        return _unlearned(settings, ready)


def _unlearned(settings: CheckSettings, ready: Callable[[Model], object]) -> Made:
    sources, plan = read_inputs(settings)
    if len(plan.methods) != 1:
        raise PlanError(Problem("give one method", "--method"))
    trial = load(sources, settings.recipe, device_named(settings.subject.device))
    check_plan(plan, blocks=len(trial.case.model.blocks), candidates=[])
    ready(trial.case.model)
    step = plan.methods[0]
    anew = METHODS[step.name].reference
    done = unlearning.unlearn(
        trial.case,
        step,
        Rng(plan.seed).named(step.name, 0),
        budget=None if anew else plan.budget,
    )
    model, cost = done.model, done.cost
    if model is None:
        raise AuditError(f"{done.error}. Nothing was written")
    return Made(step=step.name, model=model, cost=cost, made_of=trial.made_of, anew=anew)


def command_of(given: Mapping[str, Any], name: str, *more: str) -> str:
    """Return a command on the same case, with all that was said of it, and what it is told more."""
    parts = ["poison-audit", name, str(given["model"])]
    declared = {name: each for part in SUBJECT for name, each in fields_of(part).items()}
    for key, each in {**declared, **EVIDENCE}.items():
        if each.flag and (value := given.get(key)) not in (None, False, ()):
            parts += _spelt(each, value)
    return shlex.join([*parts, *more])


def _spelt(declared: Field, value: Any) -> list[str]:
    """Return a flag and its value as a command line has them."""
    flag = declared.flag
    if value is True:
        return [flag]
    if declared.kind.metavar == PAIR.metavar:
        return [part for key, text in value for part in (flag, f"{key}={text}")]
    return [flag, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]


def unlearned_file(output: Path, model: Model) -> Path:
    """Return where the weights go, once nothing stands in the way of anything that is written."""
    file = _file(output, model)
    check_output(output, folder=file != output)
    if problems := wrong_company(file, files_beside(model, adapter=file.name == WEIGHTS)):
        raise InputError(problems)
    return file


def _file(output: Path, model: Model) -> Path:
    alone = model.adapter is not None and model.adapter_alone
    return weights_file(output, texts=model.reader is not None, adapter=alone)
