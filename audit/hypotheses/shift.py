"""Shift (H1): does the poison move the model further than as many ordinary samples do?

Question: how far does the last layer move if the forget set is left out of its training?
Statistic: theta(S) is the convex head fitted on S, with the checkpoint's penultimate features.
    d(F) = |theta(train) - theta(train minus F)|, in l1. The ratio is d(forget) over the mean d of
    random subsets of retain with the same number of samples of each class.
Null: the forget set is a random set of its class mix, so d(forget) has a uniform rank among d of
    random subsets of the whole training set (see `subsets`). The p-value is one-sided: further.
    Where there is poison, those subsets hold their share of it: that costs power, never validity.
Interval: d(forget) over the central 95% of the random subsets of retain: a range of comparisons,
    not of repetitions. It holds 1 unless the forget set is outside of what random subsets do.
Not measured: no penultimate layer; retain lacks samples of a forgotten class.
Source: Pawelczyk et al., ICLR 2025, arXiv 2406.17216, hypothesis 1. Departs from it in
    the class mix, the p-value, and in solving the head to a tolerance instead of training it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from poison_audit.case.case import Case
from poison_audit.errors import PlanError, Problem, Problems
from poison_audit.hypotheses.direction import held_by_one_direction
from poison_audit.hypotheses.features import Design, design, finding, moved, not_measured
from poison_audit.hypotheses.head import RIDGE, TOLERANCE, UnsolvedError, solve
from poison_audit.hypotheses.subsets import LEVEL, central, drawn, lacking, part_of, rank_p_value
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.records import Finding, Interval, Json, Outcome


def shift(
    model: Model,
    case: Case,
    rng: Rng,
    *,
    subsets: int = 60,
    fractions: Sequence[float] = (0.1, 0.25, 0.5, 1.0),
    most: int = 10_000,
) -> Finding:
    """Compare how far leaving out forget samples and random samples moves the last layer.

    Args:
        case: its retain and forget samples together are the training set.
        subsets: random subsets of each kind, at least 1: the smallest p-value is 1 / (1 + subsets).
        fractions: growing parts of the forget set, the last of them 1.
        most: training samples used at most, chosen at random.

    Raises:
        PlanError: `subsets` or `fractions` cannot be used.
    """
    _check(subsets, fractions)
    found = design(model, case, rng.named("samples"), most=most)
    if isinstance(found, str):
        return not_measured("shift", found)
    try:
        return _finding(found, rng, subsets=subsets, fractions=fractions)
    except UnsolvedError as error:
        return not_measured("shift", str(error))


def _finding(found: Design, rng: Rng, *, subsets: int, fractions: Sequence[float]) -> Finding:
    whole = solve(found.x, found.y, classes=found.classes)
    curve = _curve(found, whole, rng, subsets=subsets, fractions=fractions)
    matched = [at for at, low in enumerate(curve["random_l1_low"]) if low]
    if not matched:
        why = found.too_few or "leaving out random samples moves nothing"
        return not_measured("shift", why)
    at = matched[-1]
    poison, low, high, mean = (
        curve[name][at]
        for name in ("poison_l1", "random_l1_low", "random_l1_high", "random_l1_mean")
    )
    p_value = chance(found, whole, rng.named("any"), subsets=subsets)
    kept, lost = (found.x[torch.from_numpy(part).to(found.x.device), :-1] for part in
                  (~found.forgotten, found.forgotten))  # fmt: skip
    share = held_by_one_direction(kept, lost)
    return finding(
        "shift",
        outcome=Outcome.INFO,
        reason=_sentence(poison / mean, p_value, fractions[at]) + _direction(share),
        statistic=poison / mean,
        null=1.0,
        interval=Interval(low=poison / high, high=poison / low, level=LEVEL),
        p_value=p_value,
        sample_size=int(found.forgotten.sum()),
        details={
            **curve,
            "one_direction": share,
            "ratio_fraction": fractions[at],
            "subsets": subsets,
            "used": len(found.forgotten),
            "training": found.samples,
            "parameters": whole.numel(),
            "ridge": RIDGE,
            "tolerance": TOLERANCE,
        },
    )


def chance(found: Design, whole: Tensor, rng: Rng, *, subsets: int) -> float:
    """Return the p-value of the forget set's l1 shift among random subsets of the training set."""
    forgotten = found.forgotten
    draws = drawn(np.ones_like(forgotten), forgotten, found.labels, draws=subsets, rng=rng.numpy())
    far, *others = (float(moved(found, whole, left).abs().sum()) for left in (forgotten, *draws))
    return rank_p_value(far, others)


def _curve(
    found: Design, whole: Tensor, rng: Rng, *, subsets: int, fractions: Sequence[float]
) -> dict[str, Json]:
    order = rng.named("order").numpy().permutation(int(found.forgotten.sum()))
    rows = []
    for fraction in fractions:
        part = part_of(found.forgotten, order, fraction)
        row: dict[str, float | None] = {}
        own, clean = moved(found, whole, part), []
        retain, draws = ~found.forgotten, rng.named("clean", fraction).numpy()
        if not lacking(retain, part, found.labels):
            clean = drawn(retain, part, found.labels, draws=subsets, rng=draws)
        others = [moved(found, whole, left) for left in clean]
        for norm, power in (("l1", 1), ("l2", 2)):
            sizes = [float(torch.linalg.vector_norm(move, power)) for move in others]
            row[f"poison_{norm}"] = float(torch.linalg.vector_norm(own, power))
            row |= _band(f"random_{norm}", sizes)
        rows.append(row)
    return {"fractions": list(fractions)} | {name: [row[name] for row in rows] for name in rows[0]}


def _band(name: str, sizes: list[float]) -> dict[str, float | None]:
    if not sizes:
        return {f"{name}_{end}": None for end in ("mean", "low", "high")}
    low, high = central(sizes)
    return {f"{name}_mean": float(np.mean(sizes)), f"{name}_low": low, f"{name}_high": high}


def _sentence(ratio: float, p_value: float, fraction: float) -> str:
    part = "the forget set" if fraction == 1 else f"{100 * fraction:.0f}% of the forget set"
    surely = "further" if p_value <= 1 - LEVEL else "not surely further"
    return (
        f"Leaving out {part} moves the last layer {ratio:.2f} times as far as leaving out as many "
        f"random clean samples of the same classes. As a whole, the forget set moves it {surely} "
        f"than ordinary samples do (p = {p_value:.3f})."
    )


def _direction(share: float | None) -> str:
    if share is None:
        return ""
    return (
        f" One direction of its features holds {100 * share:.0f}% of what sets the forget samples "
        "apart: the more, the better an edit of the last layer can take it out."
    )


def _check(subsets: int, fractions: Sequence[float]) -> None:
    problems = Problems()
    if subsets < 1:
        problems.append(Problem(f"subsets is {subsets}", "shift", "Use 1 or more."))
    rising = all(a < b for a, b in zip((0.0, *fractions), fractions, strict=False))
    if not rising or not fractions or fractions[-1] != 1:
        what = f"fractions are {list(fractions)}"
        problems.append(Problem(what, "shift", "Use rising numbers above 0, the last of them 1."))
    problems.raise_any(PlanError)
