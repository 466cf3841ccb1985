"""What a network subtracts and divides by before its first layer: never in its tensors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from poison_audit.errors import InputError, Problem, Problems, did_you_mean
from poison_audit.models.image import NORMALIZE

Normalize = tuple[tuple[float, ...], tuple[float, ...]]
"""Channel means and standard deviations, in [0, 1] pixels; one value serves all channels."""

NORMALIZE_KEY = "poison_audit.normalize"
"""The header's key: JSON, `[[means], [standard deviations]]`."""

_SPELLINGS = f"Known: {', '.join(NORMALIZE)}; or MEANS/STDS as in 0.5,0.5,0.5/0.2,0.2,0.2."


def parse_normalize(text: str, *, where: str = "--normalize") -> Normalize:
    """Read a normalisation as the command line and audit.toml spell it.

    >>> parse_normalize("none")
    ((0.0,), (1.0,))
    >>> parse_normalize("0.5,0.5,0.5/0.25,0.25,0.25")
    ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    >>> parse_normalize("0.5,0.2")
    ((0.5,), (0.2,))

    Raises:
        InputError: an unknown name, not numbers, or numbers that cannot normalise.
    """
    if text in NORMALIZE:
        return NORMALIZE[text]
    halves = text.split("/") if "/" in text else text.split(",")
    try:
        values = [tuple(float(number) for number in half.split(",")) for half in halves]
    except ValueError as error:
        fix = did_you_mean(text, NORMALIZE) if text.isalnum() else _SPELLINGS
        raise InputError(Problem(f"unknown normalisation {text!r}", where, fix)) from error
    if len(values) != 2:
        raise InputError(Problem(f"{text!r} is not two groups of numbers", where, _SPELLINGS))
    return checked_normalize(*values, where=where)


def checked_normalize(mean: Sequence[float], std: Sequence[float], *, where: str) -> Normalize:
    """Return what can be means and standard deviations; InputError: everything that is wrong."""
    problems = Problems()
    if not mean or len(mean) != len(std):
        problems.append(Problem(f"{len(mean)} means and {len(std)} standard deviations", where))
    if not all(0 <= value <= 1 for value in mean):
        what, fix = f"means {list(mean)} outside [0, 1]", "Pixels lie in [0, 1]: divide by 255."
        problems.append(Problem(what, where, fix))
    if not all(math.isfinite(value) and value > 0 for value in std):
        problems.append(Problem(f"standard deviations {list(std)} are not above 0", where))
    problems.raise_any()
    return tuple(map(float, mean)), tuple(map(float, std))


def spell_normalize(normalize: Normalize) -> str:
    """Return the text that `parse_normalize` reads back.

    >>> spell_normalize(((0.0,), (1.0,)))
    'none'
    >>> spell_normalize(((0.5, 0.5), (0.25, 0.2)))
    '0.5,0.5/0.25,0.2'
    """
    for name, known in NORMALIZE.items():
        if known == normalize:
            return name
    return "/".join(",".join(map(repr, values)) for values in normalize)


def same_normalize(one: Normalize, other: Normalize) -> bool:
    """Return whether two normalisations do the same, one value serving all channels.

    A buffer has six digits of what was typed.

    >>> same_normalize(((0.5,), (0.2,)), ((0.5, 0.5, 0.5), (0.2, 0.2, 0.2)))
    True
    """
    channels = max(len(one[0]), len(other[0]))

    def spread(normalize: Normalize) -> list[tuple[float, ...]]:
        return [values * channels if len(values) == 1 else values for values in normalize]

    a, b = (sum(spread(each), ()) for each in (one, other))
    near = [math.isclose(ours, theirs, rel_tol=1e-5) for ours, theirs in zip(a, b, strict=False)]
    return len(a) == len(b) and all(near)


def normalize_from_header(metadata: Mapping[str, str], *, where: str) -> Normalize | None:
    """Return the normalisation in a safetensors header; None if it states none."""
    text = metadata.get(NORMALIZE_KEY)
    if text is None:
        return None
    where = f"{where} header {NORMALIZE_KEY}"
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(Problem(f"not JSON ({error})", where)) from error
    if not (isinstance(value, list) and len(value) == 2 and all(map(_are_numbers, value))):
        raise InputError(Problem(f"expected [[means], [stds]], got {text!r:.80}", where))
    return checked_normalize(value[0], value[1], where=where)


def _are_numbers(value: Any) -> TypeGuard[list[float]]:
    return isinstance(value, list) and all(type(number) in (int, float) for number in value)
