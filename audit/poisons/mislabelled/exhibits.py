"""The wrong labels that the model gives most surely, to be looked at."""

from __future__ import annotations

from dataclasses import replace

import torch

from poison_audit.case.case import Case
from poison_audit.case.exhibits import exhibit, named
from poison_audit.case.shown import Exhibit
from poison_audit.poisons.mislabelled.reading import POISON
from poison_audit.poisons.mislabelled.trial import flips_of
from poison_audit.training.scoring import logits

WORST = 12
"""Samples that are shown."""


def flip_exhibits(case: Case, asked: bool) -> list[Exhibit]:
    """Return the samples by how far the wrong label's logit lies above the others, largest first.

    Nothing where the model is not asked, or a logit is not finite: nobody knows which they are.
    """
    flips = flips_of(case)
    out = logits(case.model, flips.samples) if flips is not None and asked else None
    if flips is None or out is None or not bool(torch.isfinite(out).all()):
        return []
    wrong = flips.samples.y[:, None]
    rest = out.scatter(1, wrong, -torch.inf).amax(1)
    lead = out.gather(1, wrong).squeeze(1) - rest
    answers, names = out.argmax(1).tolist(), case.forget.names
    return [
        replace(
            exhibit("flip", flips.samples, place, names=names, attack=POISON.name),
            true=named(int(flips.clean[place]), names),
            answer=named(answers[place], names),
        )
        for place in lead.argsort(descending=True, stable=True)[:WORST].tolist()
    ]
