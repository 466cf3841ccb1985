"""From flags and files to a training job, with all problems found at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from poison_audit.case.forget import split
from poison_audit.case.samples import Samples
from poison_audit.case.texts import holds_texts
from poison_audit.commands.config import Config, make_recipe, read_config
from poison_audit.commands.flags import check_output, device_named
from poison_audit.commands.train_job import Job
from poison_audit.commands.train_pictures import pictures
from poison_audit.commands.train_tables import Subject, Tables, attempt
from poison_audit.commands.train_texts import texts
from poison_audit.errors import InputError, PlanError, Problem
from poison_audit.models.beside import files_beside, weights_file, wrong_company
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.records import Recipe


def read_job(given: Mapping[str, Any]) -> Job:
    """Read and check everything that a training run needs.

    Raises:
        InputError: every problem of every flag and file, at once.
    """
    found: list[Problem] = []
    of_texts = given["start"] is not None or holds_texts(given["data"])
    output = given["output"]
    file = weights_file(output, texts=of_texts)
    _check_new(output, found, folder=file != output, force=given["force"])
    config = _read_config(given, found)
    recipe = _recipe(config, given, found, of_texts=of_texts)
    device = attempt(found, device_named, given["device"])
    subject = (texts if of_texts else pictures)(config, given, found)
    tables, model = subject.tables, subject.model
    data = _trained_on(tables)
    if data is not None and len(data) == 0:
        found.append(Problem("every training sample is to be left out", str(given["without"])))
    found += _wrong_folder(file, subject)
    if not found and model is not None and data is not None:
        found += _unfit(model, data, recipe, str(tables.train_path))
    if found or model is None or data is None or device is None:
        raise InputError(found)
    seed = given["seed"] if given["seed"] is not None else config.get("plan", "seed", 0)
    size = min(recipe.batch_size, len(data))
    return Job(
        model=replace(model, module=model.module.to(device)),
        arch=subject.arch,
        normalize=subject.normalize,
        texts=subject.texts,
        data=data,
        test=tables.test,
        forget=tables.forget,
        recipe=recipe,
        steps=max(1, round((recipe.epochs or 0) * len(data) / size)),
        rng=Rng(seed).named("train"),
        device=device,
        train_path=tables.train_path,
        test_path=tables.test_path,
        names=tables.names,
        output=output,
        file=file,
    )


def _trained_on(tables: Tables) -> Samples | None:
    """Return what is left of the training table, without noise that none of it carries."""
    train, forget = tables.train, tables.forget
    if train is None or forget is None:
        return train
    data = split(train, forget).retain
    if data.noisy is not None and not bool((data.noisy >= 0).any()):
        return replace(data, noise=None, noisy=None)
    return data


def _check_new(output: Path, found: list[Problem], *, folder: bool, force: bool) -> None:
    try:
        check_output(output, folder=folder)
    except InputError as error:
        found += error.problems
        return
    if folder and output.name in ("", ".."):
        found.append(Problem("is no folder of the model's own", str(output), "Name another."))
    elif output.exists() and not force and not (folder and not any(output.iterdir())):
        found.append(Problem("is there already", str(output), "Overwrite it by --force"))


def _wrong_folder(file: Path, subject: Subject) -> list[Problem]:
    """Return what is in the way of the files that a language model brings with it."""
    if subject.texts is None or subject.model is None:
        return []
    if file.parent.resolve() == subject.texts.base.resolve():
        what = "is the folder that training begins with, which stays as it is"
        return [Problem(what, str(file.parent), "Choose another output.")]
    config = {"config.json": subject.texts.config.encode()}
    return wrong_company(file, {**files_beside(subject.model), **config})


def _read_config(given: Mapping[str, Any], found: list[Problem]) -> Config:
    """Read the audit.toml that is given, else the one beside the table, else beside the output."""
    beside = [given[name].parent / "audit.toml" for name in ("data", "output")]
    there = [path for path in beside if path.is_file()]
    config: Config | None = None
    # The one beside the output is read in any case: it will be written to.
    for path in dict.fromkeys([given["config"] or next(iter(there), None), *there[-1:]]):
        read = attempt(found, read_config, path)
        config = config or read
    return config or Config()


def _recipe(
    config: Config, given: Mapping[str, Any], found: list[Problem], *, of_texts: bool
) -> Recipe:
    try:
        recipe = make_recipe(config, dict(given["recipe"]))
    except PlanError as error:
        found += error.problems
        return Recipe()
    if recipe.epochs is None:
        fix = "Give them by --recipe epochs=N, or epochs = N under [training] in audit.toml"
        found.append(Problem("the epochs are not given", fix=fix))
    if of_texts and recipe.augment != "none":
        where = f"--recipe augment={recipe.augment}"
        found.append(Problem("is for pictures, and DATA holds texts", where, "Leave it out."))
    return recipe


def _unfit(model: Model, data: Samples, recipe: Recipe, where: str) -> list[Problem]:
    """Return why the model cannot be trained on these samples: one step of a copy is tried."""
    trial, batch = model.clone(), data.batch(slice(0, min(2, recipe.batch_size)))
    try:
        with torch.random.fork_rng(devices=[]):
            loss = trial.loss(trial.module.train(), batch).mean()
            torch.autograd.backward(loss)
            out = trial.logits(trial.module.eval(), data.batch(slice(0, 1)))
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        shape = tuple(batch.x.shape)
        return [Problem(f"{model.arch} does not train on batches of shape {shape} ({reason})",
                        where, "Choose another architecture or batch_size")]  # fmt: skip
    if out.shape != (1, model.classes):
        return [Problem(f"{model.arch} answers with {tuple(out.shape)[1:]} logits", where,
                        f"Expected {model.classes}, one a class")]  # fmt: skip
    return []
