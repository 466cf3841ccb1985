"""Do BatchNorm's stored statistics agree with what training samples produce?

Training leaves in each BatchNorm layer the mean and the variance of what it was given, channel by
channel. The training samples, forget set and all, give the first layers nearly the same again if
they are read as training read them; read otherwise they do not, whether or not accuracy suffers.

The distance of a channel is sqrt((m - M)^2 / V + (ln(v / V) / 2)^2): m and v are the mean and the
variance that the samples produce, M and V those stored; both terms are in standard deviations. A
layer's is the mean over its channels, a network's the mean over its first layers.

**Right readings are never at 0**: other pictures than the last batches', augmentation (padded
crops take some light and contrast), another compression of the data. And where BatchNorm was frozen
while the network was trained further, its statistics are of other pictures altogether. So a
distance alone is no reason for doubt: another reading has to explain it, nearly all of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from poison_audit.checks.ways import Way, prepared
from poison_audit.models.fit import unfit
from poison_audit.models.memory import release

LAYERS = 3
"""How many are looked at, from the first: what comes later depends on more than the reading."""
APART = 0.35
"""Least distance of the stated reading that is worth explaining. Mixup, which narrows inputs to
0.82 of their deviation, looks like another normalisation from 0.22 away, padded crops like one from
0.28: nearer ones, such as those of CIFAR-10 and ImageNet, are not told apart by statistics."""
LEFT = 0.4
"""Largest share of it that may be left by the reading that explains it."""
CLOSE = 0.3
"""Farthest that it may be itself. Of right readings the farthest seen is 0.28, of a network trained
with padded crops; one whose statistics had not yet converged, after 15 steps, was at 1.5."""
DEAD = 1e-3
"""Channels of less variance, in the layer's median, are left out: rounding decides theirs."""


class _EnoughError(Exception):
    """What the layers were given is known: the rest of the network need not be computed."""


def distance(module: nn.Module, x: Tensor, way: Way) -> float | None:
    """Return how far the stored statistics are from those of pictures that are read in some way.

    Args:
        module: in eval mode.
        x: training samples in [0, 1] pixels; a half, a quarter, .. of them where memory gives out.

    Returns:
        The distance, in standard deviations; None where no layer stores statistics.

    Raises:
        UnfitError: the network does not take them.
        torch.OutOfMemoryError: memory does not hold a single sample.
    """
    while True:
        found: list[float] = []
        try:
            read = prepared(way, x)
            with torch.no_grad(), _watched(module, found), unfit(), suppress(_EnoughError):
                module(read)
            return sum(found) / len(found) if found else None
        except torch.OutOfMemoryError:
            if len(x) == 1:
                raise
        x = x[: (len(x) + 1) // 2]
        release()


@contextmanager
def _watched(module: nn.Module, found: list[float]) -> Iterator[None]:
    def look(layer: _BatchNorm, inputs: tuple[Tensor, ...]) -> None:
        if (far := _far(layer, inputs[0])) is not None:
            found.append(far)
        if len(found) == LAYERS:
            raise _EnoughError

    handles = [
        part.register_forward_pre_hook(look)
        for part in module.modules()
        if isinstance(part, _BatchNorm)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _far(layer: _BatchNorm, given: Tensor) -> float | None:
    mean, var = layer.running_mean, layer.running_var
    if mean is None or var is None:
        return None
    flat = given.double().transpose(0, 1).flatten(1)
    alive = var > DEAD * var.median()
    if not bool(alive.any()):
        return None
    stored = var.double() + layer.eps
    apart = (flat.mean(1) - mean).square() / stored
    wider = ((flat.var(1, correction=0) + layer.eps) / stored).log() / 2
    return float((apart + wider.square()).sqrt()[alive].mean())
