"""Are pictures read as training read them? Other readings are tried on a few hundred samples.

Two things speak for another reading (`ways`). It answers clearly more: of samples that only one of
the two readings answers rightly, too many are its own for chance (the exact McNemar test, corrected
for the number of readings), and the gain is one that matters. Or BatchNorm's stored statistics,
from which the stated reading is far, are nearly what it produces (`batch_norm`): that also tells
where accuracy suffers little, as under a trigger's wrong brightness.

**No honest model** is doubted by chance at more than the level. Nor for being weak, since only a
gain counts that no wrong reading gives a trained network; nor for other pictures (another
compression, frozen BatchNorm), since those move statistics in a way that no reading explains.

**What it costs**: each of about 15 readings is tried on 64 samples, and goes on to all 400 only if
it answers as many of those as the stated one: some 1,500 forward passes, of which a reading of
larger pictures takes more.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poison_audit.case.doubts import Doubt
from poison_audit.checks.batch_norm import APART, CLOSE, LEFT, distance
from poison_audit.checks.ways import Way, prepared, ways
from poison_audit.models.image import NORMALIZE
from poison_audit.models.memory import in_parts
from poison_audit.models.model import Batch, Model
from poison_audit.statistics.estimates import more_often
from poison_audit.training.scoring import exact

SCREEN = 64
"""Samples that every reading is tried on."""
LEVEL = 1e-3
"""Chance of a false alarm, over all readings."""
GAIN = 0.05
"""Least share of the samples that another reading must answer more of."""
BATCH = 64
"""Samples that are asked at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tried:
    way: Way
    gain: int = 0
    """Samples that it answers more of, where that is clear."""
    far: float | None = None
    """Its distance from BatchNorm's statistics, where that speaks for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Better:
    """Another reading, and what speaks for it."""

    doubt: Doubt
    accuracy: float
    """Of the samples: what it answers rightly."""


def better_reading(
    model: Model,
    retain: Batch,
    test: Batch,
    *,
    trained: Tensor | None = None,
) -> Better | None:
    """Return the way to read pictures that is clearly better than the stated one, if there is one.

    Args:
        model: of pictures.
        retain: samples that it was trained on, on its device.
        test: clean ones that it was not.
        trained: pictures drawn from all that it was trained on; None: the retain samples.
    """
    if len(retain) == 0:
        return None
    trained = retain.x if trained is None else trained
    batch = Batch(x=torch.cat([retain.x, test.x]), y=torch.cat([retain.y, test.y]))
    shuffled = _mixed(len(batch), len(retain))
    with exact(model.module), torch.no_grad():
        stated = Way(said="", step="", normalize=model.normalize or NORMALIZE["none"])
        others = ways(model, retain.x)
        stated_right = _right(model, stated, batch, shuffled)
        far = _far(model, trained, stated)
        tried = []
        for way in others:
            gain = _gain(model, way, batch, shuffled, stated_right, len(others))
            near = None
            if way.plain and far is not None and far > APART:
                near = _far(model, trained, way)
                near = near if near is not None and near < min(CLOSE, LEFT * far) else None
            if gain or near is not None:
                tried.append(_Tried(way=way, gain=gain, far=near))
    if not tried:
        return None
    # Of what answers most, what explains the statistics best.
    most = max(t.gain for t in tried)
    best = min(
        (t for t in tried if t.gain >= 0.9 * most),
        key=lambda t: (t.far is None, t.far or 0.0, -t.gain),
    )
    right = int(stated_right.sum())
    doubt = _doubt(best, right=right, total=len(batch), far=far)
    return Better(doubt=doubt, accuracy=(right + best.gain) / len(batch))


def _doubt(best: _Tried, *, right: int, total: int, far: float | None) -> Doubt:
    said = []
    if best.gain:
        said.append(
            f"of {total} clean samples the model answers {right} as they are read now, and "
            f"{right + best.gain} with {best.way.said}"
        )
    if best.far is not None and far is not None:
        read = "" if best.gain else f" with {best.way.said}"
        said.append(
            "BatchNorm's stored statistics are "
            f"{best.far:.2f} standard deviations from what training samples produce{read}, and "
            f"{far:.2f} as they are read now"
        )
    told = "; ".join(said)
    return Doubt(
        about="adapter",
        sentence=f"Pictures seem to be read otherwise than in training: {told}.",
        step=best.way.step,
        spoils=True,
    )


def _mixed(total: int, retained: int) -> Tensor:
    """Return places of which every beginning has retain and test samples alike."""
    first, second = torch.arange(retained), torch.arange(retained, total)
    share = [(i + 0.5) / len(part) for part in (first, second) for i in range(len(part))]
    return torch.cat([first, second])[torch.tensor(share, dtype=torch.float64).argsort(stable=True)]


def _gain(model: Model, way: Way, batch: Batch, order: Tensor, stated: Tensor, tests: int) -> int:
    """Return how many samples more a reading answers rightly, where that is clear; else 0."""
    if int(stated.sum()) == len(stated):
        return 0
    try:
        first = _right(model, way, batch, order[:SCREEN])
        if int(first.sum()) < int(stated[:SCREEN].sum()):
            return 0
        right = torch.cat([first, _right(model, way, batch, order[SCREEN:])])
    except Exception:
        # Somebody's network, or memory, does not take this reading: training had another.
        return 0
    gain, commonest = int(right.sum()) - int(stated.sum()), int(batch.y.bincount().max())
    # A reading under which one class is named always answers the commonest class, and no more.
    if min(gain, int(right.sum()) - commonest) < max(1, GAIN * len(stated)):
        return 0
    p_value = more_often(int((right & ~stated).sum()), int((stated & ~right).sum()))
    return gain if p_value < LEVEL / tests else 0


def _right(model: Model, way: Way, batch: Batch, places: Tensor) -> Tensor:
    """Return whether each sample is answered as labelled, bool, on the CPU."""
    found = [torch.zeros(0, dtype=torch.bool)]
    with way.network(model.module) as module:
        for start in range(0, len(places), BATCH):
            here = places[start : start + BATCH].to(batch.y.device)
            part = Batch(x=batch.x[here], y=batch.y[here])
            out = in_parts(lambda some: module(prepared(way, some.x)), part)
            found.append((out.argmax(1) == part.y).cpu())
    return torch.cat(found)


def _far(model: Model, x: Tensor, way: Way) -> float | None:
    if len(x) == 0:
        return None
    try:
        return distance(model.module, x, way)
    except Exception:
        return None
