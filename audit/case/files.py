"""The files of a trial, read each for itself and then against one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from poison_audit.case.forget import ForgetSet, overlap, read_forget, split
from poison_audit.case.samples import Samples
from poison_audit.case.sources import Sources
from poison_audit.case.tables import check_labels, read_table
from poison_audit.case.texts import holds_pictures, holds_texts, read_texts
from poison_audit.errors import InputError, Problem
from poison_audit.models.checkpoint import Loaded, load_model
from poison_audit.models.model import Model
from poison_audit.models.normalization import parse_normalize
from poison_audit.models.text import embedding_width
from poison_audit.poisons.backdoor.evidence import Trigger, read_trigger
from poison_audit.poisons.backdoor.phrase import Phrase, read_phrase
from poison_audit.poisons.gaussian.embedding import embedding_check
from poison_audit.poisons.gaussian.evidence import Canaries, read_canaries
from poison_audit.poisons.gaussian.planting import Planting, plant_check
from poison_audit.poisons.targeted.evidence import Targets, read_targets
from poison_audit.poisons.token_canary.evidence import (
    PlantedStrings,
    Strings,
    find_strings,
    read_strings,
)
from poison_audit.records import Recipe

T = TypeVar("T")

CANARIES_KEY = "poison_audit.canaries"
"""The header's key for the commitment of the canaries that a model was trained with."""
DATA_KEY = "poison_audit.data"
"""The header's key for the digest of the samples that a model was trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What could be read; None where a file is not given or has a problem."""

    loaded: Loaded | None
    train: Samples | None
    test: Samples | None
    bases: Samples | None
    forget: ForgetSet | None
    key: Canaries | None
    targets: Targets | None
    trigger: Trigger | Phrase | None
    strings: Strings | None


def read_files(sources: Sources, found: list[Problem]) -> Files:
    """Read every file for itself, adding its problems to `found`."""
    normalize = _attempt(found, parse_normalize, sources.normalize)
    loaded = _attempt(
        found,
        load_model,
        sources.model,
        arch=sources.arch,
        factory=sources.factory,
        normalize=normalize,
        reading=sources.reading,
        allow_pickle=sources.allow_pickle,
    )
    model = loaded.model if loaded else None
    read = _reader_of_tables(model)
    names = sources.names or (model.labels if model else None)
    train = _attempt(found, read, sources.train, names=names)
    # Word labels are numbered by the training table, so that a class missing elsewhere moves none.
    like: dict[str, Any] = {"names": names}
    if train is not None:
        like["names"] = names or train.names
        if train.texts is None:
            like["size"] = tuple(train.x.shape[1:])
    test = _attempt(found, read, sources.test, **like)
    bases = _attempt(found, read, sources.evidence.get("bases"), **like)
    forget = targets = trigger = None
    if train is not None:
        where = str(sources.train)
        forget = _attempt(found, read_forget, sources.forget, train, where_train=where)
    if test is not None:
        where = str(sources.test)
        reader = model.reader if model else None
        targets = _attempt(
            found,
            read_targets,
            sources.evidence.get("targets"),
            test,
            where_test=where,
            reader=reader,
        )
    if train is not None and model is not None:
        trigger = _read_trigger(sources.evidence.get("trigger"), model, train, like["names"], found)
    return Files(
        loaded=loaded,
        train=train,
        test=test,
        bases=bases,
        forget=forget,
        key=_attempt(found, read_canaries, sources.evidence.get("canaries")),
        targets=targets,
        trigger=trigger,
        strings=_attempt(found, read_strings, sources.evidence.get("strings")),
    )


def _reader_of_tables(model: Model | None) -> Callable[..., Samples | None]:
    """Return what reads a table for this model.

    Without a model nobody knows how to read a text, and that problem is on the list already.
    """

    def read(path: Path, **more: Any) -> Samples | None:
        if model is not None and model.reader is not None:
            if holds_pictures(path):
                what = "the table holds pictures, and the model reads texts"
                fix = "A table of texts is a .csv or a .parquet with text,label."
                raise InputError(Problem(what, str(path), fix))
            return read_texts(path, reader=model.reader, names=more.get("names"))
        if holds_texts(path):
            if model is None:
                return None
            what = "the table holds texts, and the model takes pictures"
            raise InputError(Problem(what, str(path), "Is its config.json beside the weights?"))
        return read_table(path, **more)

    return read


def _read_trigger(
    path: Path | None,
    model: Model,
    train: Samples,
    names: Sequence[str] | None,
    found: list[Problem],
) -> Trigger | Phrase | None:
    classes: dict[str, Any] = {"classes": model.classes, "names": names}
    if model.reader is not None:
        return _attempt(found, read_phrase, path, **classes)
    return _attempt(found, read_trigger, path, shape=tuple(train.x.shape[1:]), **classes)


def _attempt(
    found: list[Problem], read: Callable[..., T], source: Any, *args: Any, **more: Any
) -> T | None:
    """Read a source if it is given; None, and its problems in `found`, if it has any."""
    if source is None:
        return None
    try:
        return read(source, *args, **more)
    except InputError as error:
        found.extend(error.problems)
        return None


def misfits(sources: Sources, files: Files, recipe: Recipe) -> list[Problem]:
    """Return what is wrong between files that are right for themselves."""
    found: list[Problem] = []
    for table, path in ((files.train, sources.train), (files.test, sources.test)):
        if table is not None and files.loaded is not None:
            found += check_labels(table, files.loaded.model.classes, str(path))
            found += _unfit(files.loaded.model, table, str(path))
    if files.train is None:
        return found
    if files.train.texts is not None:
        found += _of_pictures(sources, recipe)
    if files.forget is None:
        return found
    if "strings" in sources.evidence and files.train.texts is None:
        what = "token canaries are texts, and the samples are pictures"
        found.append(Problem(what, str(sources.evidence.get("strings"))))
    parts = split(files.train, files.forget)
    if len(parts.retain) == 0:
        what = "every training sample is to be forgotten: nothing is left to retain"
        found.append(Problem(what, str(sources.forget), "Retrain on other data instead"))
    if files.test is not None:
        for name, part in (("retain", parts.retain), ("forget", parts.forget)):
            found += overlap(part, files.test, a_name=f"the {name} set", b_name=str(sources.test))
    return found


def _of_pictures(sources: Sources, recipe: Recipe) -> list[Problem]:
    """Return what was said that means something for pictures only."""
    found = []
    if recipe.augment != "none":
        what = f"is {recipe.augment}, which is for pictures, and the samples are texts"
        found.append(Problem(what, "[training] augment", "Leave it out."))
    if "bases" in sources.evidence:
        what = "is a table of bases, and a canary's text is its own base"
        found.append(Problem(what, str(sources.evidence.get("bases")), "Leave it out."))
    return found


def read_planting(sources: Sources, files: Files, found: list[Problem]) -> Planting | None:
    """Match the key with the forget set, once all that they need could be read."""
    key, forget, train = files.key, files.forget, files.train
    bases_lost = "bases" in sources.evidence and files.bases is None
    if key is None or forget is None or train is None or bases_lost:
        return None
    if train.texts is not None and files.loaded is not None:
        return _read_embedded(sources, files.loaded, key, forget, train, found)
    if "bases" not in sources.evidence and not {base for base in forget.bases if base} <= set(
        train.ids
    ):
        what = "names bases that are not in the training table, and no table of bases is given"
        fix = 'Give it by --bases TABLE, or bases = "TABLE" under [evidence.gaussian] in audit.toml'
        found.append(Problem(what, str(sources.forget), fix))
        return None
    try:
        return plant_check(
            key,
            forget,
            train,
            files.bases,
            where=str(sources.evidence.get("canaries")),
            where_forget=str(sources.forget),
        )
    except InputError as error:
        found += error.problems
        return None


def _read_embedded(
    sources: Sources,
    loaded: Loaded,
    key: Canaries,
    forget: ForgetSet,
    train: Samples,
    found: list[Problem],
) -> Planting | None:
    where = str(sources.evidence.get("canaries"))
    committed = loaded.metadata.get(CANARIES_KEY)
    if committed is not None and committed != key.commitment:
        what = f"has the SHA-256 {key.commitment}, the model was trained with {committed}"
        found.append(Problem(what, where, "Give the key that it was trained with."))
    width = embedding_width(loaded.model)
    check: dict[str, Any] = {"width": width, "where": where, "where_forget": str(sources.forget)}
    return _attempt(found, lambda k: embedding_check(k, forget, train, **check), key)


def read_planted_strings(
    sources: Sources, files: Files, found: list[Problem]
) -> PlantedStrings | None:
    """Match the token canaries with the forget set, once all that they need could be read."""
    forget, train, strings = files.forget, files.train, files.strings
    if strings is None or forget is None or train is None or train.texts is None:
        return None
    where: dict[str, Any] = {
        "where": str(sources.evidence.get("strings")),
        "where_forget": str(sources.forget),
    }
    return _attempt(found, lambda key: find_strings(key, forget, train, **where), strings)


def _unfit(model: Model, table: Samples, where: str) -> list[Problem]:
    """Return the problem of a table whose samples the model cannot take."""
    if (table.texts is None) != (model.reader is None):
        return []  # said where the table was read
    shape = tuple(table.x.shape[1:])
    try:
        with torch.no_grad():
            out = model.logits(model.module.eval(), table.batch(slice(0, 1)))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        fix = f"Give samples of the shape that {model.arch} was trained on"
        return [
            Problem(f"the model does not accept samples of shape {shape} ({reason})", where, fix)
        ]
    if out.shape != (1, model.classes):
        what = f"the model answers samples of shape {shape} with {tuple(out.shape)[1:]} logits"
        return [Problem(what, where, f"Expected {model.classes}, one a class")]
    return []
