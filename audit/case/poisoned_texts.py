"""A training table of texts with poison in it: what every attack on texts ends in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from poison_audit.errors import PlanError, Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTable:
    """Labelled texts, as a table holds them: no model has read them yet."""

    ids: tuple[str, ...]
    """One a text, unique."""
    texts: tuple[str, ...]
    y: tuple[int, ...]
    """Class numbers, as trained."""
    names: tuple[str, ...] | None = None
    """What the classes are called, where the table says."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoisonedTexts:
    """A poisoned training table."""

    table: TextTable
    ids: tuple[str, ...]
    """The poisons in it."""
    bases: tuple[str | None, ...]
    """For each poison, the clean text whose place it took; None: it was added."""


def replaced(
    table: TextTable,
    positions: Sequence[int],
    texts: Sequence[str],
    y: Sequence[int],
    *,
    prefix: str,
) -> PoisonedTexts:
    """Return `table` with poisons in the places of the clean texts they were made from.

    Args:
        table: the clean table.
        positions: of the texts that make room, distinct.
        texts: the poisons.
        y: their labels.
        prefix: of the poisons' ids, which are numbered from 0000.

    Raises:
        PlanError: `table` has ids that the poisons would be given.
    """
    new = _new_ids(table, len(positions), prefix)
    ids, words, labels = list(table.ids), list(table.texts), list(table.y)
    for position, name, text, label in zip(positions, new, texts, y, strict=True):
        ids[position], words[position], labels[position] = name, text, label
    return PoisonedTexts(
        table=TextTable(ids=tuple(ids), texts=tuple(words), y=tuple(labels), names=table.names),
        ids=new,
        bases=tuple(table.ids[position] for position in positions),
    )


def added(
    table: TextTable, texts: Sequence[str], y: Sequence[int], *, prefix: str
) -> PoisonedTexts:
    """Return `table` with poisons after it.

    Raises:
        PlanError: `table` has ids that the poisons would be given.
    """
    new = _new_ids(table, len(texts), prefix)
    return PoisonedTexts(
        table=TextTable(
            ids=table.ids + new,
            texts=table.texts + tuple(texts),
            y=table.y + tuple(y),
            names=table.names,
        ),
        ids=new,
        bases=(None,) * len(new),
    )


def _new_ids(table: TextTable, count: int, prefix: str) -> tuple[str, ...]:
    ids = tuple(f"{prefix}-{number:04d}" for number in range(count))
    if taken := sorted(set(ids) & set(table.ids)):
        what = f"the table has texts named {taken[0]!r} and the like: it is poisoned already"
        raise PlanError(Problem(what, fix="Plant in the clean table"))
    return ids
