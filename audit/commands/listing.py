"""`methods`: what there is, with its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from poison_audit import methods as room


def listed_methods() -> list[str]:
    """Return the lines that tell each method, its numbers and presets, and what is installed."""
    installed = entry_points(group="poison_audit.methods")
    width = 2 + max(map(len, [*room.METHODS, *installed.names]))
    lines = []
    for name, method in room.METHODS.items():
        given = room.parameters(name)
        chosen = [key for key, number in given.items() if number is None]
        told = [_numbers({key: number for key, number in given.items() if number is not None})]
        told += [f"by the recipe or the data: {', '.join(chosen)}"] * bool(chosen)
        lines.append(f"{name:<{width}}{method.title}. {method.source}")
        lines.append(f"{'':<{width}}{'; '.join(filter(None, told)) or 'no parameters'}")
        for preset, numbers in method.presets.items():
            lines.append(f"{'':<{width}}preset={preset}: {_numbers(numbers)}")
    for point in installed:
        told_of = f"Installed, {point.value}. Runs by --method-from {point.name}"
        lines.append(f"{point.name:<{width}}{told_of}")
    return lines


def _numbers(given: Mapping[str, Any]) -> str:
    told = {k: f"{each:g}" if isinstance(each, float) else each for k, each in given.items()}
    return ", ".join(f"{k}={'none' if each is None else each}" for k, each in told.items())
