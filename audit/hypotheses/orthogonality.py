"""Orthogonality (H2): does the needed change lie outside of what clean gradients span?

Question: the last layer has to go from theta(train) to theta(train minus F). Is that displacement
    within reach of the gradients of the samples that remain?
Statistic: theta(S) is the convex head fitted on S. Share: the part of the displacement's squared
    length inside the span of the top r singular directions of the remaining samples' gradients,
    taken one by one at theta(train). The ratio is the forget set's share over the mean share of
    random subsets of retain with the same number of samples of each class. Beside it the cosine of
    the displacement with the step that descent on the remaining samples takes.
Null: the forget set is a random set of its class mix, so its share has a uniform rank among those
    of random subsets of the whole training set (see `subsets`). The p-value is one-sided: less.
    For comparison, a random direction's share is Beta(r/2, (D - r)/2), D the head's free
    dimensions.
Interval: the forget set's share over the central 95% of the random subsets of retain.
The whole network: the same share and cosine for reference minus deployed (see `network`). Random
    subsets would each need a retraining, so there only the random direction is compared.
Not measured: no penultimate layer; retain lacks samples of a forgotten class; no reference.
Source: Pawelczyk et al., ICLR 2025, arXiv 2406.17216, hypothesis 2, which shows the
    cosine for linear regression. The shares and the nulls are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from poison_audit.case.case import Case
from poison_audit.errors import PlanError, Problem, Problems
from poison_audit.hypotheses.features import Design, design, finding, moved, not_measured
from poison_audit.hypotheses.head import RIDGE, TOLERANCE, UnsolvedError, objective, solve
from poison_audit.hypotheses.network import network_share
from poison_audit.hypotheses.spans import cosine, random_share, span_share
from poison_audit.hypotheses.subsets import LEVEL, Members, central, drawn, rank_p_value
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.records import Finding, Interval, Json, Outcome

NAME = "orthogonality"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How far the gradients of what remains reach towards a needed displacement."""

    share: float
    """Of its squared length, inside their span."""
    cosine: float
    """With the step of descent."""


def orthogonality(
    model: Model,
    case: Case,
    rng: Rng,
    *,
    reference: Model | None = None,
    subsets: int = 60,
    rank: int = 50,
    sketch: int = 512,
    gradients: int = 256,
    most: int = 10_000,
) -> Finding:
    """Compare how much of what forget and random samples need lies in the span of clean gradients.

    Args:
        case: its retain and forget samples together are the training set.
        reference: never saw the forget set; without it the whole network is not measured.
        subsets: random subsets of each kind, at least 1: the smallest p-value is 1 / (1 + subsets).
        rank: r, at least 1; at most half of the head's free dimensions and of the gradients.
        sketch: dimensions that the whole network's gradients are projected to, at least 4.
        gradients: samples whose gradients make a span, at least 2.
        most: training samples used at most, chosen at random.

    Raises:
        PlanError: a number is too small.
    """
    _check(subsets=(subsets, 1), rank=(rank, 1), sketch=(sketch, 4), gradients=(gradients, 2))
    whole_network: dict[str, Json] = {"network": None, "network_missing": "needs a reference"}
    if reference is not None:
        measured = network_share(
            model, reference, case.retain, rng.named("network"),
            rank=rank, sketch=sketch, gradients=gradients,
        )  # fmt: skip
        whole_network = {"network": measured, "network_missing": None}
    found = design(model, case, rng.named("samples"), most=most)
    if isinstance(found, str):
        return not_measured(NAME, found, details=whole_network)
    try:
        return _finding(found, rng, whole_network, subsets=subsets, rank=rank, gradients=gradients)
    except UnsolvedError as error:
        return not_measured(NAME, str(error), details=whole_network)


def _finding(
    found: Design,
    rng: Rng,
    whole_network: dict[str, Json],
    *,
    subsets: int,
    rank: int,
    gradients: int,
) -> Finding:
    forgotten = found.forgotten
    if why := found.too_few:
        return not_measured(NAME, why, details=whole_network)
    whole = solve(found.x, found.y, classes=found.classes)
    free = free_dimensions(found.x, found.classes)
    span = {"rank": max(1, min(rank, free // 2, gradients // 2)), "gradients": gradients}
    own = reach(found, whole, forgotten, rng.named("own"), **span)
    clean = reaches(found, whole, ~forgotten, rng.named("clean"), subsets=subsets, **span)
    everyone = np.ones_like(forgotten)
    anyone = reaches(found, whole, everyone, rng.named("any"), subsets=subsets, **span)
    told = _figures(own, clean, anyone)
    low, high = told["random_share_low"], told["random_share_high"]
    if low <= 0:
        why = "clean gradients reach no random subset's shift"
        return not_measured(NAME, why, details=whole_network)
    direction = random_share(span["rank"], free)
    return finding(
        NAME,
        outcome=Outcome.INFO,
        reason=_sentence(told, direction["mean"], span["rank"]),
        statistic=own.share / told["random_share_mean"],
        null=1.0,
        interval=Interval(low=own.share / high, high=own.share / low, level=LEVEL),
        p_value=told["share_p"],
        sample_size=int(forgotten.sum()),
        details={
            **told,
            **span,
            **whole_network,
            "direction_share": direction,
            "free": free,
            "subsets": subsets,
            "used": len(forgotten),
            "training": found.samples,
            "ridge": RIDGE,
            "tolerance": TOLERANCE,
        },
    )


def _figures(own: Reach, clean: list[Reach], anyone: list[Reach]) -> dict[str, float]:
    shares = [one.share for one in clean]
    low, high = central(shares)
    return {
        "share": own.share,
        "share_p": rank_p_value(-own.share, [-one.share for one in anyone]),
        "random_share_mean": float(np.mean(shares)),
        "random_share_low": low,
        "random_share_high": high,
        "cosine": own.cosine,
        "cosine_p": rank_p_value(-own.cosine, [-one.cosine for one in anyone]),
        "random_cosine_mean": float(np.mean([one.cosine for one in clean])),
    }


def reaches(
    found: Design,
    whole: Tensor,
    pool: Members,
    rng: Rng,
    *,
    subsets: int,
    rank: int,
    gradients: int,
) -> list[Reach]:
    """Measure `reach` for random subsets of `pool` with the forget set's class mix."""
    draws = rng.named("subsets").numpy()
    sets = drawn(pool, found.forgotten, found.labels, draws=subsets, rng=draws)
    return [
        reach(found, whole, left, rng.named(at), rank=rank, gradients=gradients)
        for at, left in enumerate(sets)
    ]


def reach(
    found: Design, whole: Tensor, left_out: Members, rng: Rng, *, rank: int, gradients: int
) -> Reach:
    """Measure how much of theta(train minus `left_out`) - theta(train) the rest reaches.

    Args:
        whole: theta(train), (classes, d + 1).
        rng: chooses whose gradients make the span.
        rank: singular directions of the span.
        gradients: samples at most whose gradients are taken.
    """
    needed = moved(found, whole, left_out)
    rest = np.flatnonzero(~left_out)
    x, onehot = _rows(found, rest)
    _, slope, _ = objective(x, onehot, whole)
    x, onehot = _rows(found, rng.numpy().permutation(rest)[:gradients])
    errors = objective(x, onehot, whole)[2] - onehot  # (n, c): a gradient is errors_i x_i'
    gram = (errors @ errors.T) * (x @ x.T)
    products = (errors * (x @ needed.T)).sum(dim=1)
    length = float(needed.square().sum())
    share = span_share(gram, products, length, rank=rank) if length else 0.0
    return Reach(share=share, cosine=cosine(-slope, needed) or 0.0)


def free_dimensions(x: Tensor, classes: int) -> int:
    """Return in how many dimensions a head's solution can move: its classes always sum to zero."""
    return (classes - 1) * int(torch.linalg.matrix_rank(x.T @ x, hermitian=True))


def _rows(found: Design, places: np.ndarray[Any, Any]) -> tuple[Tensor, Tensor]:
    where = torch.from_numpy(places).to(found.x.device)
    return found.x[where], F.one_hot(found.y[where], found.classes).to(found.x.dtype)


def _sentence(told: dict[str, float], direction: float, rank: int) -> str:
    surely = "surely less" if told["share_p"] <= 1 - LEVEL else "not surely less"
    return (
        f"{100 * told['share']:.1f}% of the shift that the last layer needs lies in the span of "
        f"the {rank} strongest clean gradients, {100 * told['random_share_mean']:.1f}% for random "
        f"clean samples of the same classes and {100 * direction:.1f}% for a random direction: "
        f"{surely} than for ordinary samples (p = {told['share_p']:.3f})."
    )


def _check(**numbers: tuple[int, int]) -> None:
    Problems(
        Problem(f"{name} is {value}", NAME, f"Use {least} or more.")
        for name, (value, least) in numbers.items()
        if value < least
    ).raise_any(PlanError)
