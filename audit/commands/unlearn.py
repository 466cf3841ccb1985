"""What `unlearn` does: one method, and the model it makes."""

from __future__ import annotations

from pathlib import Path

from poison_audit.commands.arguments import CheckSettings
from poison_audit.commands.inputs import check_output, device_named, load, read_inputs
from poison_audit.engine import unlearning
from poison_audit.engine.cells import save_unlearned
from poison_audit.engine.plan import check_plan
from poison_audit.errors import AuditError, InputError, PlanError, Problem
from poison_audit.methods import METHODS
from poison_audit.models.beside import files_beside, weights_file, wrong_company
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng


def unlearn(settings: CheckSettings, *, output: Path) -> int:
    """Unlearn by one method and write the model to `output`; return the exit code."""
    sources, plan = read_inputs(settings)
    if len(plan.methods) != 1:
        raise PlanError(Problem("give one method", "--method"))
    trial = load(sources, settings.recipe, device_named(settings.subject.device))
    check_plan(plan, blocks=len(trial.case.model.blocks), candidates=[])
    file = _unlearned_file(output, trial.case.model)
    step = plan.methods[0]
    done = unlearning.unlearn(
        trial.case,
        step,
        Rng(plan.seed).named(step.name, 0),
        budget=None if METHODS[step.name].reference else plan.budget,
    )
    model, cost = done.model, done.cost
    if model is None:
        raise AuditError(f"{done.error}. Nothing was written")
    save_unlearned(model, step.name, file)
    allowed = "no bound" if cost.allowed is None else f"{cost.allowed:,.0f} allowed"
    print(
        f"{output}: {step.name}, {cost.gradients:,.0f} gradient evaluations ({allowed}), "
        f"{cost.seconds:.1f} s. Not judged: run `poison-audit probe` on it."
    )
    return 0


def _unlearned_file(output: Path, model: Model) -> Path:
    """Return where the weights go, once nothing stands in the way of anything that is written."""
    texts = model.reader is not None
    file = weights_file(output, texts=texts)
    check_output(output, folder=file != output)
    if problems := wrong_company(file, files_beside(model)):
        raise InputError(problems)
    return file
