"""How a model is evaluated: eval mode, one pass a batch; for probes in full precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poison_audit.models.memory import in_parts, lacking
from poison_audit.models.model import Batch, Logits, Model, evaluating
from poison_audit.models.samples import Samples
from poison_audit.training.kernels import reproducible


@contextmanager
def exact(module: nn.Module) -> Iterator[nn.Module]:
    """Evaluate in eval mode, in an order that is fixed, without autocast and TensorFloat-32.

    Whatever says that memory gave out arrives as torch.OutOfMemoryError.
    """
    with (
        evaluating(module),
        torch.autocast(next(module.parameters()).device.type, enabled=False),
        reproducible(),
        lacking(),
    ):
        yield module


def input_gradients(model: Model, samples: Samples, *, size: int = 256) -> Tensor:
    """Return the gradient of each sample's loss with respect to its input, shape of the input.

    For texts that is (n, length, width) with the samples' own length, zero where there is no token.
    A sum over the batch has every sample's own gradient in one backward, since in eval mode no
    sample's loss depends on another's input.
    """
    gradients = []
    with exact(model.module) as module:
        for batch in samples.in_order(size):
            gradient = in_parts(lambda part: _input_gradient(model, module, part), batch)
            if samples.mask is not None:  # a batch is as long as its longest text
                beyond = samples.mask.shape[1] - gradient.shape[1]
                gradient = F.pad(gradient, (0, 0, 0, beyond))
            gradients.append(gradient)
    return torch.cat(gradients)


def _input_gradient(model: Model, module: nn.Module, batch: Batch) -> Tensor:
    inputs = model.inputs(module, batch)
    x = inputs.x.detach().requires_grad_(True)
    out = model.logits(module, replace(inputs, x=x))
    # In float32 a confident softmax rounds 1 - p to nothing: the loss is taken in float64.
    loss = F.cross_entropy(out.double(), inputs.y, reduction="sum")
    return torch.autograd.grad(loss, x)[0]


@torch.no_grad()
def margins(model: Model, batch: Batch) -> Tensor:
    """Return each sample's logit margin, true label over best other, float64, (n,).

    Call inside `exact`. The cross-entropy of a fitted sample saturates and ties; the margin
    does not.
    """
    # (n, classes)
    out = in_parts(lambda part: model.logits(model.module, part), batch).double()
    true = out.gather(1, batch.y[:, None])
    rest = out.scatter(1, batch.y[:, None], -torch.inf)
    return true.squeeze(1) - rest.amax(1)


@torch.no_grad()
def logits(model: Model, samples: Samples, *, size: int = 256) -> Tensor:
    """Return the logits of every sample in eval mode, in order: (n, classes)."""
    return _each(model, model.logits, samples, size)


@torch.no_grad()
def losses(model: Model, samples: Samples, *, size: int = 256) -> Tensor:
    """Return the loss of every sample in eval mode, in order: (n,)."""
    return _each(model, model.loss, samples, size)


def _each(model: Model, ask: Logits, samples: Samples, size: int) -> Tensor:
    with exact(model.module) as module:
        batches = samples.in_order(size)
        return torch.cat([in_parts(lambda part: ask(module, part), batch) for batch in batches])


def correct(model: Model, samples: Samples, *, size: int = 256) -> Tensor:
    """Return whether each sample is classified as labelled: bool, (n,)."""
    return logits(model, samples, size=size).argmax(1) == samples.y
