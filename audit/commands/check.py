"""What `check` and `probe` do: settings -> plan -> trial -> cells -> record."""

from __future__ import annotations

import datetime
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from poison_audit.atomic import from_json, to_json
from poison_audit.case.case import Case
from poison_audit.case.doubts import Doubt
from poison_audit.case.load import Trial
from poison_audit.case.places import places
from poison_audit.case.provenance import git_state, git_top, input_files
from poison_audit.checks.adapter import doubts_of_adapter
from poison_audit.checks.sanity import check_sanity
from poison_audit.commands.arguments import CheckSettings
from poison_audit.commands.config import Config
from poison_audit.commands.inputs import device_named, load, read_inputs
from poison_audit.commands.own_settings import Running
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
from poison_audit.methods import REFERENCES, UNLEARNING
from poison_audit.models.factory import user_code
from poison_audit.models.preprocessor import stated_sizes
from poison_audit.models.seeds import Rng
from poison_audit.records import Cell, Finding, Plan, Rehearsal, Sanity, Tuning
from poison_audit.reports.formats import FORMATS
from poison_audit.training.loop import fast_precision
from poison_audit.training.sharding import check_shardable, crew, processes, rank, share_cells
from poison_audit.verdict.compare import comparability
from poison_audit.verdict.decide import decide
from poison_audit.verdict.diagnosis import diagnosis, worded
from poison_audit.verdict.readings import READINGS
from poison_audit.verdict.record import SCHEMA_VERSION, AuditRecord
from poison_audit.verdict.rehearsal import NAME, PROBED, decide_rehearsal, rehearsal_sentence

JUDGE = Judge(name=NAME, probes=PROBED, decide=decide_rehearsal, sentence=rehearsal_sentence)


def audit(settings: CheckSettings) -> int:
    """Run an audit; return its exit code."""
    if not settings.running.shard:
        return _audit(settings, quiet=settings.output.quiet)
    with crew() as number:
        return _audit(settings, quiet=settings.output.quiet or number > 0)


def _audit(settings: CheckSettings, *, quiet: bool) -> int:
    here = Path.cwd()
    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    sources, plan = read_inputs(settings)
    recipe, running, config = settings.recipe, settings.running, settings.config
    device = device_named(settings.subject.device)
    reporter = Reporter(quiet=quiet)
    with reporter.stage("Reading the model, the tables and the keys"):
        trial = load(sources, recipe, device)
    if running.rehearse:
        check_size(trial.case)
    if running.shard:
        check_shardable(trial.case.model.module)
    plan = _asked_of(plan, trial)
    todo = jobs(plan, trial)
    yardsticks = {job.candidate for job in todo if job.kind == "reference"}
    check_plan(
        plan,
        blocks=len(trial.case.model.blocks),
        candidates=[job.candidate for job in todo],
        references=[*yardsticks, *(name for name in REFERENCES if plan.found == 1)],
    )
    case, sanity = check_sanity(trial.case, alpha=plan.policy.alpha)
    expecting = settings.expecting
    sanity = replace(
        sanity, expected=expecting.expect_accuracy, tolerated=expecting.expect_tolerance
    )
    reporter.say(_introduction(trial, sanity))
    with reporter.stage("Trying whether it would work better read otherwise"):
        trial = replace(trial, case=case, doubts=(*trial.doubts, *_misread(trial, sanity, plan)))
    sound = sanity.works and not any(doubt.spoils for doubt in trial.doubts)
    judged, tuned_on = trial, None
    if plan.tune:
        load_optuna()
        tuned_on, rest = halves(case, Rng(plan.seed).named("halves"))
        judged = replace(trial, case=rest)
    if settings.output.dry_run:
        with reporter.stage("Doing every part in miniature"):
            told = forecast(judged, plan, allow_pickle=settings.subject.allow_pickle)
        if rank() == 0:
            left_out = ["the rehearsal"] if running.rehearse else []
            show_forecast(told.parts, peak=told.peak_bytes, left_out=left_out)
        return 3  # nothing was judged, and a gate must not take that for a pass
    computing = f"{device.type} {fast_precision(device)}"
    code = user_code() if sources.factory else None
    key = runs.fingerprint(plan, recipe, trial.subject, computing, code)
    stamp = started.strftime("%Y%m%dT%H%M%SZ")
    with _opened(settings.output.out, key, started=stamp) as out:
        clear_reports(out)
        tunings: tuple[Tuning, ...] = ()
        if tuned_on is not None and sound:
            tunings = _tuned(tuned_on, plan, out, key=key, reporter=reporter)
            plan = chosen(plan, tunings)
        cells, why, rehearsal = (
            _measured(settings, judged, plan, out, key=key, reporter=reporter)
            if sound
            else ((), (), None)
        )
        doubts = trial.doubts
        decision = decide(plan, sanity, cells, attacks=trial.subject["attacks"], doubts=doubts)
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
            doubts=doubts,
            limits=(*trial.limits, *caveats(plan, trial, cells), *halved(tunings, judged.case)),
            files=input_files([*trial.files, *([("config", config.path)] if config.path else [])]),
            places=places(sources.forget, config.path, top=git_top(here) or here),
            exhibits=exhibits(trial.case),
            environment=_environment(device, config, started, time.perf_counter() - clock),
        )
        record = replace(record, comparability=comparability(record))
        # What is rendered is what was stored: whoever reads report.json sees the same.
        record = from_json(AuditRecord, to_json(record))
        formats = write_reports(record, out, formats=settings.output.formats)
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
    settings: CheckSettings, trial: Trial, plan: Plan, out: Path, *, key: str, reporter: Reporter
) -> tuple[tuple[Cell, ...], tuple[Finding, ...], Rehearsal | None]:
    """Return the cells, what was found about why, and the rehearsal, as far as they are asked."""
    running, pickles = settings.running, settings.subject.allow_pickle
    with _performing(running) as perform, reporter.cells() as report:
        cells = worded(run(
            trial, plan, out, key=key, keep=running.keep, allow_pickle=pickles, report=report,
            perform=perform,
        ))  # fmt: skip
    why: tuple[Finding, ...] = ()
    if plan.hypotheses:
        with reporter.stage("Asking why: how far, and in which direction, the poison moved it"):
            why = explain(trial, plan, out, key=key, allow_pickle=pickles)
    if not running.rehearse:
        return cells, why, None
    reporter.say("Rehearsal: the methods on a copy with canaries of its own.")
    with reporter.cells() as report:
        told = rehearse(
            trial, plan, out, key=key, judge=JUDGE, sigma=running.rehearse_sigma, report=report
        )
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


def _performing(running: Running) -> AbstractContextManager[Performer | None]:
    """Return what works on the cells: this process (None), or Ray."""
    if running.ray is None:
        return nullcontext()
    from poison_audit.engine.cluster import through_ray

    return through_ray(running.ray, gpus=running.ray_gpus)


def _asked_of(plan: Plan, trial: Trial) -> Plan:
    """Return the plan without the probes that cannot be asked of pictures."""
    texts = trial.case.model.reader is not None
    probes = tuple(s for s in plan.probes if texts or not READINGS[s.name].texts_only)
    return replace(plan, probes=probes)


def _misread(trial: Trial, sanity: Sanity, plan: Plan) -> tuple[Doubt, ...]:
    """Return what speaks against the way the model is read."""
    case = trial.case
    beside = next(path for role, path in trial.files if role == "weights").parent
    return doubts_of_adapter(
        case, sanity, alpha=plan.policy.alpha, rng=Rng(plan.seed).named("adapter"),
        names=case.retain.names or case.test.names, sizes=stated_sizes(beside),
    )  # fmt: skip


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
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else platform.processor()
    return {
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
        "device": name or device.type,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "precision": fast_precision(device),  # of training steps; scores are always float32
        "command": shlex.join(["poison-audit", *sys.argv[1:]]),
        "git": git_state(Path.cwd()),
        "config": str(config.path) if config.path else None,
        "started": started.isoformat(timespec="seconds"),
        "seconds": seconds,
    }
