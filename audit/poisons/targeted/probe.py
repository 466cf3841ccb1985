"""Targeted: does the model still give the targets the label the attacker wanted?

Question: are the targets misclassified as intended more often than samples like them?
Statistic: the share of targets predicted as their adversarial label, less the same share among
    controls: test samples of the same true class that are no targets and no copies of one, as many
    a target in every stratum (a true class and an adversarial label).
Null: 0. Why: if theta never saw the poison, a target is to it one more sample of its class, so
    within a stratum targets and controls are exchangeable and hits are hypergeometric; a control
    serves one stratum only. This supposes that the targets were not chosen by what a model like
    this one answers: samples that lie between two classes are hit by honest models, too. A
    reference shows whether they are.
Inconclusive: too few targets. Without a control for every target it is not measured.
Source: the success measure of Geiping et al., "Witches' Brew", arXiv 2009.02276; the controls and
    the exact test are ours (statistics.rates.excess_of_targets).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from poison_audit.case.case import Case
from poison_audit.case.copies import equal_to
from poison_audit.models.model import Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.targeted.trial import targets_of
from poison_audit.records import Json, Measurement
from poison_audit.training.scoring import exact, logits


def targeted(model: Model, case: Case, rng: Rng) -> Measurement:
    """Count the targets, and the controls, that are predicted as the adversarial label."""
    targets = targets_of(case)
    if targets is None:
        return _missing(
            "needs the targets of the attack "
            "(--targets targets.csv, or [evidence.targeted] targets in audit.toml)"
        )
    groups = _groups(targets.samples.y, targets.adversarial)
    pools = _controls(case.test, targets.samples, groups, rng)
    if short := sorted({true for (true, _), pool in pools.items() if not len(pool)}):
        told = ", ".join(map(str, short))
        return _missing(f"needs a test sample of the same class, no target, a target: class {told}")
    with exact(model.module):
        seen = logits(model, targets.samples)
        others = logits(model, case.test)
    if not bool(torch.isfinite(seen).all() and torch.isfinite(others).all()):
        return _missing("the model's logits are not finite")
    hit = (seen.argmax(1) == targets.adversarial).cpu()
    answers = others.argmax(1).cpu()
    each = min(len(pools[group]) // len(members) for group, members in groups.items())
    strata: list[Mapping[str, Json]] = []
    balanced = 0
    for group, members in groups.items():
        control_hit = answers[pools[group]] == group[1]
        balanced += int(control_hit[: each * len(members)].sum())
        strata.append(
            {
                "label": group[0],
                "adversarial": group[1],
                "targets": len(members),
                "hits": int(hit[members].sum()),
                "controls": len(control_hit),
                "control_hits": int(control_hit.sum()),
            }
        )
    return Measurement(
        probe="targeted",
        evidence={
            "targets": list(targets.samples.ids),
            "labels": targets.samples.y.tolist(),
            "adversarial": targets.adversarial.tolist(),
            "hits": hit.int().tolist(),
            "strata": strata,
            "controls": each * len(targets),
            "control_hits": balanced,
        },
    )


def _missing(reason: str) -> Measurement:
    return Measurement(probe="targeted", evidence=None, missing=reason)


def _groups(true: Tensor, adversarial: Tensor) -> dict[tuple[int, int], list[int]]:
    """Return the targets of each stratum, by their place."""
    groups: dict[tuple[int, int], list[int]] = {}
    for place, pair in enumerate(zip(true.tolist(), adversarial.tolist(), strict=True)):
        groups.setdefault(pair, []).append(place)
    return dict(sorted(groups.items()))


def _controls(
    test: Samples, targets: Samples, groups: Mapping[tuple[int, int], list[int]], rng: Rng
) -> dict[tuple[int, int], Tensor]:
    """Return each stratum's controls in random order, by their place in the test table.

    A class's samples are shared out among its strata in proportion to their targets; a share
    smaller than its targets is left empty.
    """
    # A copy of a target under another id is that target, and no control of it.
    free = ~equal_to(test, targets)
    pools = {}
    for true in sorted({true for true, _ in groups}):
        pool = torch.nonzero(free & (test.y.cpu() == true)).squeeze(1)
        order = rng.named("controls", true).numpy().permutation(len(pool))
        pool = pool[torch.from_numpy(order)]
        mine = {group: members for group, members in groups.items() if group[0] == true}
        total, start = sum(map(len, mine.values())), 0
        for group, members in mine.items():
            size = len(pool) * len(members) // total
            pools[group] = pool[start : start + size] if size >= len(members) else pool[:0]
            start += size
    return pools
