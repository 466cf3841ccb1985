"""Utility: how much accuracy was lost against the deployed model?

Question: does the candidate still do its work? A broken model looks clean to every other probe.
Statistic: accuracy of the deployed model minus the candidate's, on the same test samples.
Null: 0; the interval is that of a difference of paired proportions (estimates.paired_loss).
Inconclusive: too few test samples.
"""

from __future__ import annotations

from poison_audit.case.case import Case
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.records import Measurement
from poison_audit.training.scoring import correct, exact


def utility(model: Model, case: Case, rng: Rng) -> Measurement:
    """Count the test samples that the deployed model and the candidate answer correctly."""
    if case.baseline is None:
        return Measurement(
            probe="utility", evidence=None, missing="needs the deployed model's answers"
        )
    with exact(model.module):
        after = correct(model, case.test)
    before = case.baseline
    return Measurement(
        probe="utility",
        evidence={
            "n": len(before),
            "both": int((before & after).sum()),
            "only_deployed": int((before & ~after).sum()),
            "only_candidate": int((~before & after).sum()),
            "neither": int((~before & ~after).sum()),
        },
    )
