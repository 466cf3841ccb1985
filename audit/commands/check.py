"""What `check`, `probe` and `unlearn` do: flags -> config -> plan -> trial -> cells -> record."""

from __future__ import annotations

import datetime
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from poison_audit.atomic import from_json, to_json
from poison_audit.case.case import Case
from poison_audit.case.load import Trial, load_trial
from poison_audit.case.places import places
from poison_audit.case.provenance import git_state, git_top, input_files
from poison_audit.checks.sanity import check_sanity
from poison_audit.commands.config import Config
from poison_audit.commands.flags import check_output, device_named, read_flags
from poison_audit.commands.progress import Reporter
from poison_audit.commands.rendering import clear_reports, show, show_forecast, write_reports
from poison_audit.engine import runs, unlearning
from poison_audit.engine.caveats import caveats, halved
from poison_audit.engine.exhibits import exhibits
from poison_audit.engine.forecast import forecast
from poison_audit.engine.jobs import jobs
from poison_audit.engine.plan import check_plan
from poison_audit.engine.rehearsal import Judge, check_size, rehearse
from poison_audit.engine.run import Performer, run
from poison_audit.engine.tuning import chosen, halves, load_optuna, tune
from poison_audit.engine.why import explain
from poison_audit.errors import AuditError, InputError, PlanError, Problem
from poison_audit.methods import METHODS, REFERENCES, UNLEARNING
from poison_audit.models.beside import files_beside, weights_file, wrong_company
from poison_audit.models.factory import user_code
from poison_audit.models.model import Model
from poison_audit.models.saving import save_model
from poison_audit.models.seeds import Rng
from poison_audit.poisons.probes import READERS
from poison_audit.poisons.readings import POISONS
from poison_audit.records import (
    SCHEMA_VERSION,
    AuditRecord,
    Cell,
    Finding,
    Plan,
    Rehearsal,
    Sanity,
    Tuning,
)
from poison_audit.reports.formats import FORMATS
from poison_audit.training.loop import fast_precision
from poison_audit.training.sharding import check_shardable, crew, processes, rank, share_cells
from poison_audit.verdict.compare import comparability
from poison_audit.verdict.decide import decide
from poison_audit.verdict.diagnosis import diagnosis, worded
from poison_audit.verdict.readings import READINGS
from poison_audit.verdict.rehearsal import NAME, PROBED, decide_rehearsal, rehearsal_sentence

JUDGE = Judge(name=NAME, probes=PROBED, decide=decide_rehearsal, sentence=rehearsal_sentence)


def audit(given: Mapping[str, Any]) -> int:
    """Run an audit from the command line's values; return its exit code."""
    if not given.get("shard"):
        return _audit(given)
    with crew() as number:
        return _audit({**given, "quiet": given["quiet"] or number > 0})


def _audit(given: Mapping[str, Any]) -> int:
    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    config, sources, recipe, plan = read_flags(given)
    device = device_named(given["device"])
    reporter = Reporter(quiet=given["quiet"])
    with reporter.stage("Reading the model, the tables and the keys"):
        trial = load_trial(sources, recipe=recipe, device=device, poisons=POISONS, readers=READERS)
    if given.get("rehearse"):
        check_size(trial.case)
    if given.get("shard"):
        check_shardable(trial.case.model.module)
    plan = _asked_of(plan, trial)
    names = [job.candidate for job in jobs(plan, trial)]
    check_plan(plan, blocks=len(trial.case.model.blocks), candidates=[*names, *REFERENCES])
    case, sanity = check_sanity(trial.case, alpha=plan.policy.alpha)
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
    computing = f"{device.type} {fast_precision(device)}"
    code = user_code() if sources.factory else None
    key = runs.fingerprint(plan, recipe, trial.subject, computing, code)
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
        found_size = unlearning.found_size(plan, len(trial.case.forget))
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
            limits=(*trial.limits, *caveats(plan, trial, cells), *halved(tunings, judged.case)),
            files=input_files([*trial.files, *_config_file(config)]),
            places=places(sources.forget, config.path, top=git_top(Path.cwd()) or Path.cwd()),
            exhibits=exhibits(trial.case),
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
        cells = worded(run(
            trial, plan, out, key=key, keep=given["keep"], allow_pickle=pickles, report=report,
            perform=perform,
        ))  # fmt: skip
    why: tuple[Finding, ...] = ()
    if plan.hypotheses:
        with reporter.stage("Asking why: how far, and in which direction, the poison moved it"):
            why = explain(trial, plan, out, key=key, allow_pickle=pickles)
    if not given.get("rehearse"):
        return cells, why, None
    reporter.say("Rehearsal: the methods on a copy with canaries of its own.")
    with reporter.cells() as report:
        sigma = given["rehearse_sigma"]
        told = rehearse(trial, plan, out, key=key, judge=JUDGE, sigma=sigma, report=report)
    return cells, why, replace(told, cells=worded(told.cells))


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


def _performing(given: Mapping[str, Any]) -> AbstractContextManager[Performer | None]:
    """Return what works on the cells: this process (None), or Ray."""
    if not given.get("ray"):
        return nullcontext()
    from poison_audit.engine.cluster import through_ray

    return through_ray(given["ray"], gpus=given["ray_gpus"])


def _config_file(config: Config) -> list[tuple[str, Path]]:
    return [] if config.path is None else [("config", config.path)]


def _asked_of(plan: Plan, trial: Trial) -> Plan:
    """Return the plan without the probes that cannot be asked of pictures."""
    texts = trial.case.model.reader is not None
    probes = tuple(s for s in plan.probes if texts or not READINGS[s.name].texts_only)
    return replace(plan, probes=probes)


def unlearn(given: Mapping[str, Any]) -> int:
    """Unlearn by one method and write the model; return the exit code."""
    wanted = {**given, "methods": given["method"], "seeds": None}
    _, sources, recipe, plan = read_flags(wanted)
    if len(plan.methods) != 1:
        raise PlanError(Problem("give one method", "--method"))
    device = device_named(given["device"])
    trial = load_trial(sources, recipe=recipe, device=device, poisons=POISONS, readers=READERS)
    check_plan(plan, blocks=len(trial.case.model.blocks), candidates=[])
    file = _unlearned_file(given["output"], trial.case.model)
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
