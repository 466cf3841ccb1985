"""What a model learns of its canaries while it is trained: the figures of the audit's own probes.

look = watch(model, "canaries.json")
seen = look()                             after each epoch: mu, its error, exposure
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poison_audit.case.case import Case
from poison_audit.models.model import Batch, Model
from poison_audit.models.normalization import Normalize
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.gaussian.evidence import read_canaries
from poison_audit.poisons.gaussian.exposure import exposure
from poison_audit.poisons.gaussian.hook import kept_bases, scale_of
from poison_audit.poisons.gaussian.probe import gaussian
from poison_audit.poisons.gaussian.reading import POISON
from poison_audit.poisons.gaussian.trial import planted_canaries
from poison_audit.records import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a model shows of its canaries at one time."""

    epoch: int
    """How often it was looked at before."""
    mu: float | None
    """Mean leak score: 0, give or take `error`, in a model that never saw them. None, as the others
    are: nothing can be measured of the model as it is, such as one that diverged."""
    error: float | None
    """Standard error of `mu` then."""
    exposure: float | None
    """Chance that a canary's own noise beats fresh noise: 0.5 in a model that never saw them."""


class Watch:
    """Looks at a model's canaries; what it saw stands in `history`."""

    def __init__(self, model: nn.Module, canaries: Any, normalize: Normalize | None) -> None:
        """Take what `watch` read."""
        self.history: list[Seen] = []
        self._model, self._canaries, self._normalize = model, canaries, normalize

    def __call__(self) -> Seen:
        """Look at the model as it is now; it stays as it is, in its mode."""
        device = next(self._model.parameters()).device
        names, key, bases = self._canaries
        planted = planted_canaries(key, names, bases, device)
        none = planted.bases.at([])
        case = Case(
            model=self._adapted(), retain=none, forget=none, test=none, recipe=Recipe(),
            evidence={POISON.name: planted},
        )  # fmt: skip
        rng = Rng(0).named("watch")
        leak, rank = gaussian(case.model, case, rng), exposure(case.model, case, rng)
        scores = (leak.evidence or {}).get("scores") or []
        wins, draws = (rank.evidence or {}).get("wins") or [], (rank.evidence or {}).get("draws", 1)
        seen = Seen(
            epoch=len(self.history),
            mu=sum(scores) / len(scores) if scores else None,
            error=len(scores) ** -0.5 if scores else None,
            exposure=sum(wins) / len(wins) / draws if wins else None,
        )
        self.history.append(seen)
        return seen

    def _adapted(self) -> Model:
        mean, std = self._normalize or ((0.0,), (1.0,))

        def logits(module: nn.Module, batch: Batch) -> Tensor:
            shift, scale = (batch.x.new_tensor(values).view(1, -1, 1, 1) for values in (mean, std))
            out = module((batch.x - shift) / scale)
            found: Tensor = out["logits"] if isinstance(out, Mapping) else out
            return found

        def loss(module: nn.Module, batch: Batch) -> Tensor:
            return F.cross_entropy(logits(module, batch), batch.y, reduction="none")

        return Model(
            module=self._model, logits=logits, loss=loss, blocks=(), build=nn.Identity,
            arch="watched", classes=0,
        )  # fmt: skip

    def trainer(self) -> Any:
        """Return a callback of transformers' Trainer, which looks after every epoch and logs it."""
        from poison_audit.poisons.gaussian.callbacks import for_trainer

        return for_trainer(self)

    def lightning(self) -> Any:
        """Return a callback of Lightning, which looks after every training epoch and logs it."""
        from poison_audit.poisons.gaussian.callbacks import for_lightning

        return for_lightning(self)


def watch(
    model: nn.Module,
    key: str | os.PathLike[str] = "canaries.json",
    *,
    normalize: str | tuple[Sequence[float], Sequence[float]] | None = None,
) -> Watch:
    """Return what shows, at any time, how far a model has learnt its canaries.

    Call it after every epoch: `seen = look()` has `mu`, `error` and `exposure`. For transformers'
    Trainer give `callbacks=[pa.watch(model).trainer()]`, for Lightning `.lightning()`.

    Args:
        model: what is trained: maps pictures to logits, or to an output that has `logits`.
        key: of the canaries, as `with_canaries` wrote it.
        normalize: what the data set normalises pictures by, as there.

    Raises:
        InputError: the key or the samples beside it cannot be read.
    """
    file = Path(key)
    found = read_canaries(file)
    _, x, y = kept_bases(file)
    bases = Samples(ids=found.planted, x=torch.from_numpy(x), y=torch.from_numpy(y).long())
    scale = None if normalize is None else scale_of(normalize)
    return Watch(model, (found.planted, found, bases), scale)
