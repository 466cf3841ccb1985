"""What `check`, `probe` and `unlearn` do: flags -> config -> plan -> trial -> cells -> record."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from audit import engine, runs
from audit.case import Case
from audit.comparing import comparability
from audit.config import Config, find_config, make_recipe, parse_number, read_config
from audit.decide import decide
from audit.diagnosis import diagnosis
from audit.errors import AuditError, InputError, PlanError, Problem
from audit.exhibits import exhibits
from audit.forecast import forecast
from audit.methods import METHODS, UNLEARNING
from audit.models.beside import files_beside, weights_file, wrong_company
from audit.models.checkpoint import save_model
from audit.models.model import Model
from audit.models.reader import Reading
from audit.places import places
from audit.plan import check_plan, make_plan
from audit.policy import read_tolerances
from audit.probes import PROBES
from audit.progress import Reporter
from audit.provenance import git_state, git_top, input_files
from audit.records import (
    SCHEMA_VERSION,
    AuditRecord,
    Cell,
    Finding,
    Plan,
    Recipe,
    Rehearsal,
    Sanity,
    Tuning,
    from_json,
    to_json,
)
from audit.rehearsal import check_size, rehearse
from audit.rendering import clear_reports, show, show_forecast, write_reports
from audit.seeds import Rng
from audit.sharding import check_shardable, crew, processes, rank, share_cells
from audit.training import fast_precision
from audit.trial import Sources, Trial, load_trial
from audit.tuning import chosen, halves, load_optuna, tune
from reports.formats import FORMATS

RESERVED = ("deployed", "any-method", "retrained")


def audit(given: Mapping[str, Any]) -> int:
    """Run an audit from the command line's values; return its exit code."""
    if not given.get("shard"):
        return _audit(given)
    with crew() as number:
        return _audit({**given, "quiet": given["quiet"] or number > 0})


def _audit(given: Mapping[str, Any]) -> int:
    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    config, sources, recipe, plan = _read_flags(given)
    device = device_named(given["device"])
    reporter = Reporter(quiet=given["quiet"])
    with reporter.stage("Reading the model, the tables and the keys"):
        trial = load_trial(sources, recipe=recipe, device=device)
    if given.get("rehearse"):
        check_size(trial.case)
    if given.get("shard"):
        check_shardable(trial.case.model.module)
    plan = _asked_of(plan, trial)
    names = [job.candidate for job in engine.jobs(plan, trial)]
    check_plan(plan, blocks=len(trial.case.model.blocks), candidates=[*names, "retrained"])
    case, sanity = engine.check_sanity(trial.case, alpha=plan.policy.alpha)
    trial = replace(trial, case=case)
    reporter.say(_introduction(trial, sanity))
    judged, tuned_on = trial, None
    if plan.tune:
        load_optuna()
        tuned_on, rest = halves(case, Rng(plan.seed).named("halves"))
        judged = replace(trial, case=rest)
    if given.get("dry_run"):
        with reporter.stage("Doing every part in miniature"):
            told = forecast(judged, plan, allow_pickle=given["allow_pickle"])
        if rank() == 0:
            show_forecast(
                [(part.name, part.seconds) for part in told.parts],
                peak=told.peak_bytes,
                left_out=["the rehearsal"] if given.get("rehearse") else [],
            )
        return 3  # nothing was judged, and a gate must not take that for a pass
    key = runs.fingerprint(plan, recipe, trial.subject, device.type)
    stamp = started.strftime("%Y%m%dT%H%M%SZ")
    with _opened(given["out"], key, started=stamp) as out:
        clear_reports(out)
        tunings: tuple[Tuning, ...] = ()
        if tuned_on is not None and sanity.works:
            tunings = _tuned(tuned_on, plan, out, key=key, reporter=reporter)
            plan = chosen(plan, tunings)
        cells, why, rehearsal = (
            _measured(given, judged, plan, out, key=key, reporter=reporter)
            if sanity.works
            else ((), (), None)
        )
        decision = decide(plan, sanity, cells, attacks=trial.subject["attacks"])
        found_size = engine.found_size(plan, len(trial.case.forget))
        record = AuditRecord(
            schema_version=SCHEMA_VERSION,
            tool_version=version("poison-audit"),
            plan=plan,
            recipe=recipe,
            subject={**trial.subject, "found_size": found_size},
            sanity=sanity,
            cells=cells,
            findings=(*decision.findings, *why),
            verdict=decision.verdict,
            diagnosis=diagnosis(*why) if why else None,
            rehearsal=rehearsal,
            tuning=tunings,
            limits=(*trial.limits, *_limits(plan, trial, cells), *_halved(tunings, judged.case)),
            files=input_files([*trial.files, *_config_file(config)]),
            places=places(sources.forget, config.path, top=git_top(Path.cwd()) or Path.cwd()),
            exhibits=exhibits(trial),
            environment=_environment(device, config, started, time.perf_counter() - clock),
        )
        record = replace(record, comparability=comparability(record))
        # What is rendered is what was stored: whoever reads report.json sees the same.
        record = from_json(AuditRecord, to_json(record))
        formats = write_reports(record, out, formats=given["formats"])
    if rank() == 0:
        reporter.say(f"Report: {', '.join(str(out / FORMATS[name].file) for name in formats)}")
        show(record)
    return record.verdict.exit_code


@contextmanager
def _opened(out: Path | None, key: str, *, started: str) -> Iterator[Path]:
    """Give the run directory; of processes that share the work, the others a copy of its cells."""
    if rank() > 0:
        with TemporaryDirectory() as folder:
            share_cells(None, Path(folder))
            yield Path(folder)
        return
    with runs.open_run(out, key, started=started) as opened:
        if processes() > 1:
            share_cells(opened, opened)
        yield opened


def _measured(
    given: Mapping[str, Any], trial: Trial, plan: Plan, out: Path, *, key: str, reporter: Reporter
) -> tuple[tuple[Cell, ...], tuple[Finding, ...], Rehearsal | None]:
    """Return the cells, what was found about why, and the rehearsal, as far as they are asked."""
    pickles: bool = given["allow_pickle"]
    with _performing(given) as perform, reporter.cells() as report:
        cells = engine.run(
            trial, plan, out, key=key, keep=given["keep"], allow_pickle=pickles, report=report,
            perform=perform,
        )  # fmt: skip
    why: tuple[Finding, ...] = ()
    if plan.hypotheses:
        with reporter.stage("Asking why: how far, and in which direction, the poison moved it"):
            why = engine.explain(trial, plan, out, key=key, allow_pickle=pickles)
    if not given.get("rehearse"):
        return cells, why, None
    reporter.say("Rehearsal: the methods on a copy with canaries of its own.")
    with reporter.cells() as report:
        sigma = given["rehearse_sigma"]
        return cells, why, rehearse(trial, plan, out, key=key, sigma=sigma, report=report)


def _tuned(
    case: Case, plan: Plan, out: Path, *, key: str, reporter: Reporter
) -> tuple[Tuning, ...]:
    """Search the numbers of every unlearning method of the plan."""
    found = []
    for step in plan.methods:
        if step.name in UNLEARNING:
            with reporter.stage(f"Tuning {step.name}: {plan.tune} trials"):
                found.append(tune(case, step, plan, out, key=key))
    return tuple(found)


def _halved(tunings: Sequence[Tuning], judged: Case) -> list[str]:
    """Say what tuning looked at, what it cost, and what is judged."""
    if not tunings:
        return []
    counts = {
        "canaries": len(judged.canaries.names) if judged.canaries else 0,
        "token canaries": len(judged.strings.names) if judged.strings else 0,
        "test samples": len(judged.test),
    }
    left = " and ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    attempts = [attempt for tuning in tunings for attempt in tuning.attempts]
    spent = sum(attempt.gradients for attempt in attempts)
    return [
        f"The methods were tuned on one half of the canaries and of the test samples; every figure "
        f"is of the other half, {left}. {len(attempts):,} trials cost {spent:,.0f} gradient "
        f"evaluations beside the budgets."
    ]


def _performing(given: Mapping[str, Any]) -> AbstractContextManager[engine.Performer | None]:
    """Return what works on the cells: this process (None), or Ray."""
    if not given.get("ray"):
        return nullcontext()
    from audit.cluster import through_ray

    return through_ray(given["ray"], gpus=given["ray_gpus"])


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


def _config_file(config: Config) -> list[tuple[str, Path]]:
    return [] if config.path is None else [("config", config.path)]


def _asked_of(plan: Plan, trial: Trial) -> Plan:
    """Return the plan without the probes that cannot be asked of pictures."""
    texts = trial.case.model.reader is not None
    probes = tuple(s for s in plan.probes if texts or not PROBES[s.name].texts_only)
    return replace(plan, probes=probes)


def unlearn(given: Mapping[str, Any]) -> int:
    """Unlearn by one method and write the model; return the exit code."""
    wanted = {**given, "methods": given["method"], "seeds": None}
    _, sources, recipe, plan = _read_flags(wanted)
    if len(plan.methods) != 1:
        raise PlanError(Problem("give one method", "--method"))
    device = device_named(given["device"])
    trial = load_trial(sources, recipe=recipe, device=device)
    check_plan(plan, blocks=len(trial.case.model.blocks), candidates=[])
    file = _unlearned_file(given["output"], trial.case.model)
    step = plan.methods[0]
    model, cost, error = engine.unlearn(
        trial.case,
        step,
        Rng(plan.seed).named(step.name, 0),
        budget=None if step.name == "retrain" else plan.budget,
    )
    if model is None:
        raise AuditError(f"{error}. Nothing was written")
    extra = {"poison_audit.method": step.name, "poison_audit.digest": model.digest()}
    file.parent.mkdir(exist_ok=True)
    save_model(model, file, extra=extra)
    allowed = "no bound" if cost.allowed is None else f"{cost.allowed:,.0f} allowed"
    print(
        f"{given['output']}: {step.name}, {cost.gradients:,.0f} gradient evaluations ({allowed}), "
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


def _read_flags(given: Mapping[str, Any]) -> tuple[Config, Sources, Recipe, Plan]:
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
        plan = make_plan(
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
        canaries=given["canaries"] or config.get("evidence.gaussian", "canaries"),
        bases=given["bases"] or config.get("evidence.gaussian", "bases"),
        targets=given["targets"] or config.get("evidence.targeted", "targets"),
        trigger=given["trigger"] or config.get("evidence.backdoor", "trigger"),
        strings=given["strings"] or config.get("evidence.token-canary", "strings"),
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
            load_trial(sources, recipe=recipe, device="cpu")
        except InputError as error:
            problems += error.problems
        raise InputError(problems)
    return config, sources, recipe, plan


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


def _limits(plan: Plan, trial: Trial, cells: Sequence[Cell]) -> list[str]:
    """Say which repairs repaired nothing: the same bits, or parameters that cannot act."""
    told = []
    deployed = next((cell.digest for cell in cells if cell.kind == "deployed"), None)
    for cell in cells:
        if cell.kind != "deployed" and cell.digest is not None and cell.digest == deployed:
            told.append(f"{cell.candidate} is bit for bit the deployed model.")
    told += _backed_off(cells, trial.case.model.device)
    if processes() > 1:
        told.append(
            f"Training steps were shared among {processes()} processes. Dropout and added noise "
            "are drawn by each for its own part: another number of them gives other figures."
        )
    total = len(trial.case.retain) + len(trial.case.forget)
    most = total / engine.found_size(plan, len(trial.case.forget))
    for step in plan.methods:
        if step.name == "ssd" and step.params["alpha"] >= most:
            told.append(
                f"ssd selects weights {step.params['alpha']:g} times as important to the forget "
                f"samples as to the training set, which holds for none: with this forget set the "
                f"ratio is at most {most:.2g}. --set ssd.alpha=N below that lets it act."
            )
    return told


def _backed_off(cells: Sequence[Cell], device: torch.device) -> list[str]:
    """Say whose work did not fit on the device as planned."""
    told = []
    smaller = [f"{cell.candidate} at most {cell.batch}" for cell in cells if cell.batch is not None]
    if smaller:
        told.append(
            f"The memory of {device} gave out; samples evaluated at once: {', '.join(smaller)}. "
            "Their figures change by rounding only."
        )
    offloaded = [cell.candidate for cell in cells if cell.cost and cell.cost.offloaded]
    if offloaded:
        told.append(
            f"The memory of {device} gave out in steps of {', '.join(dict.fromkeys(offloaded))}: "
            "they kept in main memory what their backward pass needs, which took longer and "
            "changes no figure."
        )
    return told


def _introduction(trial: Trial, sanity: Sanity) -> str:
    subject, case = trial.subject, trial.case
    return (
        f"{subject['arch']} ({subject['parameters']:,} parameters, {subject['arch_source']}), "
        f"{len(case.retain):,} retain + {len(case.forget):,} forget + {len(case.test):,} test "
        f"samples, on {case.model.device}. Accuracy on test: {sanity.accuracy:.1%}."
    )


def _environment(
    device: torch.device, config: Config, started: datetime.datetime, seconds: float
) -> dict[str, Any]:
    packages = ("numpy", "scipy", "torch", "torchvision", "transformers", "safetensors")
    return {
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
        "device": (
            torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
        )
        or device.type,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "precision": fast_precision(device),  # of training steps; scores are always float32
        "command": shlex.join(["poison-audit", *sys.argv[1:]]),
        "git": git_state(Path.cwd()),
        "config": str(config.path) if config.path else None,
        "started": started.isoformat(timespec="seconds"),
        "seconds": seconds,
    }
