"""A planting: forget.csv, canaries.json and the clean bases, tied together and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from poison_audit.case.csvfile import first
from poison_audit.case.forget import ForgetSet
from poison_audit.case.keyfile import KeyedRow, keyed_rows, wrong_names
from poison_audit.case.pictures import spelt
from poison_audit.errors import InputError, Problem
from poison_audit.models.samples import Samples
from poison_audit.poisons.gaussian.evidence import Canaries, unit_noise
from poison_audit.poisons.gaussian.reading import POISON
from poison_audit.poisons.gaussian.scale import (
    Pair,
    attenuation,
    pixels,
    wrong_differences,
    wrong_recoveries,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planting:
    """The canaries of a forget set."""

    names: tuple[str, ...]
    """Ids in the key, in the order of forget.csv."""
    bases: Samples
    """The clean samples they were made from, float32 in [0, 1] pixels, in `names`' order; the ids
    are `names`, the labels those the canaries were trained with."""
    attenuation: float
    """<d, xi> / <xi, xi> of stored differences d and drawn noise xi: 1 if storage kept it all."""
    missing: int
    """Planted ids of the key that are not in the forget set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Base:
    """Where a clean sample stands."""

    table: Samples
    position: int


def plant_check(
    key: Canaries,
    forget: ForgetSet,
    train: Samples,
    bases: Samples | None,
    *,
    where: str,
    where_forget: str,
) -> Planting:
    """Tie the canaries of a forget set to their key and bases, and prove that they belong together.

    Args:
        key: what canaries.json says.
        forget: the forget set; its rows with a `canary` are the canaries.
        train: the training table that `forget` was read against.
        bases: clean samples by id, looked up before `train`.
        where: what messages call canaries.json.
        where_forget: what messages call forget.csv.

    Raises:
        InputError: an id is not planted by the key, a base is missing or labelled otherwise, the
            shapes differ; or, all of that being right, the stored noise is not the keyed noise.
    """
    rows = keyed_rows(forget, POISON.name, where_forget)
    problems = _wrong_spaces(key, train, bases, where)
    if not rows:
        fix = "Say attack = gaussian, or name the key's id in the canary column."
        problems.append(Problem("no row is a canary", where_forget, fix))
    problems += first(wrong_names(rows, key, where), where_forget)
    found = _find_bases(rows, train, bases)
    problems += first(_wrong_bases(rows, found, key, train), where_forget)
    if problems:
        raise InputError(problems)
    pairs = [
        Pair(
            name=row.name,
            sample=train.x[row.position],
            base=base.table.x[base.position] if base else None,
            unit=unit_noise(key.secret, row.name, key.shape),
        )
        for row, base in zip(rows, found, strict=True)
    ]
    if problems := _wrong_noise(pairs, key, where):
        raise InputError(problems)
    return Planting(
        names=tuple(row.name for row in rows),
        bases=_clean(pairs, key, train, rows),
        attenuation=attenuation(pairs, key),
        missing=len(set(key.planted) - {row.name for row in rows}),
    )


def _wrong_spaces(
    key: Canaries, train: Samples, bases: Samples | None, where: str
) -> list[Problem]:
    if key.space != "pixel":
        what = f"space is {key.space}, but the samples are pictures"
        return [Problem(what, where, "Canaries in pictures are planted in pixel space.")]
    problems = []
    shape = tuple(train.x.shape[1:])
    if key.shape != shape:
        what = f"shape is {spelt(key.shape)}, but the training samples are {spelt(shape)}"
        problems.append(Problem(what, where))
    if bases is not None and bases.x.shape[1:] != train.x.shape[1:]:
        what = f"the bases are {spelt(bases.x.shape[1:])}, the training samples {spelt(shape)}"
        problems.append(Problem(what, where))
    if key.storage == "unclipped" and train.x.dtype == torch.uint8:
        what = "storage is unclipped, but the training samples are 8-bit"
        fix = "Give the floating-point table that the model was trained on."
        problems.append(Problem(what, where, fix))
    return problems


def _find_bases(
    rows: Sequence[KeyedRow], train: Samples, bases: Samples | None
) -> list[_Base | None]:
    known = {
        name: _Base(table=table, position=position)
        for table in (train, bases)
        if table is not None
        for position, name in enumerate(table.ids)
    }
    return [None if row.base is None else known.get(row.base) for row in rows]


def _wrong_bases(
    rows: Sequence[KeyedRow], found: Sequence[_Base | None], key: Canaries, train: Samples
) -> list[Problem]:
    problems = []
    for row, base in zip(rows, found, strict=True):
        if base is None:
            if row.base is not None:
                what = f"the base {row.base!r} is in neither the bases nor the training table"
                problems.append(Problem(what, row.place))
            elif key.storage != "unclipped":
                what = f"the canary {row.name!r} has no base, and {key.storage} storage lost it"
                fix = "Name its clean sample in the base column."
                problems.append(Problem(what, row.place, fix))
            continue
        label, trained = int(base.table.y[base.position]), int(train.y[row.position])
        if label != trained:
            what = (
                f"the base {row.base!r} has the label {label}, its canary was trained as {trained}"
            )
            problems.append(Problem(what, row.place))
        x = pixels(base.table.x[base.position])
        if x.min() < -1e-3 or x.max() > 1 + 1e-3:
            what = f"the base {row.base!r} leaves [0, 1]: it is no clean picture"
            problems.append(Problem(what, row.place))
    return problems


def _wrong_noise(pairs: Sequence[Pair], key: Canaries, where: str) -> list[Problem]:
    based = [pair for pair in pairs if pair.base is not None]
    baseless = [pair for pair in pairs if pair.base is None]
    problems = wrong_differences(based, key, where) if based else []
    return problems + (wrong_recoveries(baseless, key, where) if baseless else [])


def _clean(
    pairs: Sequence[Pair], key: Canaries, train: Samples, rows: Sequence[KeyedRow]
) -> Samples:
    x = np.stack(
        [
            pixels(pair.base)
            if pair.base is not None
            else pixels(pair.sample) - key.sigma * pair.unit
            for pair in pairs
        ]
    )
    # Only the rounding of storage lies outside; the checks have seen to that.
    return Samples(
        ids=tuple(row.name for row in rows),
        x=torch.from_numpy(x.clip(0, 1).astype(np.float32)),
        y=train.y[torch.tensor([row.position for row in rows])],
        names=train.names,
    )
