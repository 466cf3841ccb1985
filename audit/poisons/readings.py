"""The table of the poisons, as everything without torch sees them. A poison is one line here."""

from __future__ import annotations

from typing import Any

from poison_audit.case.poison import Poison
from poison_audit.poisons.backdoor.reading import POISON as BACKDOOR
from poison_audit.poisons.gaussian.reading import POISON as GAUSSIAN
from poison_audit.poisons.indiscriminate.reading import POISON as INDISCRIMINATE
from poison_audit.poisons.mislabelled.reading import POISON as MISLABELLED
from poison_audit.poisons.targeted.reading import POISON as TARGETED
from poison_audit.poisons.token_canary.reading import POISON as TOKEN_CANARY
from poison_audit.statistics.reading import Reading

POISONS: dict[str, Poison] = {
    poison.name: poison
    for poison in (GAUSSIAN, TOKEN_CANARY, TARGETED, BACKDOOR, MISLABELLED, INDISCRIMINATE)
}
"""By name, in the order in which they are shown."""
REHEARSED = GAUSSIAN
"""The poison that a rehearsal plants: its samples are found by a key, in any forget set."""
READINGS: dict[str, Reading[Any]] = {
    reading.name: reading for poison in POISONS.values() for reading in poison.readings
}
"""By probe."""
