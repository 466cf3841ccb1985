"""From flags and files to a training job, with all problems found at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from audit.commands import check_output, device_named, listed
from audit.config import Config, make_recipe, read_config
from audit.data.forget import ForgetSet, overlap, read_forget, split
from audit.data.samples import Samples
from audit.data.tables import check_labels, read_table
from audit.errors import InputError, PlanError, Problem
from audit.models.factory import head_size, import_factory
from audit.models.identify import architecture
from audit.models.image import cifar_resnet_spec, image_classifier
from audit.models.model import Model
from audit.models.normalization import Normalize, parse_normalize
from audit.records import Recipe
from audit.seeds import Rng

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A training run that has everything it needs."""

    model: Model
    """The architecture, on `device`; its weights are not looked at."""
    arch: str | None
    """As `--arch` takes it; None for a factory's."""
    normalize: Normalize
    data: Samples
    """What is trained on, on the CPU."""
    test: Samples | None
    forget: ForgetSet | None
    """What was left out of `data`."""
    recipe: Recipe
    steps: int
    rng: Rng
    device: torch.device
    train_path: Path
    test_path: Path | None
    names: tuple[str, ...] | None
    """The labels' names, where they were given."""
    output: Path


def stated(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe's values; what was assumed before is done now."""
    values = asdict(recipe)
    del values["assumed"]
    return values


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tables:
    """What could be read; None where a table is not given or has a problem."""

    train: Samples | None
    """The whole of it: how many classes there are does not depend on what is left out."""
    test: Samples | None
    forget: ForgetSet | None
    train_path: Path
    test_path: Path | None
    names: tuple[str, ...] | None


def read_job(given: Mapping[str, Any]) -> Job:
    """Read and check everything that a training run needs.

    Raises:
        InputError: every problem of every flag and file, at once.
    """
    found: list[Problem] = []
    _check_new(given["output"], found, force=given["force"])
    config = _read_config(given, found)
    recipe = _recipe(config, given, found)
    normalize = _normalize(config, given, found)
    device = _attempt(found, device_named, given["device"])
    tables = _read_tables(config, given, found)
    train, forget = tables.train, tables.forget
    data = split(train, forget).retain if train is not None and forget is not None else train
    if data is not None and len(data) == 0:
        found.append(Problem("every training sample is to be left out", str(given["without"])))
    arch = given["arch"] or (None if given["factory"] else config.get("model", "arch"))
    model = _model(given["factory"], arch, tables, normalize, found)
    if not found and model is not None and data is not None:
        found += _unfit(model, data, recipe, str(tables.train_path))
    if found or model is None or data is None or normalize is None or device is None:
        raise InputError(found)
    seed = given["seed"] if given["seed"] is not None else config.get("plan", "seed", 0)
    size = min(recipe.batch_size, len(data))
    return Job(
        model=replace(model, module=model.module.to(device)),
        arch=arch,
        normalize=normalize,
        data=data,
        test=tables.test,
        forget=forget,
        recipe=recipe,
        steps=max(1, round((recipe.epochs or 0) * len(data) / size)),
        rng=Rng(seed).named("train"),
        device=device,
        train_path=tables.train_path,
        test_path=tables.test_path,
        names=tables.names,
        output=given["output"],
    )


def _read_tables(config: Config, given: Mapping[str, Any], found: list[Problem]) -> _Tables:
    path = given["data"]
    test_path = given["test"] or config.get("data", "test")
    names = listed(given["names"]) or config.get("data", "names")
    train = _attempt(found, read_table, path, names=names)
    like: dict[str, Any] = {"names": names}
    forget = None
    if train is not None:
        # Word labels are numbered by the training table, so that a class missing moves none.
        like = {"names": names or train.names, "size": tuple(train.x.shape[1:])}
        forget = _attempt(found, read_forget, given["without"], train, where_train=str(path))
    test = _attempt(found, read_table, test_path, **like)
    if train is not None and test is not None:
        found += overlap(train, test, a_name=str(path), b_name=str(test_path))
    return _Tables(
        train=train,
        test=test,
        forget=forget,
        train_path=path,
        test_path=test_path,
        names=tuple(names) if names else None,
    )


def _normalize(config: Config, given: Mapping[str, Any], found: list[Problem]) -> Normalize | None:
    text = given["normalize"] or config.get("model", "normalize")
    if text is None:
        what = "the normalisation is not given"
        fix = "--normalize cifar10|imagenet|none|MEANS,STDS or [model] normalize in audit.toml."
        found.append(Problem(what, fix=fix))
    return _attempt(found, parse_normalize, text)


def _attempt(
    found: list[Problem], read: Callable[..., T], source: Any, *args: Any, **more: Any
) -> T | None:
    """Read a source if it is given; None, and its problems in `found`, if it has any."""
    if source is None:
        return None
    try:
        return read(source, *args, **more)
    except InputError as error:
        found += error.problems
        return None


def _check_new(output: Path, found: list[Problem], *, force: bool) -> None:
    try:
        check_output(output)
    except InputError as error:
        found += error.problems
        return
    if output.exists() and not force:
        found.append(Problem("is there already", str(output), "Overwrite it by --force"))


def _read_config(given: Mapping[str, Any], found: list[Problem]) -> Config:
    """Read the audit.toml that is given, else the one beside the table, else beside the output."""
    beside = [given[name].parent / "audit.toml" for name in ("data", "output")]
    there = [path for path in beside if path.is_file()]
    config: Config | None = None
    # The one beside the output is read in any case: it will be written to.
    for path in dict.fromkeys([given["config"] or next(iter(there), None), *there[-1:]]):
        read = _attempt(found, read_config, path)
        config = config or read
    return config or Config()


def _recipe(config: Config, given: Mapping[str, Any], found: list[Problem]) -> Recipe:
    try:
        recipe = make_recipe(config, dict(given["recipe"]))
    except PlanError as error:
        found += error.problems
        return Recipe()
    if recipe.epochs is None:
        fix = "Give them by --recipe epochs=N, or epochs = N under [training] in audit.toml"
        found.append(Problem("the epochs are not given", fix=fix))
    return recipe


def _model(
    factory: str | None,
    arch: str | None,
    tables: _Tables,
    normalize: Normalize | None,
    found: list[Problem],
) -> Model | None:
    """Return the model to train; None, with why in `found` now, where that cannot be said."""
    train, where = tables.train, str(tables.train_path)
    try:
        build = _builder(factory, arch, train, where)
    except InputError as error:
        found += error.problems
        return None
    if train is None or normalize is None:
        return None
    if len(normalize[0]) not in (1, train.x.shape[1]):
        what = f"the normalisation has {len(normalize[0])} channels, not {train.x.shape[1]}"
        found.append(Problem(what, "--normalize", "Give one value, or one a channel."))
        return None
    with torch.random.fork_rng(devices=[]):
        module = build()
    name = f"factory:{factory}" if factory else str(arch)
    classes = head_size(module, factory) if factory else _classes(train, where)
    found += check_labels(train, classes, where)
    if tables.test is not None:
        found += check_labels(tables.test, classes, str(tables.test_path))
    return image_classifier(module, build=build, arch=name, classes=classes, normalize=normalize)


def _builder(
    factory: str | None, arch: str | None, train: Samples | None, where: str
) -> Callable[[], nn.Module]:
    if factory and arch:
        what = f"both an architecture ({arch}) and a factory ({factory}) are given"
        raise InputError(Problem(what, "--factory", "Give one of them."))
    if factory:
        return import_factory(factory)
    if not arch:
        fix = "--arch NAME or [model] arch in audit.toml, or --factory package.module:function."
        raise InputError(Problem("the architecture is not given", fix=fix))
    known = architecture(arch, {})
    if train is None:
        return known.build
    return _sized(arch, classes=_classes(train, where), shape=tuple(train.x.shape[1:]))


def _classes(train: Samples, where: str) -> int:
    """Return the number of classes that a table shows."""
    if train.names is not None:
        return len(train.names)
    largest = int(train.y.max())
    # A head of the size of somebody's account number is nobody's intention.
    if largest >= len(train) or largest < 1:
        what = f"the largest label is {largest}, of {len(train)} samples"
        fix = "Number at least two labels from 0, or name them all by --names A,B,.."
        raise InputError(Problem(what, where, fix))
    return largest + 1


def _sized(arch: str, *, classes: int, shape: tuple[int, ...]) -> Callable[[], nn.Module]:
    """Return what builds an architecture for so many classes and pictures of this shape."""
    channels, height, width = shape
    known = architecture(arch, {})
    build: Any = known.build  # takes its sizes as keyword arguments
    if cifar_resnet_spec(arch):
        return partial(build, channels=channels, classes=classes)
    if channels != known.channels:
        what = f"{arch} takes pictures of {known.channels} channels, the table's have {channels}"
        raise InputError(Problem(what, "--arch", "The cifar-resnet kin take any number"))
    options = {"num_classes": classes}
    if arch.startswith("vit_") and height == width and height % int(arch.split("_")[-1]) == 0:
        options["image_size"] = height
    return partial(build, **options)


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
