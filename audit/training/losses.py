"""Losses of each sample from its logits, and their means over the batches of a training step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from poison_audit.models.model import Batch, Loss, Model
from poison_audit.training.batches import joined
from poison_audit.training.sharding import Through, own_part, processes

SampleLoss = Callable[[Tensor, Batch], Tensor]
"""(logits (n, classes), batch) -> (n,): one loss a sample."""


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """Return -log p of each sample's label: (n,)."""
    return F.cross_entropy(logits, batch.y, reduction="none")


def smoothed(share: float) -> SampleLoss:
    """Return the cross-entropy against labels of which this share is spread over all classes.

    Source: Szegedy et al. 2016, arXiv:1512.00567, section 7, as torch has it.
    """

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(logits, batch.y, reduction="none", label_smoothing=share)

    return loss


def unlikelihood(logits: Tensor, batch: Batch) -> Tensor:
    """Return -log(1 - p), p the probability of each sample's label: (n,), bounded below by 0.

    To descend on it leaves the label, as to ascend on the cross-entropy does, with two differences:
    it ends where p = 0, and its gradient is largest where p = 1, where the other's has vanished.
    With one class alone there is nothing to go to: infinite.

    Source: Welleck et al. 2020, unlikelihood training, arXiv:1908.04319.
    """
    # The loss is a function of the logit's margin over all others together. From p, or from the
    # cross-entropy, it would be infinite once p rounds to 1.
    wide = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    own = wide.gather(1, batch.y[:, None])
    others = wide.scatter(1, batch.y[:, None], -torch.inf).logsumexp(1)
    return F.softplus(own.squeeze(1) - others)


def mean_losses(
    model: Model,
    batches: Sequence[Batch],
    losses: Sequence[SampleLoss] | None,
    through: Through,
    *,
    joint: bool,
) -> list[Tensor]:
    """Return the mean loss of each batch of a step.

    Args:
        model: what is trained.
        batches: of the step.
        losses: of each of them; None: the model's own.
        through: computes a function of the network that is trained.
        joint: whether the network sees all the batches as one.
    """
    if not joint or len(batches) == 1:
        own = [_of_batch(model, losses, place) for place in range(len(batches))]
        return [_mean(model, *one, through) for one in zip(own, batches, strict=True)]
    whole, sizes = joined(batches), [len(batch) for batch in batches]
    if losses is None:
        every = torch.split(through(lambda module: model.loss(module, whole)), sizes)
        return [part.mean() for part in every]
    answers = torch.split(through(lambda module: model.logits(module, whole)), sizes)
    three = zip(losses, answers, batches, strict=True)
    return [loss(answer, batch).mean() for loss, answer, batch in three]


def _of_batch(model: Model, losses: Sequence[SampleLoss] | None, place: int) -> Loss:
    """Return the loss of each sample of the batch at this place of a step."""
    if losses is None:
        return model.loss
    return lambda module, batch: losses[place](model.logits(module, batch), batch)


def _mean(model: Model, loss: Loss, batch: Batch, through: Through) -> Tensor:
    """Return the mean loss of a batch; of processes that share it, what has it as their mean."""
    if processes() == 1:
        return through(lambda module: loss(module, batch).mean())
    part, weight = own_part(batch)
    part = part.to(model.device)
    return through(lambda module: weight * loss(module, part).sum())
