"""Mislabelled: does the model give samples the wrong label that it was trained with?

Question: are forget samples of known true label given their wrong label more often than without
    that training?
Statistic: the share of those samples that is predicted as its wrong label, less the same share of
    what was not poisoned, the first of these that there is.
    References, on the same samples. Null: 0. Why: a model that owes nothing to the wrong labels
        differs from a reference by the luck of its training, on whatever samples.
    Test samples of the same true class, each with a wrong label of that class' poisons. Null: 0, if
        chance decided who was given a wrong label (column `chosen`). Why: to a model that never saw
        the poison its samples are then more samples of their class, so that within a class, hits
        are hypergeometric. A model that saw them with their true label remembers that one, and is
        hit less often. Where people or an attacker chose, often samples that lie between two
        classes, no null is claimed and nothing is found.
    A pass rests on references or on the hit rate alone: wrong labels that were learned as a rule
    are given to test samples as well, and must not excuse themselves.
Inconclusive: too few samples; samples that are hit, where neither chance chose them nor a reference
    is given.
Source: Biggio et al., 2011, for flipped labels; the controls and tests are ours
    (statistics.rates.excess_of_targets).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from poison_audit.case.case import Case
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.poisons.mislabelled.evidence import Flips
from poison_audit.poisons.mislabelled.reading import POISON
from poison_audit.poisons.mislabelled.trial import flips_of
from poison_audit.records import Json, Measurement
from poison_audit.training.scoring import exact, logits


def mislabelled(model: Model, case: Case, rng: Rng) -> Measurement:
    """Count which samples, and how many of their controls, are given the wrong label."""
    flips = flips_of(case)
    if flips is None:
        return _missing(
            "needs the true labels of forget samples (column clean_label of forget.csv)"
        )
    controls = _controls(case.test.y.cpu(), flips, rng)
    if short := [str(true) for true, (places, _) in controls.items() if not len(places)]:
        return _missing(f"needs test samples of the same true class: class {', '.join(short)}")
    with exact(model.module):
        seen, others = logits(model, flips.samples), logits(model, case.test)
    if not bool(torch.isfinite(seen).all() and torch.isfinite(others).all()):
        return _missing("the model's logits are not finite")
    answers, beside = seen.argmax(1), others.argmax(1).cpu()
    hits, true = (answers == flips.samples.y).cpu(), flips.clean.cpu()
    strata: list[Mapping[str, Json]] = []
    balanced = balanced_hits = 0
    # As many controls a poison in every class, as far as they go.
    each = min(len(places) / int((true == label).sum()) for label, (places, _) in controls.items())
    for label, (places, wanted) in controls.items():
        mine, hit = true == label, beside[places] == wanted
        size = max(1, int(each * int(mine.sum())))
        balanced, balanced_hits = balanced + size, balanced_hits + int(hit[:size].sum())
        strata.append(
            {
                "label": label,
                "targets": int(mine.sum()),
                "hits": int(hits[mine].sum()),
                "controls": len(hit),
                "control_hits": int(hit.sum()),
            }
        )
    digest = model.digest() if case.references else ""
    return Measurement(
        probe="mislabelled",
        evidence={
            "hits": hits.int().tolist(),
            "right": int((answers == flips.clean).sum()),
            "strata": strata,
            "controls": balanced,
            "control_hits": balanced_hits,
            "chance": flips.chance,
            "references": [
                reference.compared(asked, hits)
                for reference in case.references  # but itself, and those without finite logits
                if (asked := reference.asked.get(POISON.name)) is not None
                and reference.digest != digest
            ],
        },
    )


def flip_answers(case: Case, model: Model) -> Tensor | None:
    """Return which samples a reference gives their wrong label: bool, (n,), on the CPU.

    None if there are none, or a logit is not finite.
    """
    flips = flips_of(case)
    if flips is None:
        return None
    with exact(model.module):
        out = logits(model, flips.samples)
    if not bool(torch.isfinite(out).all()):
        return None
    return (out.argmax(1) == flips.samples.y).cpu()


def _missing(reason: str) -> Measurement:
    return Measurement(probe="mislabelled", evidence=None, missing=reason)


def _controls(test: Tensor, flips: Flips, rng: Rng) -> dict[int, tuple[Tensor, Tensor]]:
    """Return by true class the test samples of it in random order, and the label asked of each.

    The wrong labels of a class stand as often among its controls as among its poisons.
    """
    true, wrong = flips.clean.cpu(), flips.samples.y.cpu()
    found = {}
    for label in sorted(set(true.tolist())):
        here = rng.named("controls", label)
        pool, labels = torch.nonzero(test == label).squeeze(1), wrong[true == label]
        places = pool[torch.from_numpy(here.named("samples").numpy().permutation(len(pool)))]
        labels = labels[torch.from_numpy(here.named("labels").numpy().permutation(len(labels)))]
        found[label] = (places, labels.repeat(len(pool) // len(labels) + 1)[: len(pool)])
    return found
