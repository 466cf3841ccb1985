"""BatchNorm's statistics computed anew from given samples: forward passes only.

Each layer normalises by the batch while the pass lasts, and is left the pooled mean and variance of
all that it was given, in float64:

    M = sum_b n_b m_b / N        V = (sum_b n_b (v_b + m_b^2) / N - M^2) N / (N - 1)

with n_b values a channel, mean m_b and biased variance v_b in batch b. One pass suffices. In the
first layers that is exactly the mean and the unbiased variance over all samples; a later layer is
given what batches of some 256 made of the earlier ones, as in training, and not what the new
statistics would make of them. (Exact is one pass a layer. PyTorch's cumulative average, momentum
None, takes the mean of the v_b and so leaves out how the batches differ.)

No parameter changes, and nothing else of the network: it stays in eval mode, without dropout.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from poison_audit.errors import DivergedError
from poison_audit.models.memory import release
from poison_audit.models.model import Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.training.ledger import FORWARD, Ledger
from poison_audit.training.scoring import exact

BATCH = 256
"""Samples a batch, at most: all batches are of nearly the same size."""


def norm_layers(module: nn.Module) -> dict[str, _BatchNorm]:
    """Return the BatchNorm layers that store statistics, by name."""
    return {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, _BatchNorm) and part.running_mean is not None
    }


def recalibrated(model: Model, samples: Samples, *, ledger: Ledger | None = None) -> Model:
    """Return a clone whose BatchNorm statistics are those of these samples.

    The same samples give the same bits. A model without BatchNorm is returned as a clone with the
    same weights, and nothing is charged.

    Args:
        model: stays as it is.
        samples: in any order, which may be by class: batches are drawn from all of them.
        ledger: charged a forward pass a sample.

    Raises:
        DivergedError: statistics are not finite.
        ValueError: there are no samples.
        torch.OutOfMemoryError: memory does not hold a batch of two samples.
    """
    made = model.clone()
    layers = norm_layers(made.module)
    if not layers:
        return made
    if len(samples) == 0:
        raise ValueError("statistics need samples")
    if ledger is not None:
        ledger.charge(FORWARD * len(samples))
    # A fixed order that owes nothing to the table's, where neighbours may be of one class.
    order = torch.from_numpy(Rng(0).named("recalibrate").numpy().permutation(len(samples)))
    size = min(BATCH, len(samples))
    while True:
        try:
            sums = _passed(made, layers, samples, order, size)
            break
        except torch.OutOfMemoryError:
            if size <= 2:
                raise
        size //= 2
        release()
    for name, layer in layers.items():
        if name in sums:  # one that the forward pass leaves out keeps what it has
            _keep(layer, *sums[name], name)
    return made


_Sums = dict[str, tuple[int, Tensor, Tensor]]
"""By layer: values a channel, their sums and the sums of their squares, float64."""


@torch.no_grad()
def _passed(
    model: Model, layers: dict[str, _BatchNorm], samples: Samples, order: Tensor, size: int
) -> _Sums:
    sums: _Sums = {}
    before = {name: _stored(layer) for name, layer in layers.items()}
    try:
        with exact(model.module) as module, _normalising_by_batch(layers, sums):
            for part in order.tensor_split(-(-len(order) // size)):
                model.logits(module, samples.batch(part))
    finally:
        for name, layer in layers.items():
            _store(layer, *before[name])
    return sums


@contextmanager
def _normalising_by_batch(layers: dict[str, _BatchNorm], sums: _Sums) -> Iterator[None]:
    def look(name: str, layer: _BatchNorm, inputs: tuple[Tensor, ...]) -> None:
        flat = inputs[0].transpose(0, 1).flatten(1).double()  # (channels, values)
        n, mean = flat.shape[1], flat.mean(1)
        var = flat.var(1, correction=0)
        count, total, squares = sums.get(name, (0, torch.zeros_like(mean), torch.zeros_like(mean)))
        sums[name] = (count + n, total + n * mean, squares + n * (var + mean.square()))
        _store(layer, mean, var)

    # In eval mode a layer normalises by what it stores. So it does by the batch, whatever its kind.
    handles = [
        layer.register_forward_pre_hook(lambda part, given, name=name: look(name, part, given))
        for name, layer in layers.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _keep(layer: _BatchNorm, count: int, total: Tensor, squares: Tensor, name: str) -> None:
    mean = total / count
    var = (squares / count - mean.square()).clamp(min=0) * (count / max(1, count - 1))
    if not bool(torch.isfinite(mean).all() and torch.isfinite(var).all()):
        raise DivergedError(f"the statistics of {name or 'the network'} are not finite")
    _store(layer, mean, var)


def _stored(layer: _BatchNorm) -> tuple[Tensor, Tensor]:
    if layer.running_mean is None or layer.running_var is None:
        raise ValueError("the layer stores no statistics")
    return layer.running_mean.clone(), layer.running_var.clone()


@torch.no_grad()
def _store(layer: _BatchNorm, mean: Tensor, var: Tensor) -> None:
    if layer.running_mean is not None and layer.running_var is not None:
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(var)
