"""What a model's last linear layer sees of each sample."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from poison_audit.models.memory import in_parts
from poison_audit.models.model import Batch, Model
from poison_audit.models.samples import Samples
from poison_audit.training.scoring import exact

CLOSE = 1e-4
"""Largest difference between the layer's output and the model's logits, relative to the largest."""


def head_of(model: Model) -> nn.Linear | None:
    """Return the last `nn.Linear`, if it has a row a class and shares its weights with no other."""
    layers = [part for part in model.module.modules() if isinstance(part, nn.Linear)]
    if not layers or layers[-1].out_features != model.classes:
        return None
    head = layers[-1]
    holders = (p for m in model.module.modules() for p in m.parameters(recurse=False))
    return head if sum(each is head.weight for each in holders) == 1 else None


@torch.no_grad()
def penultimate(model: Model, samples: Samples, *, size: int = 256) -> Tensor | None:
    """Return the input of the last `nn.Linear` at every sample, in eval mode: float64, (n, d).

    None where it cannot be found: there is no such layer, it is called twice or on something that
    is not one row a sample, or its output is not the model's logits to a relative 1e-4.
    """
    layers = [part for part in model.module.modules() if isinstance(part, nn.Linear)]
    if not layers or layers[-1].out_features != model.classes:
        return None
    batches, features = samples.in_order(size), partial(_features, model, layers[-1])
    try:
        return torch.cat([in_parts(features, batch) for batch in batches])
    except _NotFoundError:
        return None


class _NotFoundError(Exception):
    """The layer's input is not one row a sample, or its output is not the logits."""


def _features(model: Model, head: nn.Linear, batch: Batch) -> Tensor:
    seen: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    try:
        with exact(model.module) as module:
            out = model.logits(module, batch)
    finally:
        hook.remove()
    # A decoder's head is given every token; it answers at the last, which is proved.
    rows = [part[:, -1] if part.ndim == 3 else part for part in seen]
    if [part.shape[:-1] for part in rows] != [(len(batch),)]:
        raise _NotFoundError
    x, own = rows[0], nn.functional.linear(rows[0], head.weight, head.bias)
    # Written so that a value that is not finite counts as close: it is reported as what it is.
    if own.shape != out.shape or bool((own - out).abs().max() > CLOSE * out.abs().max()):
        raise _NotFoundError
    # Apple's devices have no float64.
    return (x.cpu() if x.device.type == "mps" else x).double()
