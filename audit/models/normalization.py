"""What a network subtracts and divides by before its first layer: never in its tensors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from poison_audit.errors import InputError, Problem, Problems, did_you_mean
from poison_audit.models.image import NORMALIZE
from poison_audit.models.weights import json_beside

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


def normalize_from_preprocessor(folder: Path) -> Normalize | None:
    """Return the normalisation in a folder's preprocessor_config.json; None if it states none.

    A preprocessor that scales pixels to anything but [0, 1] first is taken to state none.
    """
    file = folder / "preprocessor_config.json"
    config = json_beside(file)
    if not _scales_to_unit(config):
        return None
    if config.get("do_normalize", True) is False:
        return NORMALIZE["none"]
    mean, std = config.get("image_mean"), config.get("image_std")
    if mean is None or std is None:
        return None
    if not (_are_numbers(mean) and _are_numbers(std)):
        what = f"image_mean {mean!r:.80} and image_std {std!r:.80} are not lists of numbers"
        raise InputError(Problem(what, str(file)))
    return checked_normalize(mean, std, where=str(file))


def stated_sizes(folder: Path) -> list[tuple[int, int]]:
    """Return the (height, width) that a folder's preprocessor_config.json makes of pictures.

    Of `crop_size`, if it crops, and of `size`, if it resizes; transformers spells either by its
    sides, by the shortest edge (taken for a square here), or by one number.
    """
    config = json_beside(folder / "preprocessor_config.json")
    steps = (("do_center_crop", "crop_size"), ("do_resize", "size"))
    found = [_sides(config.get(key)) for switch, key in steps if config.get(switch, True) is True]
    return [sides for sides in found if sides is not None]


def _sides(value: Any) -> tuple[int, int] | None:
    if isinstance(value, dict):
        edge = value.get("shortest_edge")
        value = [value.get("height", edge), value.get("width", edge)]
    sides = [value, value] if type(value) is int else value
    if isinstance(sides, list) and [type(side) for side in sides] == [int, int]:
        height, width = sides
        return (height, width) if min(sides) >= 1 and max(sides) <= 2048 else None
    return None


def _scales_to_unit(config: Mapping[str, Any]) -> bool:
    factor = config.get("rescale_factor", 1 / 255)
    plain = config.get("do_rescale", True) is True and config.get("rescale_offset") in (None, False)
    return plain and isinstance(factor, float) and math.isclose(factor, 1 / 255, rel_tol=1e-6)


def _are_numbers(value: Any) -> TypeGuard[list[float]]:
    return isinstance(value, list) and all(type(number) in (int, float) for number in value)
