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

    bases: Samples
    """The clean samples they were made from, in the order of forget.csv: pictures float32 in [0, 1]
    pixels, ids those of the key, labels those that the canaries were trained with."""
    attenuation: float
    """<d, xi> / <xi, xi> of stored differences d and drawn noise xi: 1 if storage kept it all."""
    missing: int
    """Planted ids of the key that are not in the forget set."""


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
    problems = _wrong_spaces(key, train, bases, where)
    rows = tied_rows(key, forget, problems, where=where, where_forget=where_forget)
    tables = (train,) if bases is None else (train, bases)
    known = {name: (t, place) for t in tables for place, name in enumerate(t.ids)}
    found = [None if row.base is None else known.get(row.base) for row in rows]
    problems += first(_wrong_bases(rows, found, key, train), where_forget)
    if problems:
        raise InputError(problems)
    pairs = [
        Pair(
            name=row.name,
            sample=train.x[row.position],
            base=base and base[0].x[base[1]],
            unit=unit_noise(key.secret, row.name, key.shape),
        )
        for row, base in zip(rows, found, strict=True)
    ]
    if problems := [
        *wrong_differences([pair for pair in pairs if pair.base is not None], key, where),
        *wrong_recoveries([pair for pair in pairs if pair.base is None], key, where),
    ]:
        raise InputError(problems)
    clean = np.stack([
        pixels(pair.sample) - key.sigma * pair.unit if pair.base is None else pixels(pair.base)
        for pair in pairs
    ])  # fmt: skip
    # Only the rounding of storage lies outside; the checks have seen to that.
    x = torch.from_numpy(clean.clip(0, 1).astype(np.float32))
    y = train.y[torch.tensor([row.position for row in rows])]
    names = tuple(row.name for row in rows)
    return Planting(
        bases=Samples(ids=names, x=x, y=y, names=train.names),
        attenuation=attenuation(pairs, key),
        missing=len(set(key.planted) - set(names)),
    )


def tied_rows(
    key: Canaries, forget: ForgetSet, problems: list[Problem], *, where: str, where_forget: str
) -> list[KeyedRow]:
    """Return the rows of a forget set that are canaries, adding what is wrong to `problems`."""
    rows = keyed_rows(forget, POISON.name, where_forget)
    if not rows:
        fix = (
            "Say attack = gaussian, or name the key's id in the canary column; of a bare list make "
            "a CSV with the header id,attack,base first."
        )
        problems.append(Problem("no row is a canary", where_forget, fix))
    problems += first(wrong_names(rows, key, where), where_forget)
    return rows


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


def _wrong_bases(
    rows: Sequence[KeyedRow],
    found: Sequence[tuple[Samples, int] | None],
    key: Canaries,
    train: Samples,
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
        table, place = base
        label, trained = int(table.y[place]), int(train.y[row.position])
        if label != trained:
            what = (
                f"the base {row.base!r} has the label {label}, its canary was trained as {trained}"
            )
            problems.append(Problem(what, row.place))
        x = pixels(table.x[place])
        if x.min() < -1e-3 or x.max() > 1 + 1e-3:
            what = f"the base {row.base!r} leaves [0, 1]: it is no clean picture"
            problems.append(Problem(what, row.place))
    return problems
