"""Samples that say who they are, and a small net with every kind of layer."""

import torch
from torch import nn
from torch.nn import functional as F

from poison_audit.models.model import Model, blocks_of
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng

RNG = Rng(4)


def samples(n, *, x=None):
    """Return samples whose label is their number, so that a batch says who is in it."""
    x = torch.zeros(n, 1, 2, 2) if x is None else x
    return Samples(ids=tuple(map(str, range(n))), x=x, y=torch.arange(n))


def model_of(module, loss=None):
    return Model(
        module=module.eval(),
        logits=lambda module, batch: module(batch.x),
        loss=loss or (lambda module, batch: F.cross_entropy(module(batch.x), batch.y % 3)[None]),
        blocks=blocks_of(module),
        build=lambda: module,
        arch="test",
        classes=3,
    )


def layered():
    """A net with, in each half, a layer, BatchNorm with and without parameters, and dropout."""

    def half(out):
        return nn.Sequential(
            nn.Linear(4, out),
            nn.BatchNorm1d(out),
            nn.BatchNorm1d(out, affine=False),
            nn.Dropout(0.5),
        )

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return model_of(nn.Sequential(half(4), half(3)))


VECTORS = samples(10, x=torch.randn(10, 4, generator=RNG.torch()))
