"""Selective synaptic dampening (SSD): shrink the weights that matter mostly to the forget samples.

    theta_i <- theta_i * min(1, lam * D_i / F_i)   where F_i > alpha * D_i

D and F are diagonals of the empirical Fisher information, the mean over samples of the squared
gradient of the loss: D over the training set, retain and forget together, F over forget.

Source: Foster, Schoepf and Brintrup 2024, arXiv:2308.07707.

Departs from it: their published code squares the gradient of each batch's mean loss, which makes
the importances depend on the batch size; here every sample's gradient is squared. BatchNorm stays
in eval mode: its statistics are kept, its affine parameters are dampened like any other. As D
includes the forget samples, F_i / D_i is at most |train| / |forget|: an alpha at or above that
changes nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from audit.case import Case
from audit.data.samples import Samples
from audit.errors import DivergedError
from audit.models.model import Batch, Model, evaluating
from audit.seeds import Rng
from audit.training import Ledger

MOST_SAMPLES, MOST_NUMBERS = 16, 1 << 26
"""Samples whose gradients are held at once, and numbers in those gradients."""
_REFUSALS = (RuntimeError, AttributeError, TypeError, ValueError)
"""What torch.func raises of a network that it cannot follow, and of memory that gave out."""


def ssd(
    model: Model,
    case: Case,
    rng: Rng,
    *,
    ledger: Ledger,
    alpha: float = 10.0,
    lam: float = 1.0,
) -> Model:
    """Dampen the weights that are important to the forget samples.

    It costs one gradient a training sample. A smaller budget measures a random subsample of retain
    and of forget, in proportion; one of less than two gradients changes nothing.

    Args:
        alpha: how many times more important to forget than to the training set, at least 0.
        lam: strength, at least 0: the smaller, the closer to zero a selected weight gets.

    Raises:
        DivergedError: an importance is not finite.
    """
    model = model.clone()
    model.module.eval().requires_grad_(True)
    share = len(case.forget) / (len(case.retain) + len(case.forget))
    fits = ledger.steps(1.0)
    if fits < 2:
        return model
    forget = _subsample(case.forget, min(round(share * fits), fits - 1), rng.named("forget"))
    retain = _subsample(case.retain, fits - len(forget), rng.named("retain"))
    to_forget, to_retain = (
        ledger.once((name, len(part)), len(part), partial(fisher_diagonal, model, part))
        for name, part in (("forget", forget), ("retain", retain))
    )
    with torch.no_grad():
        for name, parameter in model.module.named_parameters():
            importance = to_forget[name]
            everywhere = share * importance + (1 - share) * to_retain[name]
            dampened = parameter * (lam * everywhere / importance).clamp(max=1)
            parameter.copy_(torch.where(importance > alpha * everywhere, dampened, parameter))
    return model


def fisher_diagonal(model: Model, samples: Samples) -> dict[str, Tensor]:
    """Return the mean over samples of the squared gradient of the loss, by parameter name.

    It costs one gradient evaluation a sample. In eval mode; of small networks of pictures several
    samples at once, of others one by one.

    Args:
        model: its weights stay as they are.
        samples: not empty.

    Raises:
        DivergedError: an importance is not finite.
    """
    named = dict(model.module.named_parameters())
    together = 1 if model.reader else MOST_NUMBERS // sum(p.numel() for p in named.values())
    together = max(1, min(together, MOST_SAMPLES))
    sums = {name: torch.zeros_like(parameter) for name, parameter in named.items()}
    with evaluating(model.module):
        for batch in samples.in_order(together):
            if together > 1:
                try:
                    _add_at_once(model, batch, sums)
                    continue
                except _REFUSALS:
                    together = 1
            # Not in the handler, whose traceback holds what was allocated.
            _add_one_by_one(model, batch, sums)
    for name, total in sums.items():
        total /= len(samples)
        if not bool(torch.isfinite(total).all()):
            raise DivergedError(f"the importance of {name} is not finite")
    return sums


def _add_one_by_one(model: Model, batch: Batch, sums: Mapping[str, Tensor]) -> None:
    """Add each sample's squared gradient to the sums."""
    parameters = list(model.module.parameters())
    for place in range(len(batch)):
        loss = model.loss(model.module, batch.part(slice(place, place + 1))).sum()
        gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
        for total, gradient in zip(sums.values(), gradients, strict=True):
            total.addcmul_(gradient, gradient)


def _add_at_once(model: Model, batch: Batch, sums: Mapping[str, Tensor]) -> None:
    """Do the same by torch.func, all of it or nothing; pictures only."""
    named = {name: p.detach() for name, p in model.module.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        def network(*inputs: Tensor) -> Any:
            return functional_call(model.module, parameters, inputs)

        one = Batch(x=x[None], y=y[None])
        return model.loss(cast("nn.Module", network), one).sum()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.func tells which operation it is slow at
        each = vmap(grad(loss), in_dims=(None, 0, 0))(named, batch.x, batch.y)
    squares = {name: gradient.square().sum(0) for name, gradient in each.items()}
    for name, total in sums.items():
        total += squares[name]


def _subsample(samples: Samples, n: int, rng: Rng) -> Samples:
    """Return `n` random samples, at least one and at most all."""
    if n >= len(samples):
        return samples
    n = max(1, n)
    return samples.at(torch.randperm(len(samples), generator=rng.torch())[:n])
