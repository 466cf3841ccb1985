"""What `plant` does: a clean table -> a poisoned copy, its forget.csv and the evidence it needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from poison_audit.case.texts import holds_texts
from poison_audit.commands.plant_pictures import plant_pictures
from poison_audit.commands.plant_texts import plant_texts


def plant(given: Mapping[str, Any]) -> int:
    """Plant one attack from the command line's values; return the exit code.

    Raises:
        InputError: every problem of every file and option, at once.
        PlanError: what was asked for cannot be planted in this table.
    """
    (plant_texts if holds_texts(given["data"]) else plant_pictures)(given)
    return 0
