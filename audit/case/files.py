"""The files of every trial, read each for itself and then against one another.

The case knows no poison: each has a reader of its own, which gives the evidence that it brings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from poison_audit.case.classes import one_class, wrong_count, wrong_names
from poison_audit.case.copies import overlap
from poison_audit.case.doubts import Doubt
from poison_audit.case.forget import ForgetSet, read_forget, split
from poison_audit.case.listings.listing import Part
from poison_audit.case.pairs import better_as_pairs
from poison_audit.case.parts import swapped
from poison_audit.case.poison import Poison
from poison_audit.case.sources import Sources
from poison_audit.case.tables import check_labels, read_table
from poison_audit.case.texts import holds_pictures, holds_texts, read_texts
from poison_audit.case.units import not_pixels
from poison_audit.errors import InputError, Problem, Problems
from poison_audit.models.checkpoint import Loaded, load_model
from poison_audit.models.fit import refusal
from poison_audit.models.normalization import parse_normalize
from poison_audit.models.outputs import ENOUGH, SAID, answers_chances, of_chances
from poison_audit.models.preprocessor import misfit
from poison_audit.models.samples import Samples
from poison_audit.records import Json, Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What could be read; None where a file is not given or has a problem."""

    sources: Sources
    loaded: Loaded | None
    train: Samples | None = None
    test: Samples | None = None
    forget: ForgetSet | None = None

    @property
    def names(self) -> tuple[str, ...] | None:
        """Label names, in the order of the model's outputs.

        Word labels are numbered by the training table, so that a class missing elsewhere moves
        none.
        """
        given = self.sources.names or (self.loaded.model.labels if self.loaded else None)
        return given or (self.train.names if self.train else None)

    def table(self, path: Path, part: Part = "train") -> Samples | None:
        """Return the samples of one more table, which is like the training table.

        `part` says what it is wanted for, where it holds several.

        Without a model nobody knows how to read a text: None, and that problem is on the list
        already.
        """
        model = self.loaded.model if self.loaded else None
        if model is not None and model.reader is not None:
            if holds_pictures(path):
                what = "the table holds pictures, and the model reads texts"
                fix = "A table of texts is a .csv, .tsv, .jsonl or .parquet with text,label."
                raise InputError(Problem(what, str(path), fix))
            return read_texts(path, reader=model.reader, names=self.names, sort=False)
        if holds_texts(path):
            if model is None:
                return None
            what = "the table holds texts, and the model takes pictures"
            raise InputError(Problem(what, str(path), "Is its config.json beside the weights?"))
        size = None
        if self.train is not None and self.train.texts is None:
            _, channels, height, width = self.train.x.shape
            size = (channels, height, width)
        return read_table(
            path,
            names=self.names,
            size=size,
            channels=self.loaded.channels if self.loaded else None,
            sort=model is None,
            part=part,
            allow_pickle=self.sources.allow_pickle,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was read of one poison, and what the report is to say of it."""

    planted: Any
    """What its probes need, on the device; None: not given. It becomes `Case.evidence`."""
    subject: Mapping[str, Json]
    """Its part of the report's `subject`, None where a file is not given."""
    train: Samples | None = None
    """The training table as it was trained on; None: as it is stored."""
    stamp: Callable[[Samples], Samples] | None = None
    """What puts the trigger on samples of the case; None: this poison has none, or none is
    known."""
    limits: tuple[str, ...] = ()
    """What this case cannot show, in sentences."""
    trust: tuple[str, ...] = ()
    """What no file proves and has to be taken on trust, in sentences."""
    explains: frozenset[int] = frozenset()
    """Places in the training table of the forget samples that this poison's probes look at."""
    unlike: tuple[str, ...] = ()
    """Why forget samples that are said to be this poison are not among those, in sentences."""
    doubts: tuple[Doubt, ...] = ()
    """Why it may not be what is to be looked for."""


Reader = Callable[[Files, torch.device | str, Problems], Evidence]
"""(what was read so far, where the evidence is to lie, problems to add to) -> the evidence.

It is asked whatever was given and whatever could be read, so that all problems are said at once.
"""


def read_files(sources: Sources, poisons: Mapping[str, Poison], problems: Problems) -> Files:
    """Read every file for itself, adding its problems to `problems`."""
    normalize = loaded = None
    with problems.collecting():
        normalize = parse_normalize(sources.normalize) if sources.normalize is not None else None
    with problems.collecting():
        loaded = load_model(
            sources.model,
            arch=sources.arch,
            factory=sources.factory,
            normalize=normalize,
            reading=sources.reading,
            allow_pickle=sources.allow_pickle,
            state_key=sources.state_key,
            base=sources.base,
        )
    alone = sources.trainable == "adapter"
    if loaded is not None and alone:
        if loaded.model.adapter is None:
            what, fix = "the model has no adapter", "Leave it out, or give the adapter's folder."
            problems.append(Problem(what, f"--trainable {sources.trainable}", fix))
        loaded = replace(loaded, model=replace(loaded.model, adapter_alone=True))
    files = Files(sources=sources, loaded=loaded)
    if sources.train is not None:
        with problems.collecting():
            files = replace(files, train=files.table(sources.train))
    if sources.test is not None:
        with problems.collecting():
            files = replace(files, test=files.table(sources.test, "test"))
    if sources.forget is not None and files.train is not None:
        where = str(sources.train)
        with problems.collecting():
            forget = read_forget(
                sources.forget, files.train, where_train=where, poisons=poisons,
                allow_pickle=sources.allow_pickle,
            )  # fmt: skip
            files = replace(files, forget=forget)
    return files


def with_logits(files: Files) -> Files:
    """Return files whose model answers with logits, also where it ends in softmax."""
    loaded, table = files.loaded, files.test or files.train
    if loaded is None or table is None or len(table) < 2:
        return files
    if not answers_chances(loaded.model, table.batch(slice(0, ENOUGH))):
        return files
    notes = (*loaded.notes, SAID)
    return replace(files, loaded=replace(loaded, model=of_chances(loaded.model), notes=notes))


def misfits(files: Files, recipe: Recipe) -> list[Problem]:
    """Return what is wrong between files that are right for themselves."""
    found: list[Problem] = []
    sources, train, test = files.sources, files.train, files.test
    found += swapped(sources.train, sources.test)
    if files.loaded is not None and sources.names is not None:
        found += wrong_names(sources.names, files.loaded.model)
    for table, path in ((train, sources.train), (test, sources.test)):
        if table is not None and files.loaded is not None:
            found += one_class(table, files.loaded.model.classes, str(path))
            if sources.names is None:
                found += wrong_count(table, files.loaded.model.classes, str(path))
            found += check_labels(table, files.loaded.model.classes, str(path))
            found += _unfit(files.loaded, table, str(path))
    if test is not None and files.loaded is not None and not found:
        found += better_as_pairs(files.loaded.model, test, str(sources.test))
    if test is not None:
        found += not_pixels(test, str(sources.test), share=0.05)
    if train is None:
        return found
    if train.texts is not None and recipe.augment != "none":
        what = f"is {recipe.augment}, which is for pictures, and the samples are texts"
        found.append(Problem(what, "[training] augment", "Leave it out."))
    if files.forget is None:
        return found
    parts = split(train, files.forget)
    # Rows that nobody named may be canaries as well: half of them, and no more.
    found += not_pixels(parts.retain, f"{sources.train} without the forget set", share=0.5)
    if len(parts.retain) == 0:
        what = "every training sample is to be forgotten: nothing is left to retain"
        found.append(Problem(what, str(sources.forget), "Retrain on other data instead"))
    if test is not None:
        for name, part in (("retain", parts.retain), ("forget", parts.forget)):
            found += overlap(part, test, a_name=f"the {name} set", b_name=str(sources.test))
    return found


def _unfit(loaded: Loaded, table: Samples, where: str) -> list[Problem]:
    """Return the problem of a table whose samples the model cannot take, or never saw alike."""
    if (table.texts is None) != (loaded.model.reader is None):
        return []  # said where the table was read
    other = misfit(loaded.pictures, table.x.shape[1:], where) if table.texts is None else None
    if other is not None:
        return [other]
    found = refusal(loaded.model, table.batch(slice(0, 1)))
    return [] if found is None else [Problem(found[0], where, found[1])]
