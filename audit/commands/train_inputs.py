"""From flags and files to a training job, with all problems found at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from poison_audit.case.forget import split
from poison_audit.case.texts import holds_texts
from poison_audit.commands.arguments import TrainSettings
from poison_audit.commands.inputs import check_output, device_named
from poison_audit.commands.train_job import Job, Subject, Tables
from poison_audit.commands.train_pictures import pictures
from poison_audit.commands.train_texts import texts
from poison_audit.errors import InputError, Problem, Problems
from poison_audit.models.beside import files_beside, weights_file, wrong_company
from poison_audit.models.fit import refusal, said
from poison_audit.models.model import Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.records import Recipe
from poison_audit.training.batches import smallest


def read_job(settings: TrainSettings) -> Job:
    """Read and check everything that a training run needs; InputError: every problem, at once."""
    found, training, recipe = Problems(), settings.training, settings.recipe
    of_texts = "start" in settings.given or holds_texts(training.data)
    file = weights_file(training.output, texts=of_texts)
    with found.collecting():
        _check_new(training.output, folder=file != training.output, force=training.force)
    found += [*settings.problems, *_wrong_recipe(settings, of_texts=of_texts)]
    device = None
    with found.collecting():
        device = device_named(training.device)
    subject = (texts if of_texts else pictures)(settings, found)
    model, data = subject.model, _trained_on(subject.tables)
    if data is not None and len(data) == 0:
        found.append(Problem("every training sample is to be left out", str(training.without)))
    found += _wrong_folder(file, subject)
    if data is not None and not of_texts and min(data.x.shape[2:]) < smallest(recipe.augment):
        what = f"needs pictures of at least {smallest(recipe.augment)} pixels a side"
        found.append(Problem(what, f"--recipe augment={recipe.augment}", "Choose another."))
    if not found and model is not None and data is not None:
        found += _unfit(model, data, recipe, str(training.data))
    if found or model is None or data is None or device is None:
        raise InputError(found)
    size = min(recipe.batch_size, len(data))
    return Job(
        asked=training,
        subject=subject,
        model=replace(model, module=model.module.to(device)),
        data=data,
        recipe=recipe,
        steps=max(1, round((recipe.epochs or 0) * len(data) / size)),
        rng=Rng(training.seed).named("train"),
        device=device,
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


def _check_new(output: Path, *, folder: bool, force: bool) -> None:
    check_output(output, folder=folder)
    if folder and output.name in ("", ".."):
        raise InputError(Problem("is no folder of the model's own", str(output), "Name another."))
    if output.exists() and not force and not (folder and not any(output.iterdir())):
        raise InputError(Problem("is there already", str(output), "Overwrite it by --force"))


def _wrong_folder(file: Path, subject: Subject) -> list[Problem]:
    """Return what is in the way of the files that a language model brings with it."""
    if subject.texts is None or subject.model is None:
        return []
    if file.parent.resolve() == subject.texts.base.resolve():
        what = "is the folder that training begins with, which stays as it is"
        return [Problem(what, str(file.parent), "Choose another output.")]
    config = {"config.json": subject.texts.config.encode()}
    return wrong_company(file, {**files_beside(subject.model), **config})


def _wrong_recipe(settings: TrainSettings, *, of_texts: bool) -> list[Problem]:
    recipe, problems = settings.recipe, []
    if recipe.epochs is None and not settings.problems:
        fix = "Give them by --recipe epochs=N, or epochs = N under [training] in audit.toml"
        problems.append(Problem("the epochs are not given", fix=fix))
    if of_texts and recipe.augment != "none":
        where = f"--recipe augment={recipe.augment}"
        problems.append(Problem("is for pictures, and DATA holds texts", where, "Leave it out."))
    return problems


def _unfit(model: Model, data: Samples, recipe: Recipe, where: str) -> list[Problem]:
    """Return why the model cannot be trained on these samples: one step of a copy is tried."""
    trial, batch = model.clone(), data.batch(slice(0, min(2, recipe.batch_size)))
    try:
        with torch.random.fork_rng(devices=[]):
            loss = trial.loss(trial.module.train(), batch).mean()
            torch.autograd.backward(loss)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        what = f"{model.arch} does not train on batches of shape {tuple(batch.x.shape)}"
        fix = "Choose another architecture or batch_size"
        return [Problem(f"{what} ({said(error)})", where, fix)]
    found = refusal(trial, data.batch(slice(0, 1)))
    return [] if found is None else [Problem(found[0], where, found[1])]
