"""The table of the poisons, as they work on models and tables. A poison is one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from poison_audit.case.orders import Planter
from poison_audit.case.planting import Kind
from poison_audit.poisons.backdoor import plant as backdoor_pictures
from poison_audit.poisons.backdoor import plant_texts as backdoor_texts
from poison_audit.poisons.backdoor.probe import backdoor
from poison_audit.poisons.gaussian import plant as gaussian_pictures
from poison_audit.poisons.gaussian import plant_texts as gaussian_texts
from poison_audit.poisons.gaussian.exposure import exposure
from poison_audit.poisons.gaussian.probe import gaussian
from poison_audit.poisons.indiscriminate import plant as indiscriminate_planting
from poison_audit.poisons.indiscriminate.probe import indiscriminate
from poison_audit.poisons.targeted import plant as targeted_planting
from poison_audit.poisons.targeted.probe import targeted
from poison_audit.poisons.token_canary import plant as token_canary_planting
from poison_audit.poisons.token_canary.probe import token_canary
from poison_audit.records import Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Workings:
    """What one poison does with models and tables."""

    probes: Mapping[str, Callable[..., Measurement]]
    """By the name of the reading: (model, case, rng, *, params) -> Measurement."""
    planters: Mapping[Kind, Planter[Any]] = field(default_factory=dict)
    """By what DATA holds; see case.orders."""


WORKINGS: dict[str, Workings] = {
    "gaussian": Workings(
        probes={"gaussian": gaussian, "exposure": exposure},
        planters={"pictures": gaussian_pictures.in_pictures, "texts": gaussian_texts.in_texts},
    ),
    "token-canary": Workings(
        probes={"token-canary": token_canary},
        planters={"texts": token_canary_planting.in_texts},
    ),
    "targeted": Workings(
        probes={"targeted": targeted}, planters={"pictures": targeted_planting.in_pictures}
    ),
    "backdoor": Workings(
        probes={"backdoor": backdoor},
        planters={"pictures": backdoor_pictures.in_pictures, "texts": backdoor_texts.in_texts},
    ),
    "indiscriminate": Workings(
        probes={"indiscriminate": indiscriminate},
        planters={
            "pictures": indiscriminate_planting.in_pictures,
            "texts": indiscriminate_planting.in_texts,
        },
    ),
}
"""By poison."""
PROBES: dict[str, Callable[..., Measurement]] = {
    name: probe for works in WORKINGS.values() for name, probe in works.probes.items()
}
"""By the name of the reading."""
