"""Every reading: the poisons' and those of what holds whatever the poison."""

from __future__ import annotations

from poison_audit.checks.readings import READINGS as CHECKS
from poison_audit.poisons.readings import READINGS as POISONS
from poison_audit.statistics.reading import Reading

READINGS: dict[str, Reading] = {**POISONS, **CHECKS}
"""By probe, in the order in which they are asked and shown."""


def reading_of(probe: str) -> Reading:
    """Return what a probe's numbers mean; of a probe unknown here, that they decide nothing."""
    return READINGS.get(probe) or Reading(name=probe, title=probe, question="", needs="")
