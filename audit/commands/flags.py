"""Flags over audit.toml: where everything on trial lies, how it was trained, what is to be done."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from poison_audit.case.load import load_trial
from poison_audit.case.sources import Sources
from poison_audit.commands.config import Config, find_config, make_recipe, parse_number, read_config
from poison_audit.commands.policy import policy_of, read_tolerances
from poison_audit.engine.plan import STANDARD, make_plan
from poison_audit.errors import InputError, PlanError, Problem, Problems
from poison_audit.methods import METHODS, REFERENCES, UNLEARNING
from poison_audit.models.reader import Reading
from poison_audit.poisons.probes import READERS
from poison_audit.poisons.readings import POISONS
from poison_audit.records import Plan, Recipe
from poison_audit.verdict.policy import standard_policy

RESERVED = ("deployed", "any-method", *REFERENCES)


def read_flags(given: Mapping[str, Any]) -> tuple[Config, Sources, Recipe, Plan]:
    """Read audit.toml and the flags; every problem of both at once."""
    problems: list[Problem] = []
    path = given["config"] or find_config(given["model"], given["forget"])
    config = Config()
    if path is not None:
        try:
            config = read_config(path)
        except InputError as error:
            problems += error.problems
    try:
        recipe = make_recipe(config, dict(given["recipe"]))
    except PlanError as error:
        problems += error.problems
        recipe = Recipe()
    plan = None
    try:
        settings, tolerances, wrong = _numbers(given)
        problems += wrong
        shares, wrong = _shares(given["budget"])
        problems += wrong
        plan = read_plan(
            config,
            methods=listed(given["methods"]),
            settings=settings,
            tolerances=tolerances,
            alpha=given.get("alpha"),
            gate=given.get("gate"),
            budgets=shares,
            seed=given["seed"],
            seeds=given["seeds"],
            found=given.get("found"),
            found_seed=given.get("found_seed"),
            tune=given.get("tune"),
            exit_zero=given.get("exit_zero", False),
            today=datetime.datetime.now(datetime.UTC).date().isoformat(),
        )
        problems += [*_wrong_rehearsal(given, plan), *_wrong_ray(given)]
        if plan.methods and recipe.epochs is None:
            problems.append(
                Problem(
                    "the epochs of the original training are not given, and budgets are a share of "
                    "them",
                    fix="Give them by --recipe epochs=N, or epochs = N under [training] in "
                    "audit.toml; `poison-audit probe` needs none",
                )
            )
    except PlanError as error:
        problems += error.problems
    candidates, wrong = _candidates(given.get("candidate", ()))
    problems += wrong
    sources = Sources(
        model=given["model"],
        forget=given["forget"],
        train=given["train"] or config.get("data", "train"),
        test=given["test"] or config.get("data", "test"),
        names=listed(given["names"]) or _tuple(config.get("data", "names")),
        evidence={
            file.name: path
            for poison in POISONS.values()
            for file in poison.files
            if (path := given[file.name] or config.get(poison.table, file.name)) is not None
        },
        references=tuple(given.get("reference") or config.get("reference", "paths", ())),
        candidates=candidates,
        arch=given["arch"] or (None if given["factory"] else config.get("model", "arch")),
        factory=given["factory"],
        normalize=given["normalize"] or config.get("model", "normalize"),
        reading=reading(config, given),
        allow_pickle=given["allow_pickle"],
    )
    if problems or plan is None:
        # The files are looked at all the same, so that one run names everything that is wrong.
        try:
            load_trial(sources, recipe=recipe, device="cpu", poisons=POISONS, readers=READERS)
        except InputError as error:
            problems += error.problems
        raise InputError(problems)
    return config, sources, recipe, plan


def read_plan(
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
    today: str,
) -> Plan:
    """Put flags over audit.toml over the defaults; None means that no flag was given.

    Raises:
        PlanError: everything that is unknown or impossible, of the policy too.
    """

    def said(key: str, flag: Any, default: Any) -> Any:
        return config.get("plan", key, default) if flag is None else flag

    problems, policy, plan = Problems(), standard_policy(), None
    with problems.collecting():
        policy = policy_of(
            config, tolerances=tolerances, alpha=alpha, gate=gate, exit_zero=exit_zero, today=today
        )
    shares = said("budget", budgets, STANDARD.budget)
    with problems.collecting():
        plan = make_plan(
            policy=policy,
            methods=said("methods", methods, ("all",)),
            params=config.params,
            where=str(config.path),
            settings=settings,
            budgets=shares if isinstance(shares, Sequence) else [shares],
            seed=said("seed", seed, STANDARD.seed),
            seeds=said("seeds", seeds, STANDARD.seeds),
            found=said("found", found, STANDARD.found),
            found_seed=said("found_seed", found_seed, STANDARD.found_seed),
            tune=said("tune", tune, None),
        )
    if plan is None or problems:
        raise PlanError(problems)
    return plan


def _wrong_rehearsal(given: Mapping[str, Any], plan: Plan) -> list[Problem]:
    problems = []
    sigma = given.get("rehearse_sigma")
    if sigma is not None and not given.get("rehearse"):
        problems.append(Problem("belongs to --rehearse", "--rehearse-sigma", "Add --rehearse"))
    if sigma is not None and not 0 < sigma <= 10:
        what = f"must be above 0 and at most 10, got {sigma:g}"
        problems.append(Problem(what, "--rehearse-sigma"))
    if given.get("rehearse") and not any(step.name in UNLEARNING for step in plan.methods):
        what = "rehearses methods, and none is to run"
        problems.append(Problem(what, "--rehearse", "Give --methods, or leave it out"))
    return problems


def _wrong_ray(given: Mapping[str, Any]) -> list[Problem]:
    if given.get("ray") and given.get("shard"):
        return [Problem("does not go with --shard", "--ray", "Give one of them")]
    share = given.get("ray_gpus")
    if share is None:
        return []
    if not given.get("ray"):
        return [Problem("belongs to --ray", "--ray-gpus", "Add --ray")]
    if not 0 <= share <= 64:
        return [Problem(f"must be from 0 to 64, got {share:g}", "--ray-gpus")]
    return []


def _numbers(
    given: Mapping[str, Any],
) -> tuple[dict[str, dict[str, Any]], dict[str, float], list[Problem]]:
    settings: dict[str, dict[str, Any]] = {}
    tolerances: dict[str, float] = {}
    problems: list[Problem] = []
    for target, text in given.get("settings", ()):
        name, dot, key = target.partition(".")
        if not dot:
            problems.append(
                Problem(
                    f"expected NAME.KEY=VALUE, got {target}={text}",
                    "--set",
                    "For example --set scrub.alpha=0.5",
                )
            )
            continue
        settings.setdefault(name, {})[key] = parse_number(text)
    try:
        tolerances = read_tolerances(given.get("tolerance", ()))
    except PlanError as error:
        problems += error.problems
    return settings, tolerances, problems


def _shares(given: str | float | None) -> tuple[list[float] | None, list[Problem]]:
    """Return the budgets of `--budget A,B,..`; None where none was given."""
    if given is None or isinstance(given, float):
        return (None if given is None else [given]), []
    values = [parse_number(part) for part in listed(given) or ()]
    wrong = [str(value) for value in values if isinstance(value, str)]
    if wrong or not values:
        what = f"expected numbers such as 0.02,0.1, got {given!r:.60}"
        return None, [Problem(what, "--budget")]
    return [float(value) for value in values], []


def _candidates(pairs: Sequence[tuple[str, str]]) -> tuple[dict[str, Path], list[Problem]]:
    problems: list[Problem] = []
    candidates: dict[str, Path] = {}
    for name, path in pairs:
        if name in candidates or name in RESERVED or name.partition("@")[0] in METHODS:
            problems.append(
                Problem(
                    f"the name {name!r} is taken",
                    f"--candidate {name}={path}",
                    "Choose another name",
                )
            )
        candidates[name] = Path(path)
    return candidates, problems


def reading(config: Config, given: Mapping[str, Any]) -> Reading:
    """Return how a language model reads texts, as flags and audit.toml say."""
    # A word's leading space is a part of its token.
    words = given["label_words"].split(",") if given["label_words"] else None
    tokens = given["max_tokens"]
    return Reading(
        max_tokens=config.get("model", "max_tokens") if tokens is None else tokens,
        prompt=given["prompt"] or config.get("model", "prompt"),
        words=_tuple(words or config.get("model", "label_words")),
        start=given["start"] or config.get("model", "start"),
    )


def listed(text: str | None) -> tuple[str, ...] | None:
    """Return the parts of `A,B,..`; None for an empty or absent text."""
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else None


def _tuple(value: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(value)


def device_named(name: str) -> torch.device:
    """Return the device that `--device` names; InputError if there is none."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(Problem(f"no such device: {name} ({reason})", "--device")) from error
    return device


def check_output(path: Path, *, folder: bool = False) -> None:
    """Refuse an output that could not be written, before anything is computed for it.

    Args:
        path: the output.
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
