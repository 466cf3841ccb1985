"""Every reading: the poisons' and those of what holds whatever the poison."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poison_audit.checks.own import is_own, own_reading
from poison_audit.checks.readings import READINGS as CHECKS
from poison_audit.poisons.readings import READINGS as POISONS
from poison_audit.records import Measurement
from poison_audit.statistics.reading import Reading, Words

if TYPE_CHECKING:
    from poison_audit.statistics.growth import Increase

READINGS: dict[str, Reading[Any]] = {**POISONS, **CHECKS}
"""By probe, in the order in which they are asked and shown."""


def reading_of(probe: str) -> Reading[Any]:
    """Return what a probe's numbers mean; of a probe unknown here, that they decide nothing."""
    if is_own(probe):
        return own_reading(probe)
    unknown = Words(title=probe)
    return READINGS.get(probe) or Reading(
        name=probe, title=probe, question="", needs="", words=unknown, residue=False
    )


def increase(before: Measurement, now: Measurement, *, level: float) -> Increase | None:
    """Return by how much an attack grew; None where the samples cannot be paired.

    Raises:
        InputError: a measurement is not of the form that its probe writes.
    """
    reading = reading_of(now.probe)
    if reading.increase is None or before.evidence is None or now.evidence is None:
        return None
    if before.suspect or now.suspect:
        return None
    return reading.increase(reading.read(before.evidence), reading.read(now.evidence), level)
