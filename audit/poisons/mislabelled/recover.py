"""Wrong labels that a forget set shows by itself: copies of clean samples under another label."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from poison_audit.case.clues import Clue, Material
from poison_audit.case.copies import contents
from poison_audit.case.rows import label_spelt, label_written
from poison_audit.errors import some
from poison_audit.models.samples import Samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """A forget sample that equals a clean one, and has another label."""

    place: int
    """Of the forget sample, in the training table."""
    given: int
    """Its label, as trained."""
    true: int
    """The label of its clean copy."""
    twin: str
    """The id of the clean copy."""


def flips_of(train: Samples, forget: Sequence[int], clean: Sequence[Samples]) -> tuple[Flip, ...]:
    """Return the forget samples that equal a clean sample under another label, in their order.

    A sample that has clean copies with its own label as well is none.

    Args:
        train: the training table.
        forget: places of the forget samples in it.
        clean: samples whose labels are taken to be right: what is retained, and bases.
    """
    rows = list(zip(forget, contents(train.at(forget)), strict=True))
    wanted = {key for _, key in rows}
    copies: dict[bytes, dict[int, str]] = {}
    for samples in clean:
        for place, key in enumerate(contents(samples)):
            if key in wanted:
                copies.setdefault(key, {}).setdefault(int(samples.y[place]), samples.ids[place])
    found = []
    for place, key in rows:
        given, there = int(train.y[place]), copies.get(key, {})
        if there and given not in there:
            true, twin = next(iter(there.items()))
            found.append(Flip(place=place, given=given, true=true, twin=twin))
    return tuple(found)


def flip_table(flips: Sequence[Flip]) -> Counter[tuple[int, int]]:
    """Return how many samples were moved, by (true label, given label)."""
    return Counter((flip.true, flip.given) for flip in flips)


def flipped(material: Material) -> list[Clue]:
    """Return the clue of wrong labels, if there are any."""
    train = material.train
    clean = [material.parts.retain, *([] if material.bases is None else [material.bases])]
    found = flips_of(train, material.forget.positions, clean)
    if not found:
        return []
    pairs = flip_table(found).most_common()
    told = some([f"{_spelt(train, true, given)} ({n:,})" for (true, given), n in pairs])

    def write(path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["id", "label", "clean_label", "copy_of"])
            writer.writerows(
                (
                    train.ids[f.place],
                    label_written(train, f.given),
                    label_written(train, f.true),
                    f.twin,
                )
                for f in found
            )

    return [
        Clue(
            what=f"Wrong labels, true to given: {told}",
            label="",
            rows=tuple(flip.place for flip in found),
            sure="exact copies of clean samples",
            confirm="Are the clean copies' labels the true ones? Then copy the column clean_label "
            "into forget.csv, and it is measured.",
            write={"flips.csv": write},
        )
    ]


def _spelt(train: Samples, true: int, given: int) -> str:
    return f"{label_spelt(train, true)} to {label_spelt(train, given)}"
