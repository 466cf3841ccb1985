"""The whole network's gradients, one sample at a time, under a random projection.

Every weight is given one of k places and a sign by lot, and a gradient becomes k signed sums (count
sketch; Charikar, Chen and Farach-Colton 2002; Weinberger et al. 2009, arXiv 0902.2206). Inner
products are kept in the mean, with a standard error of at most sqrt(2 / k) of the product of the
lengths. Memory: one gradient, a running mean and the lots, whatever the number of samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from poison_audit.hypotheses.spans import SMALLEST, outside, random_share, span_share
from poison_audit.models.model import Model, evaluating
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.records import Json


def network_share(
    model: Model,
    reference: Model,
    retain: Samples,
    rng: Rng,
    *,
    rank: int,
    sketch: int,
    gradients: int,
) -> dict[str, Json]:
    """Measure how much of reference minus deployed lies in the span of retain gradients.

    Args:
        model: the deployed checkpoint; its trainable parameters are what the gradients are of.
        reference: never saw the forget set; of the same architecture.
        retain: at most `gradients` of them are used, chosen at random.
        rng: the lots, and the choice.
        rank: singular directions of the gradients that make the span.
        sketch: k, at least 4.
        gradients: samples used at most.

    Returns:
        `share` inside the span, estimated, with `share_low` and `share_high` (95%, of the
        projection alone); `sketched_share` before its bias is taken off, beside `random`: what a
        random direction's would be; `cosine` of the mean descent step with the need, exact;
        None for what is undefined, where the need or every gradient is zero.
    """
    parameters = {name: p for name, p in model.module.named_parameters() if p.requires_grad}
    lots = _lots(parameters, rng.named("lots"), sketch)
    order = rng.named("samples").torch()
    chosen = retain.at(torch.randperm(len(retain), generator=order)[:gradients])
    rows, mean = _sketched_gradients(model, parameters, chosen, lots, sketch)
    target = dict(reference.module.named_parameters())
    needed, length, common = mean[0].new_zeros(sketch, dtype=torch.float64), 0.0, 0.0
    for (name, parameter), slope in zip(parameters.items(), mean, strict=True):
        delta = target[name].detach().to(parameter.device).double() - parameter.detach().double()
        needed += _sketch(delta, lots[name], sketch)
        length += float(delta.square().sum())
        common -= float((delta * slope).sum())
    steep = math.sqrt(math.fsum(float(slope.double().square().sum()) for slope in mean))
    found: dict[str, Json] = {
        "cosine": common / (steep * math.sqrt(length)) if steep > 0 and length > 0 else None,
        "parameters": sum(p.numel() for p in parameters.values()),
        "gradients": len(chosen),
        "sketch": sketch,
        "sketch_error": math.sqrt(2 / sketch),
    }
    return found | _shares(rows, needed, length, rank=rank, sketch=sketch)


def _shares(
    rows: Tensor, needed: Tensor, length: float, *, rank: int, sketch: int
) -> dict[str, Json]:
    gram = rows @ rows.T
    spanned = int(torch.linalg.matrix_rank(gram, hermitian=True, rtol=SMALLEST))
    rank = min(rank, spanned, sketch // 2)
    if not rank or not length:
        names = ("share", "share_low", "share_high", "sketched_share", "random")
        return {"rank": rank, **dict.fromkeys(names)}
    around = float(needed.square().sum())
    inside = span_share(gram, rows @ needed, around, rank=rank)
    return {
        "rank": rank,
        "sketched_share": inside,
        "random": random_share(rank, sketch),
        **outside((1 - inside) * around, length, rank=rank, sketch=sketch),
    }


def _sketched_gradients(
    model: Model,
    parameters: Mapping[str, nn.Parameter],
    samples: Samples,
    lots: Mapping[str, Tensor],
    sketch: int,
) -> tuple[Tensor, Sequence[Tensor]]:
    """Return every sample's gradient, sketched in float64 (n, k), and their mean in full."""
    mean = [torch.zeros_like(parameter) for parameter in parameters.values()]
    rows = mean[0].new_zeros((len(samples), sketch), dtype=torch.float64)
    with evaluating(model.module) as module, torch.enable_grad():
        # One at a time: it works for every architecture, and holds one gradient.
        for row, batch in zip(rows, samples.in_order(1), strict=True):
            loss = model.loss(module, batch).sum()
            slopes = torch.autograd.grad(
                loss, list(parameters.values()), allow_unused=True, materialize_grads=True
            )
            for name, slope, total in zip(parameters, slopes, mean, strict=True):
                row += _sketch(slope, lots[name], sketch)
                total += slope / len(samples)
    return rows, mean


def _lots(parameters: Mapping[str, Tensor], rng: Rng, sketch: int) -> dict[str, Tensor]:
    """Draw place and sign of every weight: below `sketch` it is added, from there subtracted."""
    return {
        name: torch.randint(
            2 * sketch, (p.numel(),), generator=rng.named(name).torch(), dtype=torch.int32
        ).to(p.device)
        for name, p in parameters.items()
    }


def _sketch(values: Tensor, lots: Tensor, sketch: int) -> Tensor:
    sums = values.new_zeros(2 * sketch, dtype=torch.float64)
    sums.index_add_(0, lots, values.flatten().double())
    return sums[:sketch] - sums[sketch:]
