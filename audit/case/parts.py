"""Are the tables whole, and each the part of the data that it is said to be?"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from poison_audit.case.doubts import Doubt
from poison_audit.case.labels import several
from poison_audit.case.rows import label_spelt
from poison_audit.errors import Problem
from poison_audit.models.samples import Samples

TRAIN, TEST = {"train", "training"}, {"test", "testing", "val", "valid", "validation", "dev"}
RARE = 1e-3
"""So rarely a test table that is drawn like the training table lacks a class of it."""


def swapped(train: Path | None, test: Path | None) -> list[Problem]:
    """Return the problem of two tables each of which has the other's name."""
    if train is None or test is None:
        return []
    mine, theirs = (set(re.split(r"[^a-z]+", path.stem.lower())) for path in (train, test))
    if mine & TRAIN or theirs & TEST or not (mine & TEST and theirs & TRAIN):
        return []
    what = f"is {train}, and --test is {test}: they are swapped"
    return [Problem(what, "--train", "Swap them; or give the files names of their own.")]


def missing_classes(
    train: Samples, test: Samples, classes: int, where: str, where_test: str
) -> list[Doubt]:
    """Return what is in doubt of tables that lack classes which the model tells apart.

    Args:
        train: the training table.
        test: the test table, which may lack a class that is so rare that chance explains it.
        classes: the model's outputs.
        where: what sentences call the training table.
        where_test: what they call the test table.
    """
    held, tested = Counter(train.y.tolist()), set(test.y.tolist())
    lacking = [label for label in range(classes) if label not in held]
    untested = [
        label
        for label, count in held.items()
        if label not in tested and len(test) * math.log1p(-min(count / len(train), 0.999999))
        < math.log(RARE)
    ]  # fmt: skip
    doubts = []
    if lacking:
        sentence = (
            f"{where} has no sample of {_told(train, lacking)}, which the model tells apart: it is "
            "a part of what the model was trained on, or its labels are numbered otherwise."
        )
        step = "Give the whole training table, with the labels of the model's outputs."
        doubts.append(Doubt(about="rows", sentence=sentence, step=step))
    if untested:
        sentence = (
            f"{where_test} has no sample of {_told(train, sorted(untested))}, which {where} has: "
            "what became of them nobody sees."
        )
        step = "Give a test table with samples of every class."
        doubts.append(Doubt(about="rows", sentence=sentence, step=step))
    return doubts


def _told(samples: Samples, labels: Sequence[int]) -> str:
    noun = "the label" if len(labels) == 1 else f"{len(labels)} labels:"
    return f"{noun} {several(label_spelt(samples, label) for label in labels)}"
