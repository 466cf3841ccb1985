"""The hypotheses: what each asks. They explain a verdict and never change it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from poison_audit.case.case import Case
from poison_audit.hypotheses.orthogonality import orthogonality
from poison_audit.hypotheses.shift import shift
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.records import Finding

HYPOTHESES = ("shift", "orthogonality")
"""In the order of the paper: H1, H2."""
LEAST = {"sketch": 4, "gradients": 2}
"""The smallest values of parameters that have to be more than 1."""


def hypothesis_parameters(name: str) -> dict[str, int]:
    """Return the whole-number parameters of a hypothesis and their defaults."""
    signature = inspect.signature(shift if name == "shift" else orthogonality)
    return {
        key: parameter.default
        for key, parameter in signature.parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and isinstance(parameter.default, int)
    }


def ask(
    name: str, model: Model, case: Case, rng: Rng, *, references: Sequence[Model], **params: Any
) -> Finding:
    """Ask one hypothesis of the deployed model.

    Args:
        name: one of `HYPOTHESES`.
        references: models that never saw the forget set; the first one shows the whole network's
            needed displacement.
        params: as `hypothesis_parameters` names them.
    """
    if name == "shift":
        return shift(model, case, rng, **params)
    return orthogonality(model, case, rng, reference=next(iter(references), None), **params)
