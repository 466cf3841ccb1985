"""Whether a reference is a training of its own: what only looks like another model is none.

Two networks that were trained for themselves end far apart, even on the same samples: between the
references of the fixtures, weights differ by about as much as they are long, and logits by 0.4 of
their size. A copy whose weights were moved by a thousandth answers all but the same, and would be
as good, or as bad, as the model that it is to judge.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from poison_audit.models.memory import in_parts
from poison_audit.models.model import Model, evaluating
from poison_audit.models.samples import Samples

ASKED = 32
"""Test samples that are asked."""
MOVED = 0.01
"""Largest change of any tensor, relative to it, that leaves a model the same."""
CLOSE = 0.02
"""Largest difference of a logit, relative to their root mean square, that is no difference."""
SHARE = 0.6
"""Share of all logits that are so in a copy; linear models without five of 700 samples: 0.45."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What is kept of a model, so that others can be compared with it."""

    name: str
    digest: str
    logits: Tensor | None
    """Of the samples that are asked, each sample's about their mean: float64, (n, classes)."""


def sight(name: str, model: Model, samples: Samples | None) -> Sight:
    """Ask a model the samples; None: nothing can be asked, and only weights are compared."""
    return Sight(
        name=name, digest=model.digest(), logits=None if samples is None else _asked(model, samples)
    )


def answer_alike(one: Sight, other: Sight) -> bool:
    """Say whether so many logits are equal that this is one training, not two.

    Equal entries are counted, rather than a distance taken, so that a copy of which a few outputs
    or answers were exchanged is a copy still.
    """
    if one.digest == other.digest:
        return True
    if one.logits is None or other.logits is None:
        return False
    size = float(one.logits.square().mean().sqrt())
    near = (one.logits - other.logits).abs() <= CLOSE * size
    return size > 0 and float(near.double().mean()) >= SHARE


def hardly_moved(one: Model, other: Model) -> bool:
    """Say whether no tensor of one model differs from the other's by more than a trace."""
    return all(change <= MOVED for change in _changes(one, other))


def _changes(one: Model, other: Model) -> Iterator[float]:
    theirs = other.module.state_dict()
    for name, mine in one.module.state_dict().items():
        if mine.is_floating_point():
            a, b = mine.detach().float(), theirs[name].detach().to(mine.device).float()
            size = max(float(a.norm()), float(b.norm()))
            yield float((a - b).norm()) / size if size > 0 else 0.0


@torch.no_grad()
def _asked(model: Model, samples: Samples) -> Tensor | None:
    batch = samples.at(torch.arange(min(ASKED, len(samples)))).batch().to(model.device)
    with evaluating(model.module) as module:
        out = in_parts(lambda part: model.logits(module, part), batch).double().cpu()
    if not bool(torch.isfinite(out).all()):
        return None
    return out - out.mean(1, keepdim=True)
