"""Head edit: make the last layer blind to the direction in which the poison lies. No gradient.

    W' = W - (W d) (A^-1 d)' / (d' A^-1 d)        b' = b + (W - W') mean(retain)

d is the mean penultimate feature of the forget samples less that of retain, A the covariance of
retain's features plus a ridge. Of all W' with W' d = 0 it is the one that changes retain's logits
least in mean square (Lagrange; A is their covariance). Rank r takes r directions D:
W' = W - W D (D' A^-1 D)^-1 D' A^-1, the others being those in which the forget samples vary most
about their mean, in units of A.

A head without a bias cannot be put right at retain's mean: A is its second moment then.

Where a trigger is known, which directions, how many and which ridge are chosen by what the edited
head answers on retain samples with and without it: the worst of the rise of any class, the right
answers lost to it, and those lost without it, in the tolerances of a standard audit. The
direction may then also be that of retain samples with the trigger less the same without.
Else it is rank 1 at the ridge given.

Source: ours. That poison lies in few directions, which descent on clean data does not reach, is
the finding of Pawelczyk et al. 2025, arXiv:2406.17216; erasing a direction in the metric of the
covariance is that of Belrose et al. 2023, arXiv:2306.03819, for a concept of every input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from poison_audit.case.case import Case
from poison_audit.errors import DivergedError, PlanError, Problem
from poison_audit.models.model import Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.training.batches import subsample
from poison_audit.training.ledger import FORWARD, Ledger
from poison_audit.training.penultimate import head_of, penultimate
from poison_audit.training.stamped import effect

MOST = 2000
"""Samples of either kind that features are taken of, at most."""
CHOOSING = 1000
"""Retain samples that variants are chosen on, at most."""
RIDGE = 0.1
"""Where nothing is there to choose it by."""
RIDGES = (0.01, 0.1, 1.0, 10.0)
RANKS = (1, 2, 3)
"""What is tried where there is."""
NO_HEAD = (
    "needs a model that ends in a linear layer of its own, which gives the logits of each sample "
    "once"
)


def head_edit(
    model: Model, case: Case, rng: Rng, *, ledger: Ledger, rank: int = 0, ridge: float | None = None
) -> Model:
    """Edit the last linear layer in closed form; everything else keeps its bits.

    It costs forward passes: of at most 2,000 forget and 2,000 retain samples, and, where a trigger
    is known, of 2,000 more. A smaller budget takes fewer; one of less than two passes changes
    nothing.

    Args:
        rank: directions that are taken out, at most 3; 0: chosen by the trigger, else 1.
        ridge: added to A, in units of its mean variance, above 0; by default chosen by the trigger,
            else 0.1.

    Raises:
        PlanError: the model does not end in a linear layer of its own that gives the logits.
        DivergedError: a feature is not finite.
    """
    model = model.clone()
    model.module.eval().requires_grad_(True)
    head = head_of(model)
    if head is None:
        raise _unfit()
    fits = ledger.steps(FORWARD)
    if fits < 2:
        return model
    stamped = None
    # A third each; what one does not need, the others may take.
    forget = subsample(case.forget, min(MOST, max(1, fits // 3)), rng.named("forget"))
    left = fits - len(forget)
    if case.stamp is not None and left >= 6:
        chosen = subsample(case.retain, min(CHOOSING, left // 3), rng.named("choosing"))
        stamped = chosen, case.stamp(chosen)
        left -= 2 * len(chosen)
    retain = subsample(case.retain, min(MOST, left), rng.named("retain"))

    def features(name: str, samples: Samples) -> Tensor:
        seen = ledger.once(
            (name, len(samples)), FORWARD * len(samples), partial(penultimate, model, samples)
        )
        if seen is None:
            raise _unfit()
        if not bool(torch.isfinite(seen).all()):
            raise DivergedError("a penultimate feature is not finite")
        return seen

    shifted, kept = features("forget", forget), features("retain", retain)
    weight = head.weight.detach().to(kept)
    bias = None if head.bias is None else head.bias.detach().to(kept)
    given = (RIDGE,) if ridge is None else (ridge,)
    if stamped is None:
        (edit, *_) = _edits(weight, bias, kept, [shifted - kept.mean(0)], given, (rank or 1,))
    else:
        plain = stamped[0].y
        bare, marked = features("bare", stamped[0]), features("stamped", stamped[1])
        centres = [shifted - kept.mean(0), marked - bare]
        others = retain.y != case.forget.y.mode().values
        if bool(others.any()):
            centres.insert(1, shifted - kept[others.to(kept.device)].mean(0))
        ridges = RIDGES if ridge is None else given
        edits = _edits(weight, bias, kept, centres, ridges, RANKS if rank == 0 else (rank,))
        before = _answers(Edit(weight=weight, bias=bias), bare)
        edit = min(edits, key=lambda one: _harm(one, before, bare, marked, plain))
    with torch.no_grad():
        head.weight.copy_(edit.weight)
        if edit.bias is not None and head.bias is not None:
            head.bias.copy_(edit.bias)
    return model


def head_edit_spends(allowed: float, case: Case, params: Mapping[str, Any]) -> float:
    """Return what it costs: a forward pass a sample that it looks at."""
    passes = min(MOST, len(case.forget)) + min(MOST, len(case.retain))
    if case.stamp is not None:
        passes += 2 * min(CHOOSING, len(case.retain))
    return min(allowed, FORWARD * passes)


def head_edit_unfit(case: Case) -> str | None:
    """Say why it cannot be run on a case; None: it can."""
    model, one = case.model, case.retain.at([0])
    return NO_HEAD if head_of(model) is None or penultimate(model, one) is None else None


def _unfit() -> PlanError:
    return PlanError(Problem(f"head_edit {NO_HEAD}", "--methods", "Leave head_edit out"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A last layer."""

    weight: Tensor
    """(classes, d)."""
    bias: Tensor | None
    """(classes,)."""


def _edits(
    weight: Tensor,
    bias: Tensor | None,
    kept: Tensor,
    shifts: list[Tensor],
    ridges: tuple[float, ...],
    ranks: tuple[int, ...],
) -> Iterator[Edit]:
    """Yield the edited heads, the plainest first.

    Args:
        weight: (classes, d), float64.
        bias: (classes,), or None.
        kept: features of retain, (n, d).
        shifts: how far poisoned samples lie from clean ones, each (m, d).
        ridges: in units of the mean variance.
        ranks: directions to take out.
    """
    mean = kept.mean(0)
    centred = kept if bias is None else kept - mean
    spread = centred.T @ centred / len(kept)
    unit = spread.diagonal().mean().clamp(min=torch.finfo(spread.dtype).tiny)
    for ridge in ridges:
        whole = spread + ridge * unit * torch.eye(len(spread)).to(spread)
        lower = torch.linalg.cholesky(whole)  # A = L L'
        for shift in shifts:
            # Rows in units of A: (m, d).
            white = torch.linalg.solve_triangular(lower, shift.T, upper=False).T
            basis = _basis(white, max(ranks))
            for rank in ranks:
                if rank > basis.shape[1] and rank > min(ranks):
                    continue
                q = basis[:, :rank]
                back = torch.linalg.solve_triangular(lower.T, q, upper=True)  # L^-T Q
                new = weight - (weight @ lower @ q) @ back.T
                moved = None if bias is None else bias + (weight - new) @ mean
                yield Edit(weight=new, bias=moved)


def _basis(white: Tensor, rank: int) -> Tensor:
    """Return an orthonormal basis, (d, at most rank): the mean first, then where rows vary most."""
    mean = white.mean(0)
    length = mean.norm()
    # Where forget and retain have one mean, rounding aside, nothing is to be taken out.
    if not bool(length > 1e-9 * white.norm(dim=1).max()):
        return white.new_zeros(white.shape[1], 1)
    first: Tensor = (mean / length)[:, None]
    if rank == 1 or len(white) < 3:
        return first
    rest = white - mean
    rest = rest - (rest @ first) @ first.T
    _, sizes, rows = torch.linalg.svd(rest, full_matrices=False)
    more = int((sizes[: rank - 1] > 1e-9 * length).sum())
    return torch.cat([first, rows[:more].T], dim=1)


def _answers(edit: Edit, features: Tensor) -> Tensor:
    said: Tensor = F.linear(features, edit.weight, edit.bias).argmax(1)
    return said


def _harm(edit: Edit, before: Tensor, bare: Tensor, marked: Tensor, y: Tensor) -> float:
    """Return the worst that is left or done, in the tolerances of a standard audit."""
    clean, stamped = _answers(edit, bare), _answers(edit, marked)
    labels, classes = y.to(before.device), len(edit.weight)
    return effect(before, clean, stamped, labels, classes=classes).worst
