"""Membership: does the model still fit the forget samples better than test samples?

Question: can a loss threshold tell forget samples from samples that were never trained on?
Statistic: area under the ROC curve of minus the loss, forget against test; TPR at FPR 0.01.
Null: 1/2, if forget and test samples were drawn alike. They seldom were: poison is unlike clean
    data, so the value can lie on either side of 1/2 whether or not the model saw it.
Decides nothing. Pawelczyk et al. (arXiv 2406.17216, figure 2) show that it calls poisoned models
    clean; it is shown because readers expect it.
Source: Yeom et al., CSF 2018, arXiv 1709.01604; TPR at low FPR: Carlini et al., arXiv 2112.03570.
"""

from __future__ import annotations

import numpy as np

from poison_audit.case.case import Case
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.records import Measurement
from poison_audit.statistics.estimates import auc
from poison_audit.training.scoring import exact, losses

FPR = 0.01


def membership(model: Model, case: Case, rng: Rng) -> Measurement:
    """Measure how well the loss separates forget from test samples."""
    if min(len(case.forget), len(case.test)) < 2:
        return Measurement(
            probe="membership", evidence=None, missing="needs two forget and two test samples"
        )
    with exact(model.module):
        inside = -losses(model, case.forget).double().cpu().numpy()
        outside = -losses(model, case.test).double().cpu().numpy()
    if not (np.isfinite(inside).all() and np.isfinite(outside).all()):
        return Measurement(
            probe="membership", evidence=None, missing="the model's losses are not finite"
        )
    area = auc(inside, outside)
    # The smallest threshold that at most this share of test samples exceeds.
    threshold = np.sort(outside)[len(outside) - 1 - int(FPR * len(outside))]
    return Measurement(
        probe="membership",
        evidence={
            "forget": len(inside),
            "test": len(outside),
            "auc": area.value,
            "auc_se": area.error,
            "hits": int((inside > threshold).sum()),
            "fpr": FPR,
        },
    )
