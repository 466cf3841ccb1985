"""Movement: how far a method moved the network, and how much of that was where it had to go.

With theta_d deployed, theta_c the candidate and theta_r a reference that never saw the forget set:

    needed    = theta_r - theta_d
    distance  = |theta_c - theta_r| / |needed|                 1 = no nearer; above 1 = moved away
    covered   = <theta_c - theta_d, needed> / |needed|^2       the part of the needed shift covered
    aligned   = <theta_c - theta_d, needed> / (|theta_c - theta_d| |needed|)    a cosine

Two references trained from different starts lie far from each other as well: where `apart`, their
distance over that from deployed to reference, is near 1, most of what is called needed is the
luck of a start, and only a small part of it can be the poison's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor

from poison_audit.models.model import Model
from poison_audit.records import Json

MEASURES = ("distance_l2", "distance_l1", "covered", "aligned")


def movement(
    candidate: Model, deployed: Model, references: Sequence[Model] = ()
) -> dict[str, Json]:
    """Measure a candidate's movement over all parameters; buffers are left out.

    Returns:
        `moved_l2`, `moved_l1`: distance to deployed; `references`: how many there are; for each
        of `MEASURES` the mean over the references, and under `NAME_range` the lowest and the
        highest; `apart`: distance between references over that from deployed to reference, the
        mean of all pairs. What is undefined is None, with its reason under `missing`.

    Raises:
        ValueError: the models differ in the names or shapes of their parameters.
    """
    moved_l1, moved_l2 = _distance(candidate, deployed, 1), _distance(candidate, deployed, 2)
    seen = [_towards(candidate, deployed, reference, moved_l2) for reference in references]
    found: dict[str, Json] = {
        "moved_l1": moved_l1,
        "moved_l2": moved_l2,
        "references": len(references),
        "apart": _apart(deployed, references),
    }
    missing: dict[str, str] = {}
    for name in MEASURES:
        values = [value for one in seen if (value := one[name]) is not None]
        found[name] = math.fsum(values) / len(values) if values else None
        found[f"{name}_range"] = [min(values), max(values)] if values else None
        if not references:
            missing[name] = "needs a reference"
        elif not values:
            still = name == "aligned" and moved_l2 == 0
            missing[name] = "nothing moved" if still else "deployed and reference are the same"
    if found["apart"] is None:
        missing["apart"] = "needs two references that differ from the deployed model"
    return found | {"missing": missing}


def _towards(
    candidate: Model, deployed: Model, reference: Model, moved: float
) -> dict[str, float | None]:
    needed_l1, needed_l2 = _distance(reference, deployed, 1), _distance(reference, deployed, 2)
    if needed_l2 == 0:
        return dict.fromkeys(MEASURES)
    common = _sum(lambda c, d, r: (c - d) * (r - d), candidate, deployed, reference)
    return {
        "distance_l2": _distance(candidate, reference, 2) / needed_l2,
        "distance_l1": _distance(candidate, reference, 1) / needed_l1,
        "covered": common / needed_l2**2,
        "aligned": common / (moved * needed_l2) if moved > 0 else None,
    }


def _apart(deployed: Model, references: Sequence[Model]) -> float | None:
    away = [_distance(reference, deployed, 2) for reference in references]
    pairs = [_distance(a, b, 2) for a, b in combinations(references, 2)]
    if not pairs or not any(away):
        return None
    return (math.fsum(pairs) / len(pairs)) / (math.fsum(away) / len(away))


def _distance(a: Model, b: Model, power: Literal[1, 2]) -> float:
    total = _sum(lambda x, y: (x - y).abs().pow(power), a, b)
    return total if power == 1 else math.sqrt(total)


def _sum(term: Callable[..., Tensor], *models: Model) -> float:
    return math.fsum(float(term(*together).sum()) for together in _parameters(models))


@torch.no_grad()
def _parameters(models: Sequence[Model]) -> Iterator[list[Tensor]]:
    """Yield the same parameter of every model, on the CPU in float64."""
    named = [dict(model.module.named_parameters()) for model in models]
    shapes = [{name: p.shape for name, p in own.items()} for own in named]
    if different := {name for own in shapes for name, _ in own.items() ^ shapes[0].items()}:
        raise ValueError(f"the models differ in {', '.join(sorted(different))}")
    for name in named[0]:
        yield [own[name].detach().cpu().double() for own in named]
