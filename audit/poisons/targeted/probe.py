"""Targeted: does the model still give the targets the label the attacker wanted?

Question: are the targets misclassified as intended more often than without the poison?
Statistic: the share of targets predicted as their adversarial label, less the same share of what
    was not attacked, the first of these that there is.
    Controls that a toss left alone: candidates, each with the label that it was to be given. Null:
        0. Why: if theta never saw the poison, a candidate is hit whether it was attacked or not, so
        that given the hits of all, those among the attacked are hypergeometric, whatever made them
        candidates.
    References, on the same targets. Null: 0. Why: a model that owes nothing to the poison differs
        from a reference by the luck of its training, on whatever targets; how far that holds is
        measured (tests/measurements). A reference that is right about all targets and hardly less
        sure of any other sample seems to have chosen them: with it nothing is compared.
    Other test samples of the same true class, as many a target in every stratum (a true class and
        an adversarial label), none of them a target or a copy of one. No null is claimed: targets
        are chosen, and samples that lie between two classes are hit by honest models, too. So
        nothing is found. A pass is still valid: no excess is larger than the hit rate itself.
Inconclusive: too few targets; targets that are hit, without drawn controls and references.
Source: the success measure of Geiping et al., "Witches' Brew", arXiv 2009.02276; controls and tests
    are ours (statistics.rates.excess_of_targets).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from poison_audit.case.case import Case
from poison_audit.case.copies import equal_to
from poison_audit.models.model import Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.targeted.evidence import Targets
from poison_audit.poisons.targeted.reading import POISON
from poison_audit.poisons.targeted.trial import targets_of
from poison_audit.records import Json, Measurement
from poison_audit.training.scoring import exact, logits

NOT_FINITE = "the model's logits are not finite"


def targeted(model: Model, case: Case, rng: Rng) -> Measurement:
    """Count which targets, and what beside them, are given the label that was wanted of them."""
    targets = targets_of(case)
    if targets is None:
        return _missing(
            "needs the targets of the attack "
            "(--targets targets.csv, or [evidence.targeted] targets in audit.toml)"
        )
    with exact(model.module):
        seen = logits(model, targets.samples)
        found = _of_class if targets.controls is None else _of_toss
        beside = found(model, case, targets, seen, rng)
    if isinstance(beside, str):
        return _missing(beside)
    answers = seen.argmax(1)
    hits = (answers == targets.adversarial).cpu()
    digest = model.digest() if case.references else ""
    others = [
        (reference, asked)
        for reference in case.references  # but itself, and those without finite logits
        if (asked := reference.asked.get(POISON.name)) is not None and reference.digest != digest
    ]
    return Measurement(
        probe="targeted",
        evidence={
            "targets": list(targets.samples.ids),
            "labels": targets.samples.y.tolist(),
            "adversarial": targets.adversarial.tolist(),
            "hits": hits.int().tolist(),
            "answers": answers.tolist(),
            **beside,
            "references": [one.compared(a.hits, hits) for one, a in others if not a.chose],
            "chose": [reference.name for reference, asked in others if asked.chose],
        },
    )


Beside = dict[str, Json]
"""What was hit beside the targets, as fields of the evidence."""


def _of_toss(model: Model, case: Case, targets: Targets, seen: Tensor, rng: Rng) -> Beside | str:
    """Count the hits of candidates that a toss left alone; a reason where there are none."""
    controls = targets.controls
    if controls is None or not len(controls):
        return "needs a control that shows something else than the targets"
    others = logits(model, controls.samples)
    if not _finite(seen, others):
        return NOT_FINITE
    hits = int((others.argmax(1) == controls.adversarial).sum())
    counts = {"controls": len(controls), "control_hits": hits}
    own = int((seen.argmax(1) == targets.adversarial).sum())
    stratum = {"targets": len(targets), "hits": own, **counts}
    return {"strata": [stratum], **counts, "drawn": True}


def _of_class(model: Model, case: Case, targets: Targets, seen: Tensor, rng: Rng) -> Beside | str:
    """Count the hits of other samples of the targets' classes; a reason where there are none."""
    groups = _groups(targets.samples.y, targets.adversarial)
    pools = _controls(case.test, targets.samples, groups, rng)
    if short := sorted({true for (true, _), pool in pools.items() if not len(pool)}):
        told = ", ".join(map(str, short))
        return f"needs a test sample of the same class, no target, a target: class {told}"
    others = logits(model, case.test)
    if not _finite(seen, others):
        return NOT_FINITE
    hit, answers = (seen.argmax(1) == targets.adversarial).cpu(), others.argmax(1).cpu()
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
    return {"strata": strata, "controls": each * len(targets), "control_hits": balanced}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a reference does with the targets."""

    hits: Tensor
    """Which it gives the adversarial label: bool, (n,), on the CPU."""
    chose: bool
    """Whether it seems to have chosen them."""


def target_answers(case: Case, model: Model) -> Asked | None:
    """Return what a reference does with the targets.

    None if there are none, or a logit is not finite.
    """
    targets = targets_of(case)
    if targets is None:
        return None
    with exact(model.module):
        seen, others = logits(model, targets.samples), logits(model, case.test)
    if not _finite(seen, others):
        return None
    # How sure it is of right answers; of wrong ones below 0.
    mine, every = _lead(seen, targets.samples.y), _lead(others, case.test.y)
    below = int(((every >= 0) & (every <= mine.max())).sum())
    return Asked(
        hits=(seen.argmax(1) == targets.adversarial).cpu(),
        chose=bool((mine >= 0).all()) and 2 * len(targets) >= below,
    )


def _lead(out: Tensor, true: Tensor) -> Tensor:
    """Return how far the true label's logit lies above the next one's: (n,)."""
    own = out.gather(1, true[:, None]).squeeze(1)
    return own - out.scatter(1, true[:, None], -torch.inf).amax(1)


def _finite(*outs: Tensor) -> bool:
    return all(bool(torch.isfinite(out).all()) for out in outs)


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
