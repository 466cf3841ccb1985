"""A training table with poison in it: what every attack ends in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch
from torch import Tensor

from poison_audit.case.planting import Storage
from poison_audit.case.texts import TextTable
from poison_audit.errors import PlanError, Problem
from poison_audit.models.samples import Samples, as_pixels

Table = TypeVar("Table", Samples, TextTable)
T = TypeVar("T")
Key = TypeVar("Key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Poisoned(Generic[Table]):
    """A poisoned training table."""

    table: Table
    ids: tuple[str, ...]
    """The poisons in it."""
    bases: tuple[str | None, ...]
    """For each poison, the clean sample whose place it took; None: it was added."""
    largest: float | None = None
    """Largest change of a pixel, in [0, 1] pixels, as stored; None: nothing was changed."""
    rms: float | None = None
    """Root of the mean squared change of all pixels of the poisons, as stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyed(Generic[Table, Key]):
    """A poisoned training table, and the key that finds its poisons again."""

    poisoned: Poisoned[Table]
    key: Key


def substitute(
    train: Samples, positions: Sequence[int], x: Tensor, y: Tensor, *, prefix: str, storage: Storage
) -> Poisoned[Samples]:
    """Return `train` with poisons in the places of the clean samples they were made from.

    Args:
        train: the clean table.
        positions: of the samples that make room, distinct.
        x: the poisons, floating point, (len(positions), c, h, w).
        y: their labels.
        prefix: of the poisons' ids, which are numbered from 0000.
        storage: `uint8` clips and rounds the whole table; `unclipped` makes it float32.

    Raises:
        PlanError: `train` has ids that the poisons would be given.
    """
    ids = _new_ids(train, len(positions), prefix)
    here = torch.as_tensor(positions, dtype=torch.int64)
    pixels, labels = as_pixels(train.x).float().clone(), train.y.clone()
    clean = pixels[here]
    pixels[here], labels[here] = x.float(), y
    names = _put(train.ids, positions, ids)
    table = replace(train, ids=names, x=_stored(pixels, storage), y=labels, paths=None)
    change = as_pixels(table.x[here]) - clean
    return Poisoned(
        table=table,
        ids=ids,
        bases=tuple(train.ids[i] for i in positions),
        largest=float(change.abs().max()),
        rms=float(change.square().mean().sqrt()),
    )


def append(
    train: Samples, x: Tensor, y: Tensor, *, prefix: str, storage: Storage
) -> Poisoned[Samples]:
    """Return `train` with poisons after it; the rest as in `substitute`."""
    ids = _new_ids(train, len(y), prefix)
    pixels = torch.cat([as_pixels(train.x).float(), x.float()])
    table = replace(
        train,
        ids=train.ids + ids,
        x=_stored(pixels, storage),
        y=torch.cat([train.y, y]),
        paths=None,
    )
    return Poisoned(table=table, ids=ids, bases=(None,) * len(ids))


def replaced(
    table: TextTable,
    positions: Sequence[int],
    texts: Sequence[str],
    y: Sequence[int],
    *,
    prefix: str,
) -> Poisoned[TextTable]:
    """Return `table` with poisons in the places of the clean texts they were made from.

    As `substitute` does with pictures: `texts` and `y` are the poisons'.
    """
    ids = _new_ids(table, len(positions), prefix)
    poisoned = replace(
        table,
        ids=_put(table.ids, positions, ids),
        texts=_put(table.texts, positions, texts),
        y=_put(table.y, positions, y),
    )
    return Poisoned(table=poisoned, ids=ids, bases=table.at(positions).ids)


def added(
    table: TextTable, texts: Sequence[str], y: Sequence[int], *, prefix: str
) -> Poisoned[TextTable]:
    """Return `table` with poisons after it; the rest as in `replaced`."""
    ids = _new_ids(table, len(texts), prefix)
    poisoned = table.joined(replace(table, ids=ids, texts=tuple(texts), y=tuple(y)))
    return Poisoned(table=poisoned, ids=ids, bases=(None,) * len(ids))


def _put(old: tuple[T, ...], positions: Sequence[int], new: Sequence[T]) -> tuple[T, ...]:
    found = dict(zip(positions, new, strict=True))
    return tuple(found.get(place, value) for place, value in enumerate(old))


def _new_ids(table: Samples | TextTable, count: int, prefix: str) -> tuple[str, ...]:
    ids = tuple(f"{prefix}-{number:04d}" for number in range(count))
    if taken := sorted(set(ids) & set(table.ids)):
        kind = "texts" if isinstance(table, TextTable) else "samples"
        what = f"the table has {kind} named {taken[0]!r} and the like: it is poisoned already"
        raise PlanError(Problem(what, fix="Plant in the clean table"))
    return ids


def _stored(pixels: Tensor, storage: Storage) -> Tensor:
    if storage == "unclipped":
        return pixels
    return (pixels * 255).round().clamp(0, 255).to(torch.uint8)
