"""Are pictures read as training read them? Other readings are tried on a few hundred samples.

Of a weak network a few hundred do not tell enough. So a reading that answers more of them, but not
clearly more, is asked again, of up to 2,000 samples that no reading was tried on.

Three things speak for another reading (`ways`).

- **It answers clearly more** clean samples: of those that only one of the two readings answers
  rightly, too many are its own for chance (the exact McNemar test, corrected for the number of
  readings), and the gain is one that matters. What was only hopeful is tested again on **fresh
  samples alone**: how it was chosen then takes no level, so that the same test is corrected for the
  few that were chosen. Each asking has half the level. The gain has to matter there as well.
- **BatchNorm's stored statistics**, from which the stated reading is far, are nearly what it
  produces (`batch_norm`). That also tells where accuracy suffers little.
- **The poison is obeyed under it**: nearly all forget samples are answered as they were labelled,
  far fewer are as they are read now, and clean samples are answered as well. A network that pools
  its features answers pictures of twice the size as well as ever, and no trigger.

**Honest models** are doubted by chance at no more than the level, which is exact: where another
reading answers no more than the stated one, each sample that only one of them answers is the
other's with a chance of at most a half. Nor for being weak, since only a
gain counts that no wrong reading gives a trained network; nor for other pictures (another
compression, frozen BatchNorm), since those move statistics in a way that no reading explains; nor
for what they forgot, or never learned, since they do not know it under another reading either.

**What it costs**: each of about 20 readings is tried on 64 samples, and goes on to all 400 and to
the forget samples only if it answers about as many of those as the stated one: some 1,500 forward
passes, of which a reading of larger pictures takes more. Asking again takes up to 2,000 for each of
at most three readings and the stated one, and most networks read rightly are not asked again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from poison_audit.case.doubts import Doubt
from poison_audit.checks.batch_norm import APART, CLOSE, LEFT, distance
from poison_audit.checks.ways import Way, prepared, ways
from poison_audit.models.fit import UnfitError, unfit
from poison_audit.models.image import NORMALIZE
from poison_audit.models.memory import in_parts
from poison_audit.models.model import Batch, Model
from poison_audit.models.samples import Samples
from poison_audit.statistics.paired import Paired
from poison_audit.training.scoring import exact

SCREEN = 64
"""Samples that every reading is tried on."""
LEVEL = 1e-3
"""Chance of a false alarm, over all readings, of each test."""
GAIN = 0.05
"""Least share of clean samples that another reading must answer more of."""
HOPE = 0.025
"""Least share that it must answer more of to be asked again."""
AGAIN = 3
"""Most readings that are."""
ROOM = 0.1
"""How much farther from BatchNorm's statistics such a reading may be; or half as far again."""
LOST, MUCH = 0.4, 0.15
"""Statistics that are farther from either reading than the first decide nothing: then the gain must
be the second."""
WORSE = 0.02
"""Share of clean samples that a reading under which poison is obeyed may answer less of."""
OBEYED, MORE = 0.8, 0.3
"""Least share of forget samples that it must answer as labelled, and least gain. Less could be
noise on pictures that another size smooths."""
BATCH = 64
"""Samples that are asked at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Better:
    """Another reading, and what speaks for it."""

    doubt: Doubt
    accuracy: float
    """Of the samples: what it answers rightly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What is asked, and what the stated reading says to it."""

    model: Model
    clean: Batch
    """Retain and test samples, of which every beginning has both alike."""
    forget: Batch
    trained: Tensor
    right: Tensor
    """Whether each clean sample is answered as labelled, bool."""
    obeyed: Tensor
    """Whether each forget sample is."""
    far: float | None
    """The distance from BatchNorm's statistics."""
    tests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tried:
    """Another reading; a figure is given where it speaks for it."""

    way: Way
    gain: Paired | None = None
    """Where it clearly answers more clean samples."""
    hope: Paired | None = None
    """Where it answers more of the first ones, not clearly."""
    obeyed: int = 0
    """Forget samples that it answers as labelled."""
    far: float | None = None

    @property
    def more(self) -> float:
        """Share of the clean samples that it clearly answers more of."""
        return self.gain.more / self.gain.total if self.gain else 0.0


def better_reading(
    model: Model,
    retain: Batch,
    test: Batch,
    *,
    forget: Batch,
    trained: Tensor,
    fresh: Sequence[Samples] = (),
) -> Better | None:
    """Return the way to read pictures that is clearly better than the stated one, if there is one.

    Args:
        model: of pictures.
        retain: samples that it was trained on, on its device.
        test: clean ones that it was not.
        forget: the forget set, or some of it.
        trained: pictures drawn from all that it was trained on.
        fresh: more retain and test samples, for readings that are to be asked again.
    """
    if len(retain) + len(test) == 0 or len(trained) == 0:
        return None
    with exact(model.module), torch.no_grad():
        others = ways(model, trained)
        seen = _seen(model, retain, test, forget, trained, tests=len(others))
        every = [_try(way, seen) for way in others]
        tried = [t for t in every if t.gain or t.obeyed or t.far is not None]
        tried = tried or _asked_again(every, seen, fresh)
    if not tried:
        return None
    # Of what answers most, what explains the statistics best.
    most = max(t.more for t in tried)
    best = min(
        (t for t in tried if t.more >= 0.9 * most),
        key=lambda t: (t.far is None, t.far or 0.0, -t.obeyed, -t.more),
    )
    accuracy = float(seen.right.float().mean())
    if best.gain:
        accuracy = (best.gain.stated + best.gain.more) / best.gain.total
    return Better(doubt=_doubt(best, seen), accuracy=accuracy)


def _seen(
    model: Model, retain: Batch, test: Batch, forget: Batch, trained: Tensor, *, tests: int
) -> _Seen:
    stated = _stated(model)
    order = _mixed(len(retain), len(test)).to(retain.y.device)
    clean = Batch(
        x=torch.cat([retain.x, test.x])[order], y=torch.cat([retain.y, test.y])[order]
    )  # fmt: skip
    return _Seen(
        model=model, clean=clean, forget=forget, trained=trained, tests=tests,
        right=_right(model, stated, [clean]), obeyed=_right(model, stated, [forget]),
        far=distance(model.module, trained, stated),
    )  # fmt: skip


def _stated(model: Model) -> Way:
    return Way(said="", step="", normalize=model.normalize or NORMALIZE["none"])


def _mixed(retained: int, tested: int) -> Tensor:
    """Return the order of retain and then test samples of which every beginning has both alike."""
    share = [(i + 0.5) / size for size in (retained, tested) for i in range(size)]
    return torch.tensor(share, dtype=torch.float64).argsort(stable=True)


def _try(way: Way, seen: _Seen) -> _Tried:
    try:
        return replace(_answered(way, seen), far=_explained(way, seen))
    except UnfitError:
        # Somebody's network does not take this reading: training had another.
        return _Tried(way=way)


def _answered(way: Way, seen: _Seen) -> _Tried:
    """Return whether more clean samples are answered, and how many forget samples at all."""
    nothing, total = _Tried(way=way), len(seen.clean)
    hopeful = len(seen.obeyed) > 0 and float(seen.obeyed.float().mean()) <= 1 - MORE
    if bool(seen.right.all()) and not hopeful:
        return nothing
    x, y = seen.clean.x, seen.clean.y
    first = _right(seen.model, way, [Batch(x=x[:SCREEN], y=y[:SCREEN])])
    if int(first.sum()) < int(seen.right[:SCREEN].sum()) - 1:
        return nothing
    rest = _right(seen.model, way, [Batch(x=x[SCREEN:], y=y[SCREEN:])])
    gain = _gain(torch.cat([first, rest]), seen.right, y)
    sure = gain.matters(GAIN) and gain.clear(level=LEVEL / 2, ways=seen.tests)
    believed = gain.matters(HOPE) and not _contradicted(way, seen, gain)
    found = _Tried(
        way=way,
        gain=gain if sure and believed else None,
        hope=gain if believed and not sure else None,
    )
    if not hopeful or gain.more < -WORSE * total:
        return found
    obeyed = _right(seen.model, way, [seen.forget])
    told = _gain(obeyed, seen.obeyed, seen.forget.y)
    share, more = float(obeyed.float().mean()), told.more / len(obeyed)
    if share >= OBEYED and more >= MORE and told.clear(level=LEVEL, ways=seen.tests):
        return replace(found, obeyed=int(obeyed.sum()))
    return found


def _asked_again(every: Sequence[_Tried], seen: _Seen, fresh: Sequence[Samples]) -> list[_Tried]:
    """Return which of the hopeful readings clearly answer more samples that none was tried on."""
    hopes = [(t.hope.more, t) for t in every if t.hope]
    hopes = sorted(hopes, key=lambda hope: -hope[0])[:AGAIN]
    if not hopes or sum(map(len, fresh)) == 0:
        return []
    labels = torch.cat([samples.y.cpu() for samples in fresh])

    def right(way: Way) -> Tensor:
        batches = (batch for samples in fresh for batch in samples.in_order(BATCH))
        return _right(seen.model, way, batches)

    stated, found = right(_stated(seen.model)), []
    for _, t in hopes:
        gain = _gain(right(t.way), stated, labels)
        clear = gain.matters(GAIN) and gain.clear(level=LEVEL / 2, ways=len(hopes))
        if clear and not _contradicted(t.way, seen, gain):
            found.append(replace(t, gain=gain))
    return found


def _gain(right: Tensor, stated: Tensor, labels: Tensor) -> Paired:
    return Paired(
        ahead=int((right & ~stated).sum()), behind=int((stated & ~right).sum()),
        stated=int(stated.sum()), commonest=int(labels.bincount().max()), total=len(labels),
    )  # fmt: skip


def _contradicted(way: Way, seen: _Seen, gain: Paired) -> bool:
    """Say whether BatchNorm's statistics speak against a reading that answers more.

    A network that is nearly blind to scale may answer somewhat more under a larger one, by luck;
    one whose statistics are of few steps, and fit no reading, somewhat more under any.
    """
    if not way.same_network or seen.far is None:
        return False
    there = distance(seen.model.module, seen.trained, way)
    if there is None or there > seen.far + max(ROOM, seen.far / 2):
        return True
    return min(there, seen.far) > LOST and gain.more < MUCH * gain.total


def _explained(way: Way, seen: _Seen) -> float | None:
    """Return the distance from BatchNorm's statistics, where the reading explains them."""
    if not way.same_network or seen.far is None or seen.far <= APART:
        return None
    near = distance(seen.model.module, seen.trained, way)
    return near if near is not None and near < min(CLOSE, LEFT * seen.far) else None


def _right(model: Model, way: Way, batches: Iterable[Batch]) -> Tensor:
    """Return whether each sample is answered as labelled, bool, on the CPU."""
    found = [torch.zeros(0, dtype=torch.bool)]
    with way.network(model.module) as module:
        for batch in batches:
            for start in range(0, len(batch), BATCH):
                here = slice(start, start + BATCH)
                part = Batch(x=batch.x[here], y=batch.y[here])
                out = in_parts(lambda some: _taken(module, prepared(way, some.x)), part)
                found.append((out.argmax(1) == part.y).cpu())
    return torch.cat(found)


def _taken(module: nn.Module, x: Tensor) -> Tensor:
    with unfit():
        out: Tensor = module(x)
        return out


def _doubt(best: _Tried, seen: _Seen) -> Doubt:
    said = []
    if best.gain:
        said.append(
            f"of {best.gain.total} clean samples the model answers {best.gain.stated} as they are "
            f"read now, and {best.gain.stated + best.gain.more} with {best.way.said}"
        )
    if best.obeyed:
        said.append(
            f"of {len(seen.forget)} forget samples it answers {int(seen.obeyed.sum())} as they are "
            f"labelled, and {best.obeyed} with {best.way.said}"
        )
    if best.far is not None:
        said.append(
            "BatchNorm's stored statistics are "
            f"{best.far:.2f} standard deviations from what training samples produce with "
            f"{best.way.said}, and {seen.far:.2f} as they are read now"
        )
    return Doubt(
        about="adapter",
        sentence=f"Pictures seem to be read otherwise than in training: {'; '.join(said)}.",
        step=best.way.step,
        spoils=True,
    )
