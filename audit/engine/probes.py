"""Every probe: the poisons' and those that hold whatever the poison."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from poison_audit.checks.probes import PROBES as CHECKS
from poison_audit.poisons.probes import PROBES as POISONS
from poison_audit.records import Measurement

PROBES: dict[str, Callable[..., Measurement]] = {**POISONS, **CHECKS}
"""By the name of the reading, in the order in which they are asked."""


def probe_parameters(name: str) -> dict[str, int]:
    """Return the parameters of a probe and their defaults."""
    return {
        key: parameter.default
        for key, parameter in inspect.signature(PROBES[name]).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
