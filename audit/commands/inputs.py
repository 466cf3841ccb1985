"""From settings to what is on trial and what will be done with it, all problems at once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from poison_audit.case.load import Trial, load_trial
from poison_audit.case.sources import WANTED, Sources
from poison_audit.commands.arguments import CheckSettings, policy_of
from poison_audit.commands.own_settings import Running
from poison_audit.commands.settings import Texts
from poison_audit.commands.usage import wrong_together
from poison_audit.engine.own_probe import own_probes
from poison_audit.engine.plan import make_plan
from poison_audit.errors import InputError, PlanError, Problem, Problems
from poison_audit.methods import METHODS, REFERENCES, UNLEARNING
from poison_audit.models.reader import Reading
from poison_audit.poisons.probes import READERS
from poison_audit.poisons.readings import POISONS
from poison_audit.records import Plan, Recipe
from poison_audit.verdict.policy import standard_policy

RESERVED = ("deployed", "any-method", *REFERENCES)
NO_EPOCHS = Problem(
    "the epochs of the original training are not given, and budgets are a share of them",
    fix="Give them by --recipe epochs=N, or epochs = N under [training] in audit.toml; "
    "`poison-audit probe` needs none",
)


def read_inputs(settings: CheckSettings) -> tuple[Sources, Plan]:
    """Return where everything on trial lies, and what will be done with it.

    Raises:
        InputError: everything that is wrong with audit.toml, the flags and the files.
    """
    problems, plan = Problems(settings.problems), None
    with problems.collecting():
        plan = read_plan(settings)
    if plan is not None:
        problems += _wrong_rehearsal(settings.running, plan)
        unsaid = ("training", "epochs") not in settings.config.unusable
        if plan.methods and settings.recipe.epochs is None and unsaid:
            problems.append(NO_EPOCHS)
    problems += wrong_together(settings)
    candidates = _candidates(settings.judged.candidate, problems)
    sources = _sources(settings, candidates)
    if problems or plan is None:
        # The files are looked at all the same, so that one run names everything that is wrong.
        with problems.collecting():
            load(sources, settings.recipe, "cpu")
        # What was given in a wrong form was given.
        given = [WANTED[key] for _, key in settings.config.unusable if key in WANTED]
        raise InputError(problem for problem in problems if problem not in given)
    return sources, plan


def load(sources: Sources, recipe: Recipe, device: torch.device | str) -> Trial:
    """Read everything on trial; InputError names every problem of every file."""
    return load_trial(sources, recipe=recipe, device=device, poisons=POISONS, readers=READERS)


def read_plan(settings: CheckSettings) -> Plan:
    """Return the plan that is asked for; PlanError: all that is impossible, of the policy too."""
    problems, policy, plan = Problems(), standard_policy(), None
    with problems.collecting():
        policy = policy_of(settings)
    asked = settings.methods
    own = settings.own_probes
    with problems.collecting():
        plan = make_plan(
            policy=policy, methods=asked.methods, params=settings.config.params,
            where=str(settings.config.path), settings=settings.numbers, budgets=asked.budget,
            seed=settings.subject.seed, seeds=asked.seeds, found=asked.found,
            found_seed=asked.found_seed, tune=asked.tune, reaudit=settings.judged.reaudit,
            trainable=settings.subject.trainable,
            probes_of_own=own_probes(own.probe_from, own.probe_seconds),
        )  # fmt: skip
    if plan is None or problems:
        raise PlanError(problems)
    return plan


def _sources(settings: CheckSettings, candidates: Mapping[str, Path]) -> Sources:
    subject = settings.subject
    return Sources(
        model=subject.model,
        forget=subject.forget,
        train=subject.train,
        test=subject.test,
        names=subject.names,
        evidence=settings.evidence,
        references=settings.judged.reference,
        candidates=candidates,
        reading=reading_of(settings.texts),
        allow_pickle=subject.allow_pickle,
        state_key=subject.state_key,
        base=subject.base,
        trainable=subject.trainable,
        **asdict(settings.architecture),
    )


def reading_of(texts: Texts) -> Reading:
    """Return how a language model reads texts."""
    return Reading(
        max_tokens=texts.max_tokens,
        prompt=texts.prompt,
        words=None if texts.label_words is None else tuple(texts.label_words),
        start=texts.start,
    )


def _wrong_rehearsal(running: Running, plan: Plan) -> list[Problem]:
    if running.rehearse and not any(step.name in UNLEARNING for step in plan.methods):
        what = "rehearses methods, and none is to run"
        return [Problem(what, "--rehearse", "Give --methods, or leave it out")]
    return []


def _candidates(pairs: Sequence[tuple[str, str]], problems: Problems) -> dict[str, Path]:
    candidates: dict[str, Path] = {}
    for name, path in pairs:
        if name in candidates or name in RESERVED or name.partition("@")[0] in METHODS:
            where = f"--candidate {name}={path}"
            problems.append(Problem(f"the name {name!r} is taken", where, "Choose another name"))
        candidates[name] = Path(path)
    return candidates


DEVICES, CUDA = ("cpu", "cuda"), torch.device("cuda")


def device_named(name: str) -> torch.device:
    """Return the device that `--device` names; InputError if there is none."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        # Where processes share the work, the first card need not be this one's.
        if device.type in DEVICES and not (device == CUDA and torch.cuda.is_available()):
            torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(Problem(f"no such device: {name} ({reason})", "--device")) from error
    if device.type not in DEVICES:
        # Of meta there are no figures; mps has no float64, which every score is summed in.
        what = f"audits do not run on {name}"
        raise InputError(Problem(what, "--device", "Give cpu, cuda or cuda:N"))
    return device


def check_output(path: Path, *, folder: bool = False) -> None:
    """Refuse an output that could not be written, before anything is computed for it.

    Args:
        folder: whether it is to be a folder, which may be there already; else it is a file.
    """
    reason = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.is_dir() != folder:
            reason = "is a file" if folder else "is a folder"
        elif not os.access(path if path.is_dir() else path.parent, os.W_OK):
            reason = "cannot be written"
    except OSError as error:
        reason = f"its folder cannot be made ({error.strerror})"
    if reason:
        raise InputError(Problem(f"{path}: {reason}", "-o", "Choose another output"))
