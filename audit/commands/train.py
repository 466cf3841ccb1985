"""`train`: the reference trainer, by the same loop as the methods."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from poison_audit.commands.arguments import TrainSettings
from poison_audit.commands.config import read_config, write_config
from poison_audit.commands.progress import Reporter
from poison_audit.commands.settings import EVIDENCE
from poison_audit.commands.train_inputs import read_job
from poison_audit.commands.train_job import Job, stated
from poison_audit.commands.train_partial import fingerprint, read_partial, saver
from poison_audit.errors import AuditError, DivergedError
from poison_audit.models.memory import has_room
from poison_audit.models.model import Model
from poison_audit.models.normalization import spell_normalize
from poison_audit.models.reader import Reading
from poison_audit.models.saving import save_model
from poison_audit.poisons.gaussian.embedding import CANARIES_KEY
from poison_audit.statistics.estimates import clopper_pearson
from poison_audit.training.ledger import Ledger, Snapshot
from poison_audit.training.loop import as_trained, descend_on, fast_precision
from poison_audit.training.scoring import correct

LEVEL = 0.95
"""Of the interval of the accuracy."""


def train(settings: TrainSettings) -> int:
    """Train a model and write it; return the exit code.

    Raises:
        InputError: everything that is wrong with the flags and the files.
        DivergedError: the loss stopped being finite; nothing is written.
    """
    clock = time.perf_counter()
    reporter = Reporter(quiet=settings.training.quiet)
    with reporter.stage("Reading the tables"):
        job = read_job(settings)
    texts, test, output = job.subject.texts, job.subject.tables.test, job.asked.output
    for sentence in texts.told if texts else ():
        reporter.say(sentence)
    partial = output.with_name(f"{output.name}.partial")
    try:
        model, loss = _trained(job, partial, reporter)
    except DivergedError as error:
        partial.unlink(missing_ok=True)
        fix = f"Try a lower lr (it was {job.recipe.lr:g})"
        raise DivergedError(f"training diverged: {error}. Nothing was written. {fix}") from error
    except torch.OutOfMemoryError as error:
        fix = f"Try a lower batch_size (it was {job.recipe.batch_size})"
        raise AuditError(f"out of memory on {job.device}. {fix}") from error
    right = None
    if test is not None:
        there = test.to(job.device, streamed=not has_room(test.x, job.device))
        right = int(correct(model, there).sum())
    job.file.parent.mkdir(exist_ok=True)
    save_model(model, job.file, extra=_header(job, right), config=texts.config if texts else None)
    _tell_config(job, reporter)
    partial.unlink(missing_ok=True)
    print(_summary(job, loss, right, time.perf_counter() - clock))
    then = _next(job)
    if then and (reference := _reference(job, settings.architecture.factory)):
        print(f"A reference, which never saw the poison, shows what clean looks like: {reference}")
    if then:
        print(f"Next: {then}")
    return 0


def _trained(job: Job, partial: Path, reporter: Reporter) -> tuple[Model, float]:
    """Return the trained model, and the mean loss of the last epoch's steps."""
    recipe, device = job.recipe, job.device
    data = job.data.to(device, streamed=not has_room(job.data.x, device))
    rng, ledger = job.rng, Ledger()
    model = job.model.fresh(rng.named("init"))
    key = fingerprint(job, weights=model.digest())
    start, told = read_partial(partial, key)
    if told:
        reporter.say(told)
    done = start.step if start else 0
    save = saver(partial, key)
    epoch = max(1, round(len(data) / min(recipe.batch_size, len(data))))

    def where(step: int) -> str:
        epochs = recipe.epochs or 0
        return f"epoch {step / job.steps * epochs:.1f} of {epochs:g}, loss {ledger.losses[-1]:.4f}"

    def watch(step: int, take: Callable[[], Snapshot]) -> None:
        show(step)
        save(step, take)

    with reporter.steps(job.steps, done=done, told=where) as show:
        descend_on(
            model, data, recipe, rng, ledger=ledger, steps=job.steps, start=start, watch=watch,
            **as_trained(recipe),
        )  # fmt: skip
    return model, float(torch.stack(ledger.losses[-epoch:]).mean())


def _header(job: Job, right: int | None) -> dict[str, str]:
    told = {
        "recipe": json.dumps(stated(job.recipe)),
        "seed": str(job.rng.root),
        "samples": str(len(job.data)),
        "data": job.data.digest(),
        "precision": fast_precision(job.device),
        "version": version("poison-audit"),
    }
    texts, tables = job.subject.texts, job.subject.tables
    if tables.forget is not None:
        told["without"] = tables.forget.digest
    if tables.test is not None and right is not None:
        told |= {"test": tables.test.digest(), "test_accuracy": repr(right / len(tables.test))}
    header = {f"poison_audit.{key}": value for key, value in told.items()}
    if job.noisy and texts and texts.key:
        header[CANARIES_KEY] = texts.key.commitment
    return header


def _tell_config(job: Job, reporter: Reporter) -> None:
    """Write what was done into the audit.toml beside the output."""
    texts, output = job.subject.texts, job.asked.output
    path = output.parent / "audit.toml"
    before = read_config(path) if path.is_file() else None
    tables: dict[str, dict[str, Any]]
    if job.subject.tables.forget is not None:
        there = before.get("reference", "paths", ()) if before else ()
        paths = dict.fromkeys(_relative(p, path) for p in (*there, output))
        tables = {"reference": {"paths": list(paths)}}
    else:
        tables = _done(job, path)
        replaced = [key for key, value in tables["training"].items()
                    if before and before.get("training", key, value) != value]  # fmt: skip
        if replaced:
            reporter.say(f"{path} [training] said otherwise before: {', '.join(replaced)}.")
        if texts and not texts.reading.start and before and before.get("model", "start"):
            reporter.say(f"{path} [model] start: this model began with new weights. Take it out.")
    write_config(path, tables)


def _done(job: Job, path: Path) -> dict[str, dict[str, Any]]:
    """Return what audit.toml is to say of a model, by table."""
    subject, data = job.subject, {"train": job.asked.data, "test": job.asked.test}
    tables: dict[str, dict[str, Any]] = {
        "model": {},
        "data": {key: _relative(value, path) for key, value in data.items() if value},
        "training": stated(job.recipe),
    }
    if subject.normalize is not None:
        tables["model"]["normalize"] = spell_normalize(subject.normalize)
    if subject.arch is not None:
        tables["model"]["arch"] = subject.arch
    if subject.tables.names is not None:
        tables["data"]["names"] = list(subject.tables.names)
    if subject.texts is not None:
        tables["model"] |= _read_again(subject.texts.reading, path)
        if job.noisy and subject.texts.key_path:
            canaries = _relative(subject.texts.key_path, path)
            tables[EVIDENCE["canaries"].table] = {"canaries": canaries}
    return tables


def _read_again(reading: Reading, path: Path) -> dict[str, Any]:
    said = {
        "max_tokens": reading.max_tokens,
        "prompt": reading.prompt,
        "label_words": reading.words and list(reading.words),
        "start": reading.start and _relative(reading.start, path),
    }
    return {key: value for key, value in said.items() if value is not None}


def _relative(path: Path, config: Path) -> str:
    return Path(os.path.relpath(path, config.parent)).as_posix()


def _next(job: Job) -> str:
    """Return the command that audits what was trained, or what it is a reference of.

    Empty where it is not known which model or which forget set is meant.
    """
    output, forget = job.asked.output, job.asked.without
    model = output
    if forget is None:
        forget = job.asked.data.parent / "forget.csv"
        if not forget.is_file():
            return ""
    else:
        config = read_config(output.parent / "audit.toml")
        known = {Path(path).resolve() for path in config.get("reference", "paths", ())}
        others = [
            path for path in sorted(output.parent.glob("*.safetensors"))
            if path.resolve() not in known
        ]  # fmt: skip
        if len(others) != 1:
            return ""
        (model,) = others
    return shlex.join(["poison-audit", "check", str(model), "--forget", str(forget)])


def _reference(job: Job, factory: str | None) -> str:
    """Return the command that trains a first reference of what was trained; empty if there is one.

    All else about it stands in the audit.toml beside it.
    """
    output, data = job.asked.output, job.asked.data
    if job.asked.without is not None or output.parent.resolve() != data.parent.resolve():
        return ""
    if read_config(output.parent / "audit.toml").get("reference", "paths", ()):
        return ""
    given = ["-o", str(output.with_name(f"reference{output.suffix}"))]
    given += ["--seed", str(job.rng.root + 1), "--without", str(data.parent / "forget.csv")]
    given += [] if factory is None else ["--factory", factory]
    return shlex.join(["poison-audit", "train", str(data), *given])


def _summary(job: Job, loss: float, right: int | None, seconds: float) -> str:
    test = job.subject.tables.test
    told = f"{job.recipe.epochs:g} epochs, {len(job.data):,} samples, train loss {loss:.4f}"
    if test is not None and right is not None:
        low, high = clopper_pearson(right, len(test), level=LEVEL)
        share = f"{right / len(test):.1%} ({low:.1%} to {high:.1%}, {LEVEL:.0%} exact)"
        told += f", test accuracy {share}"
    return f"{job.asked.output}: {told}, {seconds:.1f} s"
