"""A classifier of pictures to train: its architecture in the size of the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from poison_audit.case.labels import are_other_numbers
from poison_audit.case.tables import read_table
from poison_audit.commands.arguments import TrainSettings
from poison_audit.commands.own_settings import Training
from poison_audit.commands.settings import Architecture
from poison_audit.commands.train_job import (
    Subject,
    Tables,
    classes_of,
    misplaced,
    read_tables,
    wrong_labels,
)
from poison_audit.errors import InputError, Problem, Problems
from poison_audit.models.factory import FACTORY, head_size, import_factory
from poison_audit.models.identify import architecture
from poison_audit.models.image import image_classifier
from poison_audit.models.model import Model
from poison_audit.models.normalization import Normalize, parse_normalize
from poison_audit.models.samples import Samples

OF_TEXTS = ("max_tokens", "prompt", "label_words", "fresh", "canaries")
"""Options that say something of texts only."""


def pictures(settings: TrainSettings, found: Problems) -> Subject:
    """Read tables of pictures and build what to train on them; `found` takes every problem."""
    found += misplaced(settings.given, OF_TEXTS, "is for texts, and DATA holds pictures")
    asked = settings.architecture
    normalize = _normalize(asked.normalize, found)
    tables = read_tables(settings.training, found, read_table)
    # No file of a model of pictures names its labels: audit.toml has to keep their order.
    own = None if tables.train is None else tables.train.names
    if tables.names is None and own is not None and not are_other_numbers(own):
        tables = replace(tables, names=own)
    model = None
    with found.collecting():
        model = _model(asked, tables, normalize, settings.training, found)
    return Subject(tables=tables, model=model, arch=asked.arch, normalize=normalize)


def _normalize(text: str | None, found: Problems) -> Normalize | None:
    if text is None:
        what = "the normalisation is not given"
        fix = "--normalize cifar10|imagenet|none|MEANS,STDS or [model] normalize in audit.toml."
        found.append(Problem(what, fix=fix))
        return None
    with found.collecting():
        return parse_normalize(text)
    return None


def _model(
    asked: Architecture,
    tables: Tables,
    normalize: Normalize | None,
    training: Training,
    found: Problems,
) -> Model | None:
    """Return the model to train; InputError, or None where `found` says why there is none."""
    train, factory, where = tables.train, asked.factory, str(training.data)
    build = _builder(factory, asked.arch, train, where)
    if train is None or normalize is None:
        return None
    if len(normalize[0]) not in (1, train.x.shape[1]):
        what = f"the normalisation has {len(normalize[0])} channels, not {train.x.shape[1]}"
        raise InputError(Problem(what, "--normalize", "Give one value, or one a channel."))
    with torch.random.fork_rng(devices=[]):
        module = build()
    name = f"{FACTORY}{factory}" if factory else str(asked.arch)
    classes = head_size(module, factory) if factory else classes_of(train, where)
    found += wrong_labels(tables, classes, training)
    return image_classifier(
        module, build=build, arch=name, classes=classes, normalize=normalize,
        channels_last=factory is None,
    )  # fmt: skip


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
    return sized(arch, classes=classes_of(train, where), shape=tuple(train.x.shape[1:]))


def sized(arch: str, *, classes: int, shape: tuple[int, ...]) -> Callable[[], nn.Module]:
    """Return what builds an architecture for so many classes and pictures of this shape."""
    channels, height, width = shape
    known = architecture(arch, {})
    build: Any = known.build  # takes its sizes as keyword arguments
    if "classes" in build.keywords:  # a network of our own
        return partial(build, channels=channels, classes=classes)
    if channels != known.channels:
        what = f"{arch} takes pictures of {known.channels} channels, the table's have {channels}"
        raise InputError(Problem(what, "--arch", "The cifar- and wrn- networks take any number"))
    options = {"num_classes": classes}
    if arch.startswith("vit_") and height == width and height % int(arch.split("_")[-1]) == 0:
        options["image_size"] = height
    return partial(build, **options)
