"""Sums over samples of something that is not linear in each sample's own gradient.

One sample at a time is right for every network, and slow for small ones. Where all parameters
stand in layers whose gradients have a closed form, several samples are taken at once: one backward
pass for what reaches each layer, and from that and the layer's input every sample's own gradient, a
layer after another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poison_audit.models.memory import lacking, release
from poison_audit.models.model import Batch, Model
from poison_audit.models.samples import Samples

Score = Callable[[nn.Module, Batch], Tensor]
"""(module, batch) -> the sum over samples of what is differentiated; in eval mode each sample's
part of it depends on that sample alone."""
Change = Callable[[Tensor], Tensor]
"""Of each element of a gradient, such as its square."""

FEWEST, MOST, LARGEST = 4, 32, 1 << 20
"""Samples at once, and elements of their gradients of one layer: 4 MiB, which caches hold. Networks
with larger layers are no slower one sample at a time."""


def sums_over_samples(
    model: Model, samples: Samples, score: Score, change: Change
) -> dict[str, Tensor]:
    """Return the sum over samples of `change` of the gradient of `score`, by parameter name.

    Call in eval mode. The model's weights stay as they are.

    Args:
        samples: not empty.
    """
    module = model.module
    named = dict(module.named_parameters())
    sums = {name: torch.zeros_like(parameter) for name, parameter in named.items()}
    layers = _layers(module)
    size = min(MOST, LARGEST // max(parameter.numel() for parameter in named.values()))
    start = 0
    if layers is not None and samples.mask is None:
        while size >= FEWEST and start < len(samples):
            batch = samples.batch(slice(start, start + size))
            together: bool | None = None
            with suppress(torch.OutOfMemoryError), lacking():
                together = _add_together(module, layers, batch, score, change, sums)
            if together is None:
                size //= 2
                release()
            elif together:
                start += len(batch)
            else:
                break
    for place in range(start, len(samples)):
        total = score(module, samples.batch(slice(place, place + 1)))
        gradients = torch.autograd.grad(total, list(named.values()), materialize_grads=True)
        for kept, gradient in zip(sums.values(), gradients, strict=True):
            kept += change(gradient)
    return sums


def _layers(module: nn.Module) -> dict[str, nn.Module] | None:
    """Return the layers that hold all parameters; None: one has no closed form, or is shared."""
    found, held = {}, 0
    for name, part in module.named_modules():
        own = list(part.parameters(recurse=False))
        held += len(own)
        if own and not _known(part):
            return None
        if own:
            found[name] = part
    return found if held == len(list(module.parameters())) else None


def _known(part: nn.Module) -> bool:
    if type(part) is nn.Conv2d:
        own = part.groups == 1 and part.padding_mode == "zeros"
        return own and not isinstance(part.padding, str)  # `same` and `valid` are told by a word
    if type(part) is nn.BatchNorm2d:
        return part.track_running_stats and not part.training
    return type(part) is nn.Linear


def _add_together(
    module: nn.Module, layers: dict[str, nn.Module], batch: Batch, score: Score, change: Change,
    sums: dict[str, Tensor],
) -> bool:  # fmt: skip
    """Add a batch's part to `sums`; False, and nothing is added, if a layer is not asked once."""
    with _watching(layers) as seen:
        total = score(module, batch)
    if any(len(seen[name]) != 1 for name in layers):
        return False
    pairs = [seen[name][0] for name in layers]
    if any(x.shape[0] != len(batch) or (x.ndim != 2 and out.ndim == 2) for x, out in pairs):
        return False
    reached = torch.autograd.grad(total, [out for _, out in pairs], materialize_grads=True)
    # All before anything is added: memory may give out halfway.
    with torch.no_grad():
        parts = {
            f"{name}.{own}".removeprefix("."): change(each).sum(0)
            for (name, layer), (x, _), gradient in zip(layers.items(), pairs, reached, strict=True)
            for own, each in _own_gradients(layer, x, gradient)
        }
        for name, part in parts.items():
            sums[name] += part
    return True


@contextmanager
def _watching(layers: dict[str, nn.Module]) -> Iterator[dict[str, list[tuple[Tensor, Tensor]]]]:
    """Give what each layer is handed and returns while it lasts."""
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in layers}

    def keep(name: str, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
        seen[name].append((given[0].detach(), out))
        return out.clone()  # an activation that works in place would change what was returned

    handles = [
        layer.register_forward_hook(lambda _, given, out, name=name: keep(name, given, out))
        for name, layer in layers.items()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _own_gradients(layer: nn.Module, x: Tensor, reached: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield each parameter of a layer with its gradient at every sample, (n, *its shape).

    Args:
        x: what the layer is given, (n, ...).
        reached: the gradient by what it returns, (n, ...).
    """
    n = len(x)
    if isinstance(layer, nn.Conv2d):
        padding: Any = layer.padding
        settings = (layer.kernel_size, layer.dilation, padding, layer.stride)
        patches = F.unfold(x, *settings)  # (n, channels * kernel, places)
        flat = reached.reshape(n, layer.out_channels, -1)  # (n, out, places)
        yield "weight", torch.bmm(flat, patches.transpose(1, 2)).view(n, *layer.weight.shape)
        if layer.bias is not None:
            yield "bias", flat.sum(2)
    elif isinstance(layer, nn.BatchNorm2d):
        if layer.running_mean is None or layer.running_var is None:
            raise ValueError("the layer stores no statistics")
        mean, scale = layer.running_mean, (layer.running_var + layer.eps).rsqrt()
        normal = (x - mean[:, None, None]) * scale[:, None, None]
        yield "weight", (reached * normal).sum((2, 3))
        yield "bias", reached.sum((2, 3))
    elif isinstance(layer, nn.Linear):
        flat, given = reached.reshape(n, -1, layer.out_features), x.reshape(n, -1, x.shape[-1])
        yield "weight", torch.bmm(flat.transpose(1, 2), given)
        if layer.bias is not None:
            yield "bias", flat.sum(1)
