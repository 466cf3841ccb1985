"""Networks that end in softmax: what they answer are chances, not logits."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poison_audit.models.memory import in_parts
from poison_audit.models.model import Batch, Model, evaluating

SAID = (
    "The network ends in softmax: the logarithms of its answers are taken for its logits. If "
    "training took its answers themselves for logits, the losses here are not those it had."
)
"""What a report says of it."""
ENOUGH = 16
"""As many samples tell."""
CLOSE = 1e-3
"""How near to 1 chances add up to, in 16 bits as well."""
LEAST = torch.finfo(torch.float32).tiny
"""The smallest chance that is told from none."""


def answers_chances(model: Model, batch: Batch) -> bool:
    """Say whether a model's answers are chances: none below 0, and each sample's add up to 1.

    Logits of several samples do so only by a softmax. Those of a log-softmax are logits like any
    others: they differ from what goes into it by one number a sample, which neither the
    cross-entropy nor a margin sees.
    """
    with evaluating(model.module) as module, torch.no_grad():
        out = in_parts(lambda part: model.logits(module, part), batch).float()
    return bool((out >= 0).all() and ((out.sum(1) - 1).abs() <= CLOSE).all())


def of_chances(model: Model) -> Model:
    """Return a model of chances with their logarithms for logits.

    They are the softmax' own inputs, but for one number a sample: losses, margins and gradients are
    those of the network without it. A chance too small for a number of 32 bits has no gradient.
    """

    def logits(module: nn.Module, batch: Batch) -> Tensor:
        return model.logits(module, batch).clamp(min=LEAST).log()

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(logits(module, batch), batch.y, reduction="none")

    return replace(model, logits=logits, loss=loss)
