"""Targets of an attack, from the forget set and the test table alone: never the model.

Question: are forget samples all but copies of test samples, under another label?
Statistic: each sample's root mean square distance to its nearest test sample.
Null: the forget samples are like retain samples, which are near test samples by chance alone, or
    because photographs come in series. Of these, `COMPARED` random ones are asked, and near is what
    lies below `PART` of the `QUANTILE` of theirs. Not exact: a person must look at the pairs.
Why it finds targets: poison that was crafted from its target (Shafahi et al., arXiv 1804.00792,
    start at a base; this project's planter may start at the target) stays near it by the attack's
    own bound. Poison that starts elsewhere is not found.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from pathlib import Path

import torch
from torch import Tensor

from poison_audit.case.clues import Clue, Material
from poison_audit.case.rows import label_written
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng

COMPARED = 500
QUANTILE, PART = 0.01, 0.7
FEWEST = 20
"""Retain samples without which nothing is near."""
STEP = 500
"""Samples that are compared at once."""


def near_targets(
    rows: Samples, retain: Samples, test: Samples, rng: Rng
) -> tuple[Tensor, Tensor, float]:
    """Return which samples are all but copies of a test sample.

    Args:
        rows: pictures (n, c, h, w).
        retain: those by which it is told what is near.
        test: the test table.
        rng: draws the retain samples.

    Returns:
        (the place of each one's nearest test sample, -1 where none is near: int64, (n,); the
        distances in pixels: (n,); below which distance they are near).
    """
    order = rng.named("near").numpy().permutation(len(retain))[:COMPARED]
    usual = _nearest(retain.at(torch.from_numpy(order)), test)[0]
    bound = PART * float(torch.quantile(usual, QUANTILE)) if len(usual) >= FEWEST else 0.0
    distance, place = _nearest(rows, test)
    return torch.where(distance <= bound, place, -1), distance, bound


def _nearest(samples: Samples, test: Samples) -> tuple[Tensor, Tensor]:
    """Return the root mean square distance to the nearest test sample, and its place."""
    distances, places = [], []
    for batch in samples.in_order(STEP):
        x = batch.x.flatten(1).float().cpu()
        best, at = torch.full((len(x),), torch.inf), torch.zeros(len(x), dtype=torch.int64)
        for start in range(0, len(test), STEP):
            other = test.batch(slice(start, start + STEP)).x.flatten(1).float().cpu()
            squares = (
                x.square().sum(1)[:, None] - 2 * x @ other.T + other.square().sum(1)
            ) / x.shape[1]
            low, where = squares.clamp(min=0).min(1)
            nearer = low < best
            best, at = torch.where(nearer, low, best), torch.where(nearer, where + start, at)
        distances.append(best.sqrt())
        places.append(at)
    return torch.cat(distances), torch.cat(places)


def targets(material: Material) -> list[Clue]:
    """Return the clue of targets, if forget samples are all but copies of test samples."""
    train, test, retain = material.train, material.test, material.parts.retain
    if test is None or train.texts is not None or test.texts is not None or not len(retain):
        return []
    if train.x.shape[1:] != test.x.shape[1:]:
        return []
    rows = material.parts.forget
    place, _, bound = near_targets(rows, retain, test, Rng(0).named("recover"))
    by_target: dict[int, list[int]] = defaultdict(list)
    for row, at in enumerate(place.tolist()):
        if at >= 0 and int(test.y[at]) != int(rows.y[row]):
            by_target[at].append(row)
    if not by_target:
        return []
    given = {at: Counter(int(rows.y[r]) for r in near).most_common(1)[0][0]
             for at, near in by_target.items()}  # fmt: skip

    def write(path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["id", "label", "adversarial"])
            for at, label in sorted(given.items()):
                own = label_written(test, int(test.y[at]))
                writer.writerow([test.ids[at], own, label_written(train, label)])

    found = sorted(row for near in by_target.values() for row in near)
    return [
        Clue(
            what=f"Near copies of {len(by_target):,} test samples under another label",
            label="",
            rows=tuple(material.forget.positions[row] for row in found),
            sure=f"within {bound:.3f} of a pixel's range (root mean square), where retain samples "
            "hardly come",
            confirm="Compare the pairs. Are those test samples what was to be misclassified?",
            write={"targets.csv": write},
            flag="--targets",
        )
    ]
