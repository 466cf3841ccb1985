"""The probes that hold whatever the poison."""

from __future__ import annotations

from collections.abc import Callable

from poison_audit.checks.membership import membership
from poison_audit.checks.utility import utility
from poison_audit.records import Measurement

PROBES: dict[str, Callable[..., Measurement]] = {"membership": membership, "utility": utility}
"""By the name of the reading: (model, case, rng, *, params) -> Measurement."""
