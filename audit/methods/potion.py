"""Potion: SSD that needs no labels and searches for its own threshold.

    theta_i <- theta_i * min(1, D_i / F_i)   where F_i > alpha * D_i
    alpha = the percentile of F / D at 100 - ln(1 + 100 s);   s <- growth * s until it is found

D and F are mean absolute gradients of the squared l2 norm of the logits: D over the training set, F
over what is known of the poison. s begins at a twenty-fifth of the share that this is of the
training set. The search ends once forget samples are answered as labelled no more often than `left`
says, since a poison whose trigger is gone no longer gets its label.

Source: Schoepf, Foster and Brintrup 2024, arXiv:2406.09173, from its rule alone: their code is
under another licence.

Departs from it: importances are measured on at most `samples` of retain and of forget. And accuracy
is guarded, on retain samples that no verdict reads: a try that loses more of it than `lost` ends
the search, and the try before it is taken. BatchNorm stays in eval mode: its statistics are kept,
its affine parameters are dampened like any other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from poison_audit.case.case import Case
from poison_audit.errors import DivergedError
from poison_audit.models.model import Batch, Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.training.each_sample import sums_over_samples
from poison_audit.training.ledger import FORWARD, Ledger
from poison_audit.training.scoring import correct, exact

MOST_TRIES, USUAL_TRIES = 500, 50
SPREAD = 25
"""What the share that is found is divided by, for the first try."""


def potion(
    model: Model,
    case: Case,
    rng: Rng,
    *,
    ledger: Ledger,
    samples: int = 1000,
    growth: float = 1.1,
    left: float = 0.2,
    lost: float = 0.02,
) -> Model:
    """Dampen more and more weights, until forget samples lose their labels or accuracy falls.

    Each try is a forward pass over what it looks at, as far as the budget goes. Where not even one
    fits, it measures random subsamples; where those fit neither, it changes nothing.

    Args:
        samples: at most how many of retain and of forget importances are measured on, and as many
            of retain guard accuracy; at least 1.
        growth: of s from a try to the next, above 1.
        left: share of forget samples that may keep their labels, in [0, 1].
        lost: share of accuracy that may be lost, in [0, 1].

    Raises:
        DivergedError: an importance is not finite.
    """
    model = model.clone()
    model.module.eval().requires_grad_(True)
    n, m = min(samples, len(case.forget)), min(samples, len(case.retain))
    share = min(1.0, ledger.steps(1.0) / _cost(n, m))
    n, m = max(1, math.floor(share * n)), max(1, math.floor(share * m))
    if ledger.steps(_cost(n, m)) == 0:
        return model
    order = torch.randperm(len(case.retain), generator=rng.named("retain").torch())
    retain, guard = case.retain.at(order[:m]), case.retain.at(order[-m:])
    order = torch.randperm(len(case.forget), generator=rng.named("forget").torch())
    forget = case.forget.at(order[:n])
    to_forget, to_retain = (
        ledger.once((name, len(part)), len(part), partial(label_free, model, part))
        for name, part in (("forget", forget), ("retain", retain))
    )
    found = len(case.forget) / (len(case.forget) + len(case.retain))
    everywhere = {
        name: found * to_forget[name] + (1 - found) * each for name, each in to_retain.items()
    }
    ratios = torch.cat([_ratio(to_forget[name], each) for name, each in everywhere.items()])
    ratios = ratios.sort().values

    def dampened(s: float) -> Model:
        percent = max(0.0, 100 - math.log(1 + 100 * s))
        alpha = ratios[math.ceil(percent / 100 * (len(ratios) - 1))]
        trial = model.clone()
        with torch.no_grad():
            for name, parameter in trial.module.named_parameters():
                chosen = _ratio(to_forget[name], everywhere[name]) > alpha
                factor = (everywhere[name] / to_forget[name]).clamp(max=1)
                chosen = chosen.reshape(parameter.shape)
                parameter.copy_(torch.where(chosen, parameter * factor, parameter))
        return trial

    ledger.charge(FORWARD * m)
    before = float(correct(model, guard).double().mean())
    best, s = model, found / SPREAD
    for _ in range(min(MOST_TRIES, ledger.steps(FORWARD * (n + m)))):
        trial = dampened(s)
        ledger.charge(FORWARD * (n + m))
        if before - float(correct(trial, guard).double().mean()) > lost:
            break
        best, s = trial, growth * s
        if float(correct(trial, forget).double().mean()) <= left:
            break
    return best


def potion_spends(allowed: float, case: Case, params: Mapping[str, Any]) -> float:
    """Return about how many gradient evaluations it makes of those that it may."""
    most: int = params["samples"]
    n, m = min(most, len(case.forget)), min(most, len(case.retain))
    return min(allowed, _cost(n, m) + USUAL_TRIES * FORWARD * (n + m))


def _cost(n: int, m: int) -> float:
    """Return what importances, the accuracy before and one try cost."""
    return n + m + FORWARD * (m + n + m)


def _ratio(to_forget: Tensor, everywhere: Tensor) -> Tensor:
    """Return F / D, 0 where both are 0: float64, flat."""
    ratio = to_forget.double() / everywhere.double()
    return torch.nan_to_num(ratio, nan=0.0).flatten()


def label_free(model: Model, samples: Samples) -> dict[str, Tensor]:
    """Return the mean over samples of |d |logits|^2 / d theta|, by parameter name.

    It costs one gradient evaluation a sample. In eval mode.

    Raises:
        DivergedError: an importance is not finite.
    """

    def norms(module: nn.Module, batch: Batch) -> Tensor:
        return model.logits(module, batch).square().sum()

    with exact(model.module):
        sums = sums_over_samples(model, samples, norms, torch.abs)
    for name, total in sums.items():
        total /= len(samples)
        if not bool(torch.isfinite(total).all()):
            raise DivergedError(f"the importance of {name} is not finite")
    return sums
