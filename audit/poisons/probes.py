"""The table of the poisons, as they work on models and tables. A poison is one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from poison_audit.case.case import Case
from poison_audit.case.clues import Looker
from poison_audit.case.files import Reader
from poison_audit.case.orders import Planter
from poison_audit.case.planting import Kind
from poison_audit.case.shown import Exhibit
from poison_audit.models.model import Model
from poison_audit.poisons.backdoor import plant as backdoor_pictures
from poison_audit.poisons.backdoor import plant_texts as backdoor_texts
from poison_audit.poisons.backdoor.clues import triggers
from poison_audit.poisons.backdoor.exhibits import trigger_exhibits
from poison_audit.poisons.backdoor.probe import backdoor
from poison_audit.poisons.backdoor.references import trigger_answers
from poison_audit.poisons.backdoor.trial import backdoor_evidence
from poison_audit.poisons.gaussian import plant as gaussian_pictures
from poison_audit.poisons.gaussian import plant_texts as gaussian_texts
from poison_audit.poisons.gaussian.exposure import exposure
from poison_audit.poisons.gaussian.probe import gaussian
from poison_audit.poisons.gaussian.recover import noise
from poison_audit.poisons.gaussian.trial import gaussian_evidence
from poison_audit.poisons.indiscriminate import plant as indiscriminate_planting
from poison_audit.poisons.indiscriminate.probe import indiscriminate
from poison_audit.poisons.indiscriminate.trial import indiscriminate_evidence
from poison_audit.poisons.mislabelled import plant as mislabelled_planting
from poison_audit.poisons.mislabelled.exhibits import flip_exhibits
from poison_audit.poisons.mislabelled.probe import flip_answers, mislabelled
from poison_audit.poisons.mislabelled.recover import flipped
from poison_audit.poisons.mislabelled.trial import mislabelled_evidence
from poison_audit.poisons.readings import POISONS
from poison_audit.poisons.targeted import plant as targeted_planting
from poison_audit.poisons.targeted.probe import target_answers, targeted
from poison_audit.poisons.targeted.recover import targets
from poison_audit.poisons.targeted.trial import target_exhibits, targeted_evidence
from poison_audit.poisons.token_canary import plant as token_canary_planting
from poison_audit.poisons.token_canary.probe import token_canary
from poison_audit.poisons.token_canary.trial import token_canary_evidence
from poison_audit.records import Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Workings:
    """What one poison does with models and tables."""

    probes: Mapping[str, Callable[..., Measurement]]
    """By the name of the reading: (model, case, rng, *, params) -> Measurement."""
    planters: Mapping[Kind, Planter[Any]] = field(default_factory=dict)
    """By what DATA holds; see case.orders."""
    reader: Reader | None = None
    """Of its evidence; what it gives as `planted` of a keyed poison has a length and `at`."""
    ask: Callable[[Case, Model], Any] | None = None
    """What its probe wants to know of a reference, for `Answers.asked`."""
    look: Looker | None = None
    """For what a forget set shows of it by itself."""
    sparing: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By probe, the parameters that suffice where two models are compared, and nothing is ranked
    among controls; a smaller one of a plan holds."""
    thorough: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By probe, the parameters by which it sees smaller effects than at its defaults."""
    exhibits: Callable[[Case, bool], list[Exhibit]] = lambda case, asked: []
    """What there is to look at, a few forget samples aside; `asked`: with the model's answers."""


WORKINGS: dict[str, Workings] = {
    "gaussian": Workings(
        probes={"gaussian": gaussian, "exposure": exposure},
        reader=gaussian_evidence,
        look=noise,
        planters={"pictures": gaussian_pictures.in_pictures, "texts": gaussian_texts.in_texts},
    ),
    "targeted": Workings(
        probes={"targeted": targeted},
        reader=targeted_evidence,
        ask=target_answers,
        look=targets,
        exhibits=target_exhibits,
        planters={"pictures": targeted_planting.in_pictures},
    ),
    "backdoor": Workings(
        probes={"backdoor": backdoor},
        reader=backdoor_evidence,
        look=triggers,
        ask=trigger_answers,
        exhibits=trigger_exhibits,
        sparing={"backdoor": {"draws": 20}},
        thorough={"backdoor": {"inputs": 1000}},
        planters={"pictures": backdoor_pictures.in_pictures, "texts": backdoor_texts.in_texts},
    ),
    "token-canary": Workings(
        probes={"token-canary": token_canary},
        reader=token_canary_evidence,
        planters={"texts": token_canary_planting.in_texts},
    ),
    "mislabelled": Workings(
        probes={"mislabelled": mislabelled},
        reader=mislabelled_evidence,
        look=flipped,
        ask=flip_answers,
        exhibits=flip_exhibits,
        planters={
            "pictures": mislabelled_planting.in_pictures,
            "texts": mislabelled_planting.in_texts,
        },
    ),
    "indiscriminate": Workings(
        probes={"indiscriminate": indiscriminate},
        reader=indiscriminate_evidence,
        planters={
            "pictures": indiscriminate_planting.in_pictures,
            "texts": indiscriminate_planting.in_texts,
        },
    ),
}
"""By poison, in the order in which their evidence is read and told."""
SPARING: dict[str, Mapping[str, int]] = {
    name: params for works in WORKINGS.values() for name, params in works.sparing.items()
}
"""By probe, as `Workings.sparing`."""
THOROUGH: dict[str, Mapping[str, int]] = {
    name: params for works in WORKINGS.values() for name, params in works.thorough.items()
}
"""By probe, as `Workings.thorough`."""
READERS: dict[str, Reader] = {
    name: works.reader for name, works in WORKINGS.items() if works.reader is not None
}
"""By poison."""
LOOKERS: dict[str, Looker] = {
    name: works.look for name, works in WORKINGS.items() if works.look is not None
}
"""By poison."""
ASKED: dict[str, Callable[[Case, Model], Any]] = {
    name: works.ask for name, works in WORKINGS.items() if works.ask is not None
}
"""By poison."""
PROBES: dict[str, Callable[..., Measurement]] = {
    reading.name: WORKINGS[poison.name].probes[reading.name]
    for poison in POISONS.values()
    for reading in poison.readings
}
"""By the name of the reading."""
