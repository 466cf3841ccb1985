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

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from poison_audit.case.case import Case
from poison_audit.errors import DivergedError
from poison_audit.models.model import Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.training.batches import subsample
from poison_audit.training.each_sample import sums_over_samples
from poison_audit.training.ledger import Ledger
from poison_audit.training.scoring import exact


def ssd(
    model: Model, case: Case, rng: Rng, *, ledger: Ledger, alpha: float = 10.0, lam: float = 1.0
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
    forget = subsample(case.forget, min(round(share * fits), fits - 1), rng.named("forget"))
    retain = subsample(case.retain, fits - len(forget), rng.named("retain"))
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


def ssd_idle(params: Mapping[str, Any], train: int, forget: int) -> str | None:
    """Say why an alpha selects no weight: an importance ratio is at most |train| / |forget|."""
    most = train / forget
    if params["alpha"] < most:
        return None
    return (
        f"ssd selects weights {params['alpha']:g} times as important to the forget samples as to "
        f"the training set, which holds for none: with this forget set the ratio is at most "
        f"{most:.2g}. --set ssd.alpha=N below that lets it act."
    )


def fisher_diagonal(model: Model, samples: Samples) -> dict[str, Tensor]:
    """Return the mean over samples of the squared gradient of the loss, by parameter name.

    It costs one gradient evaluation a sample.

    In eval mode, the gradient of each sample for itself.

    Args:
        model: its weights stay as they are.
        samples: not empty.

    Raises:
        DivergedError: an importance is not finite.
    """
    with exact(model.module):
        sums = sums_over_samples(
            model, samples, lambda module, batch: model.loss(module, batch).sum(), torch.square
        )
    for name, total in sums.items():
        total /= len(samples)
        if not bool(torch.isfinite(total).all()):
            raise DivergedError(f"the importance of {name} is not finite")
    return sums
