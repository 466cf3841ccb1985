"""The table of the poisons, as they work on models and tables. A poison is one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from poison_audit.poisons.backdoor.probe import backdoor
from poison_audit.poisons.gaussian.exposure import exposure
from poison_audit.poisons.gaussian.probe import gaussian
from poison_audit.poisons.indiscriminate.probe import indiscriminate
from poison_audit.poisons.targeted.probe import targeted
from poison_audit.poisons.token_canary.probe import token_canary
from poison_audit.records import Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Workings:
    """What one poison does with models and tables."""

    probes: Mapping[str, Callable[..., Measurement]]
    """By the name of the reading: (model, case, rng, *, params) -> Measurement."""


WORKINGS: dict[str, Workings] = {
    "gaussian": Workings(probes={"gaussian": gaussian, "exposure": exposure}),
    "token-canary": Workings(probes={"token-canary": token_canary}),
    "targeted": Workings(probes={"targeted": targeted}),
    "backdoor": Workings(probes={"backdoor": backdoor}),
    "indiscriminate": Workings(probes={"indiscriminate": indiscriminate}),
}
"""By poison."""
PROBES: dict[str, Callable[..., Measurement]] = {
    name: probe for works in WORKINGS.values() for name, probe in works.probes.items()
}
"""By the name of the reading."""
