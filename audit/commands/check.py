"""What `check` and `probe` do: settings -> plan -> trial -> cells -> record."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from poison_audit.atomic import digest_of
from poison_audit.case.case import Case
from poison_audit.case.doubts import Doubt
from poison_audit.case.harm import Harm
from poison_audit.case.load import Trial
from poison_audit.case.places import places
from poison_audit.case.provenance import git_top, input_files
from poison_audit.case.signing import hand_over, take_over, why_no_key
from poison_audit.case.tuning import Tuning
from poison_audit.checks.adapter import doubts_of_adapter
from poison_audit.checks.sanity import check_sanity
from poison_audit.checks.size import limits_of_size
from poison_audit.commands.arguments import CheckSettings
from poison_audit.commands.inputs import device_named, load, read_inputs
from poison_audit.commands.own_settings import Running
from poison_audit.commands.progress import Reporter
from poison_audit.commands.rendering import (
    clear_reports,
    refuse_foreign,
    show,
    show_forecast,
    show_json,
    write_reports,
)
from poison_audit.commands.telling import (
    Caller,
    environment,
    introduction,
    origins,
    own_code,
    refuse_swapped,
    remarks,
    told_within,
)
from poison_audit.commands.unlearn import command_of
from poison_audit.engine import runs, unlearning
from poison_audit.engine.caveats import caveats, halved
from poison_audit.engine.exhibits import exhibits
from poison_audit.engine.forecast import forecast
from poison_audit.engine.harm import harm, references_of
from poison_audit.engine.jobs import jobs
from poison_audit.engine.own_method import own_methods
from poison_audit.engine.own_probe import refuse_device
from poison_audit.engine.plan import check_plan
from poison_audit.engine.rehearsal import Judge, check_size, rehearse
from poison_audit.engine.run import Performer, run
from poison_audit.engine.tuning import chosen, halves, load_optuna, tune
from poison_audit.engine.why import explain
from poison_audit.methods import METHODS, REFERENCES, UNLEARNING
from poison_audit.models.factory import user_code
from poison_audit.models.seeds import Rng
from poison_audit.poisons.readings import POISONS
from poison_audit.records import Cell, Finding, Outcome, Plan, Rehearsal, Sanity
from poison_audit.reports.formats import FORMATS
from poison_audit.training.loop import fast_precision
from poison_audit.training.sharding import (
    check_shardable,
    crew,
    processes,
    rank,
    share_cells,
    told_by_the_first,
)
from poison_audit.verdict.compare import comparability
from poison_audit.verdict.decide import decide
from poison_audit.verdict.diagnosis import diagnosis, worded
from poison_audit.verdict.readings import READINGS
from poison_audit.verdict.record import SCHEMA_VERSION, AuditRecord
from poison_audit.verdict.rehearsal import NAME, PROBED, decide_rehearsal, rehearsal_sentence
from poison_audit.verdict.seal import sealed

COMMAND_LINE = Caller()
JUDGE = Judge(name=NAME, probes=PROBED, decide=decide_rehearsal, sentence=rehearsal_sentence)


def audit(settings: CheckSettings, *, given: Mapping[str, Any] | None = None) -> int:
    """Run an audit; return its exit code.

    Args:
        settings: what is asked for.
        given: the command line's values; with them it ends with the command that repairs.
    """
    with own_methods(settings.own.method_from, settings.own.method_seconds) as names:
        every = replace(settings.methods, methods=(*settings.methods.methods, *names))
        return _judged(replace(settings, methods=every), given)


def _judged(settings: CheckSettings, given: Mapping[str, Any] | None) -> int:
    if not settings.running.shard:
        record = audited(settings, quiet=settings.output.quiet)
        if record is not None:
            _show(record, settings)
        if record is not None and given is not None and not settings.output.json:
            _recommend(record, settings, given)
        return 3 if record is None else record.verdict.exit_code
    with crew(device_named(settings.subject.device)) as number:
        # On another machine this user has another key, and would skip other cells.
        take_over(told_by_the_first(hand_over()))
        record = audited(settings, quiet=settings.output.quiet or number > 0)
        if record is not None and number == 0:
            _show(record, settings)
        return 3 if record is None else record.verdict.exit_code


def _show(record: AuditRecord, settings: CheckSettings) -> None:
    (show_json if settings.output.json else show)(record)


def _recommend(record: AuditRecord, settings: CheckSettings, given: Mapping[str, Any]) -> None:
    """Say which command would repair a deployed model that surely carries poison."""
    deployed = {c.candidate: c.outcome for c in record.verdict.candidates}.get("deployed")
    # What repairs are chosen by: a trigger, or samples that a key names.
    chooses = ["trigger", *(each.files[0].name for each in POISONS.values() if each.keyed)]
    known = any(record.subject.get(name) for name in chooses)
    if known and deployed is Outcome.RESIDUAL and settings.recipe.epochs is not None:
        fixed = command_of(given, "repair", "-o", "fixed.safetensors")
        Reporter(quiet=settings.output.quiet).say(f"To look for a repair: {fixed}")


Part = Callable[[Case], tuple[Case, str]]
"""The case of a trial -> the part of it that the verdict reads, and what that is, as a sentence."""


def audited(
    settings: CheckSettings, *, quiet: bool, part: Part | None = None, caller: Caller = COMMAND_LINE
) -> AuditRecord | None:
    """Run an audit and return its record; None: a dry run, in which nothing was judged.

    Args:
        settings: what is asked for.
        quiet: whether no progress is told.
        part: what of the case is judged; None: all.
        caller: who asks.
    """
    here = Path.cwd()
    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    sources, plan = read_inputs(settings)
    recipe, running, config = settings.recipe, settings.running, settings.config
    device = device_named(settings.subject.device)
    refuse_device(plan, device)
    reporter = Reporter(quiet=quiet, call=caller.call)
    with reporter.stage("Loading the model, the tables and the keys"):
        trial = load(sources, recipe, device)
    for remark in remarks(sources):
        reporter.say(remark)
    if running.rehearse:
        check_size(trial.case)
    if running.harm:
        references_of(trial)
    if running.shard:
        check_shardable(trial.case.model.module)
    trial, plan = _asked_of(plan, trial)
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
    sized = limits_of_size(case, expecting.expect_size)
    trial = replace(trial, case=case, limits=(*trial.limits, *sized))
    reporter.say(introduction(trial, sanity))
    if not settings.output.dry_run:
        with reporter.stage("Checking label order, normalisation and picture size"):
            trial = replace(trial, doubts=(*trial.doubts, *_misread(trial, sanity, plan)))
    sound = sanity.works and not any(doubt.spoils for doubt in trial.doubts)
    judged, tuned_on = trial, None
    if plan.tune:
        load_optuna()
        tuned_on, rest = halves(case, Rng(plan.seed).named("halves"))
        judged = replace(trial, case=rest)
    if part is not None:
        rest, told_of_part = part(case)
        judged = replace(trial, case=rest, limits=(*trial.limits, told_of_part))
        trial = replace(trial, limits=judged.limits)
    if settings.output.dry_run:
        with reporter.stage("Doing every part in miniature"):
            told = forecast(judged, plan, allow_pickle=settings.subject.allow_pickle)
        if rank() == 0:
            left_out = ["whether inputs are read as in training"]
            left_out += ["the rehearsal"] * running.rehearse
            show_forecast(told.parts, peak=told.peak_bytes, left_out=left_out)
        return None  # nothing was judged, and a gate must not take that for a pass
    computing = f"{device.type} {fast_precision(device)}"
    code = user_code() if sources.factory else None
    key, opening = (
        runs.fingerprint(each, recipe, trial.subject, computing, own)
        for each, own in ((plan, code), (replace(plan, own=()), None))
    )
    if part is not None:  # what is measured on a part is stored under a name of its own
        key, opening = (digest_of([own, judged.limits[-1]]) for own in (key, opening))
    stamp = started.strftime("%Y%m%dT%H%M%SZ")
    if (lacking := why_no_key()) is not None:
        reporter.warn(f"Nothing that is stored can be taken, and none is signed: {lacking}.")
    with _opened(settings.output.out, opening, started=stamp, code=code, tell=reporter.warn) as out:
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
        harms: tuple[Harm, ...] = ()
        if running.harm and sound:
            with reporter.stage("Trying the methods on a model that never saw the poison"):
                harms = harm(judged, plan, out, key=key, allow_pickle=settings.subject.allow_pickle)
        doubts = trial.doubts
        decision = decide(plan, sanity, cells, attacks=trial.subject["attacks"], doubts=doubts)
        found_size = unlearning.found_size(plan, len(trial.case.forget))
        record = AuditRecord(
            schema_version=SCHEMA_VERSION,
            tool_version=version("poison-audit"),
            plan=plan,
            recipe=recipe,
            subject={**trial.subject, "found_size": found_size, **own_code(code)},
            sanity=sanity,
            cells=cells,
            findings=(*decision.findings, *why),
            verdict=decision.verdict,
            diagnosis=diagnosis(*why) if why else None,
            rehearsal=rehearsal,
            tuning=tunings,
            harm=harms,
            doubts=doubts,
            notices=trial.notices,
            limits=(*trial.limits, *caveats(plan, trial, cells), *halved(tunings, judged.case)),
            files=input_files([*trial.files, *([("config", config.path)] if config.path else [])]),
            places=places(sources.forget, config.path, top=git_top(here) or here),
            exhibits=exhibits(trial.case, asked=sound),
            environment={
                **environment(device, config, started, time.perf_counter() - clock, caller.command),
                "settings": origins(settings, trial),
            },
        )
        record = replace(record, comparability=comparability(record))
        refuse_swapped(record)
        # What is rendered is what was stored: whoever reads report.json sees the same.
        record = sealed(told_within(record, caller.holds))
        formats = write_reports(record, out, formats=settings.output.formats)
    reporter.say(f"Report: {', '.join(str(out / FORMATS[name].file) for name in formats)}")
    return record


@contextmanager
def _opened(
    out: Path | None,
    key: str,
    *,
    started: str,
    code: str | None,
    tell: Callable[[str], object],
) -> Iterator[Path]:
    """Give the run directory; of processes that share the work, the others a copy of its cells."""
    if rank() > 0:
        with TemporaryDirectory() as folder:
            share_cells(None, Path(folder))
            yield Path(folder)
        return
    with runs.open_run(out, key, started=started, code=code, tell=tell) as opened:
        refuse_foreign(opened)
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
        with reporter.stage("Explaining the result, which is decided already"):
            why = explain(trial, plan, out, key=key, allow_pickle=pickles, tell=reporter.say)
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


def _asked_of(plan: Plan, trial: Trial) -> tuple[Trial, Plan]:
    """Return the plan without what cannot be done with this case, which the trial then tells."""
    texts = trial.case.model.reader is not None
    probes = tuple(s for s in plan.probes if texts or not READINGS[s.name].texts_only)
    tried = [(step, METHODS[step.name].unfit(trial.case)) for step in plan.methods]
    methods = tuple(step for step, why in tried if why is None)
    told = [f"{step.name} was not run: it {why}." for step, why in tried if why is not None]
    trial = replace(trial, limits=(*trial.limits, *told))
    return trial, replace(plan, probes=probes, methods=methods)


def _misread(trial: Trial, sanity: Sanity, plan: Plan) -> tuple[Doubt, ...]:
    """Return what speaks against the way the model is read."""
    case, rng = trial.case, Rng(plan.seed).named("adapter")
    names = case.retain.names or case.test.names
    return doubts_of_adapter(case, sanity, alpha=plan.policy.alpha, rng=rng, names=names)
