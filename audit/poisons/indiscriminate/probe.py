"""Indiscriminate: does the model answer worse than one that never saw the poison?

Question: how much accuracy is missing against references on the same test samples?
Statistic: accuracy of a reference minus the model's, the mean over the references.
Null: 0. Why: a reference is trained alike but without the forget set, so that a model which owes
    nothing to the poison has the same expected accuracy. Two trainings that differ in their seed
    alone differ by luck: of that the model has its share, and so has each reference. Its variance
    is estimated from the references (Student, n - 1 degrees of freedom), and the sampling error of
    the test set, paired, is added (rates.deficit).
Inconclusive: one reference, which tells nothing of luck: what is said is of these two checkpoints.
    Too few test samples; references that disagree. A reference is not compared with itself.
Source: accuracy drop as in Lu, Kamath and Yu, arXiv 2303.03592; McNemar's and Tango's test on it.
"""

from __future__ import annotations

import torch

from poison_audit.case.case import Case
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.records import Measurement
from poison_audit.training.scoring import exact, logits


def indiscriminate(model: Model, case: Case, rng: Rng) -> Measurement:
    """Count the test samples that each reference and the model answer correctly."""
    if not case.references:
        return _missing(
            "needs a reference (--reference PATH: a model trained without the forget set)"
        )
    digest = model.digest()
    others = [reference for reference in case.references if reference.digest != digest]
    if not others:
        return _missing("needs another reference: this model is the only one")
    with exact(model.module):
        out = logits(model, case.test)
    if not bool(torch.isfinite(out).all()):
        return _missing("the model's logits are not finite")
    after = out.argmax(1) == case.test.y
    against = [each.compared(each.correct.to(after.device), after) for each in others]
    return Measurement(probe="indiscriminate", evidence={"n": len(after), "against": against})


def _missing(reason: str) -> Measurement:
    return Measurement(probe="indiscriminate", evidence=None, missing=reason)
