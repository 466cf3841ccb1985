"""How a model is evaluated: eval mode, one pass a batch; for probes in full precision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poison_audit.models.folding import folded
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


def input_gradients(model: Model, samples: Samples, *, size: int | None = None) -> Tensor:
    """Return the gradient of each sample's loss with respect to its input, shape of the input.

    For texts that is (n, length, width) with the samples' own length, zero where there is no token.
    A sum over the batch has every sample's own gradient in one backward, since in eval mode no
    sample's loss depends on another's input.
    """
    gradients = []
    order, places = _in_batches(samples, size)
    with exact(model.module) as module:
        for place in places:
            batch = samples.batch(place)
            gradient = in_parts(lambda part: _input_gradient(model, module, part), batch)
            if samples.mask is not None:  # a batch is as long as its longest text
                beyond = samples.mask.shape[1] - gradient.shape[1]
                gradient = F.pad(gradient, (0, 0, 0, beyond))
            gradients.append(gradient)
    return torch.cat(gradients)[order]


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
    size = _at_once(batch.x.device)
    parts = [batch.part(slice(i, i + size)) for i in range(0, len(batch), size)]
    answers = [in_parts(lambda part: model.logits(model.module, part), part) for part in parts]
    out = torch.cat(answers).double()
    true = out.gather(1, batch.y[:, None])
    rest = out.scatter(1, batch.y[:, None], -torch.inf)
    return true.squeeze(1) - rest.amax(1)


@torch.no_grad()
def logits(model: Model, samples: Samples, *, size: int | None = None) -> Tensor:
    """Return the logits of every sample in eval mode, in order: (n, classes)."""
    return _each(model, model.logits, samples, size)


def answers(model: Model, samples: Samples) -> list[int] | None:
    """Return the class that each sample is given; None: a logit is not finite."""
    out = logits(model, samples)
    return out.argmax(1).tolist() if bool(torch.isfinite(out).all()) else None


@torch.no_grad()
def losses(model: Model, samples: Samples, *, size: int | None = None) -> Tensor:
    """Return the loss of every sample in eval mode, in order: (n,)."""
    return _each(model, model.loss, samples, size)


def _each(model: Model, ask: Logits, samples: Samples, size: int | None) -> Tensor:
    order, places = _in_batches(samples, size)
    rows = []
    with exact(model.module):
        # To fold costs about as much as it saves of one batch.
        quick = folded(model).module if len(places) > 2 else model.module
        for place in places:
            rows.append(in_parts(lambda part: ask(quick, part), samples.batch(place)))
    return torch.cat(rows)[order]


def _in_batches(
    samples: Samples, size: int | None
) -> tuple[Tensor | slice, Sequence[Tensor | slice]]:
    """Return which samples go together, and where each of all stands among them.

    Texts go by their lengths, since a batch is padded to its longest.
    """
    n, size = len(samples), size or _at_once(samples.y.device)
    if samples.mask is None:
        return slice(None), [slice(start, start + size) for start in range(0, n, size)]
    together = samples.mask.sum(1).argsort(stable=True)
    order = torch.empty_like(together)
    order[together] = torch.arange(n)
    return order.to(samples.y.device), torch.split(together, size)


def _at_once(device: torch.device) -> int:
    # On a CPU the activations of more do not fit into its caches; a GPU would wait for work.
    return 64 if device.type == "cpu" else 256


def correct(model: Model, samples: Samples, *, size: int | None = None) -> Tensor:
    """Return whether each sample is classified as labelled: bool, (n,)."""
    return logits(model, samples, size=size).argmax(1) == samples.y
