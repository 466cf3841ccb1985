"""Many small networks that are trained at once: what a clean model does by luck, in seconds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poison_audit.models.image import image_classifier
from poison_audit.models.model import Model
from poison_audit.models.samples import Samples, as_pixels
from poison_audit.models.seeds import Rng

HIDDEN, EDGE = 32, 8


def train_many(
    tables: Sequence[Samples], rng: Rng, *, epochs: int, classes: int = 10, lr: float = 0.1
) -> list[Model]:
    """Train one network on each of some tables of pictures, all at once, each with its own luck.

    A network has one hidden layer of 32 on pictures of 8 x 8. SGD in batches of 64 with momentum
    0.9 and a linear schedule; initial weights and orders are its own. Larger tables take longer.
    """
    count, longest = len(tables), max(map(len, tables))
    small = {id(table): (_small(as_pixels(table.x).float()), table.y) for table in tables}
    parts = [small[id(table)] for table in tables]
    draws = rng.named("weights").torch()
    shapes = [(EDGE * EDGE, HIDDEN), (1, HIDDEN), (HIDDEN, classes), (1, classes)]
    weights = [
        torch.randn(count, *shape, generator=draws) * (0 if shape[0] == 1 else shape[0] ** -0.5)
        for shape in shapes
    ]
    speed = [torch.zeros_like(weight) for weight in weights]
    orders = rng.named("orders").torch()
    steps = epochs * -(-longest // 64)
    places: list[Tensor] = [torch.empty(0, dtype=torch.int64)] * count
    for step in range(steps):
        for net, (x, _) in enumerate(parts):
            if len(places[net]) < 64:
                places[net] = torch.randperm(len(x), generator=orders)
        x = torch.stack([part[0][p[:64]] for part, p in zip(parts, places, strict=True)])
        y = torch.stack([part[1][p[:64]] for part, p in zip(parts, places, strict=True)])
        places = [p[64:] for p in places]
        for weight in weights:
            weight.requires_grad_()
        loss = F.cross_entropy(_forward(x, weights).flatten(0, 1), y.flatten(), reduction="sum")
        gradients = torch.autograd.grad(loss / 64, weights)
        with torch.no_grad():
            for weight, moved, gradient in zip(weights, speed, gradients, strict=True):
                moved.mul_(0.9).add_(gradient)
                weight.sub_(moved, alpha=lr * (1 - step / steps))
    return [_model([weight.detach()[net] for weight in weights], classes) for net in range(count)]


def _forward(x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    first, bias, second, shift = weights
    return F.relu(x @ first + bias) @ second + shift


def _small(x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(x, EDGE).mean(1).flatten(1) - 0.3


class Small(nn.Module):
    """One of them."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        """Take its weights."""
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(weight.clone()) for weight in weights])

    def forward(self, x: Tensor) -> Tensor:
        """Return logits: (n, classes)."""
        return _forward(_small(x), list(self.weights))


def _model(weights: Sequence[Tensor], classes: int) -> Model:
    module = Small(weights)
    module.eval()
    return image_classifier(module, build=lambda: module, arch="small", classes=classes)
