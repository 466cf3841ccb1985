"""trigger.json: the patch of a backdoor, where it is put, and the label it is to cause."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poison_audit.case.keyfile import read_object, wrong_keys
from poison_audit.errors import InputError, Problem, did_you_mean

VERSION = 1
MOST_BYTES = 16 << 20
"""Largest file that is read: a patch of 500,000 values."""
_KEYS = ("version", "label", "top", "left", "pixels")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """A patch that a backdoored model answers with one label."""

    pixels: Tensor
    """(c, h, w), float32 in [0, 1]."""
    top: int
    """Row of the patch's upper edge, from 0."""
    left: int
    """Column of its left edge, from 0."""
    label: int
    """The label it is to cause."""

    def to(self, device: torch.device | str) -> Trigger:
        """Return the same trigger on `device`."""
        return replace(self, pixels=self.pixels.to(device))

    def stamp(self, x: Tensor) -> Tensor:
        """Return pictures (n, c, H, W), floating point in [0, 1], with the patch put on them."""
        height, width = self.pixels.shape[1:]
        stamped = x.clone()
        stamped[..., self.top : self.top + height, self.left : self.left + width] = self.pixels
        return stamped


def read_trigger(
    path: Path, *, shape: tuple[int, ...], classes: int, names: Sequence[str] | None = None
) -> Trigger:
    """Read a trigger.

    Args:
        path: trigger.json: `label` is a class number or name, `pixels` are nested lists (c, h, w).
        shape: of the pictures it is put on: (c, H, W).
        classes: how many labels there are.
        names: what they are called.

    Raises:
        InputError: with everything that is wrong with the file.
    """
    where = str(path)
    fields, problems = trigger_fields(path, _KEYS)
    label = trigger_label(fields.get("label", 0), classes, names, where)
    pixels = _pixels(fields["pixels"], shape, where) if "pixels" in fields else None
    for found in (label, pixels):
        problems += [found] if isinstance(found, Problem) else []
    for key, axis, edge in (("top", 1, "rows"), ("left", 2, "columns")):
        size = pixels.shape[axis] if isinstance(pixels, np.ndarray) else 1
        problems += _misplaced(fields.get(key, 0), size, shape[axis], f"{where} {key}", edge)
    if problems or isinstance(label, Problem) or not isinstance(pixels, np.ndarray):
        raise InputError(problems)
    return Trigger(
        pixels=torch.from_numpy(pixels), top=fields["top"], left=fields["left"], label=label
    )


def write_trigger(path: Path, trigger: Trigger) -> None:
    """Write a trigger, its label as a class number."""
    fields = {
        "version": VERSION,
        "label": trigger.label,
        "top": trigger.top,
        "left": trigger.left,
        "pixels": trigger.pixels.cpu().tolist(),
    }
    path.write_text(json.dumps(fields, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def trigger_fields(path: Path, known: Sequence[str]) -> tuple[dict[str, Any], list[Problem]]:
    """Return the fields of a trigger.json, and what is wrong with its keys and its version."""
    where, fix = str(path), "Give the patch alone, not the whole picture."
    fields, _ = read_object(path, most=MOST_BYTES, fix=fix)
    problems = wrong_keys(fields, known, where)
    if "version" in fields and (fields["version"] is True or fields["version"] != VERSION):
        what = f"expected {VERSION}, got {fields['version']!r:.60}"
        problems.append(Problem(what, f"{where} version"))
    return fields, problems


def trigger_label(
    value: object, classes: int, names: Sequence[str] | None, where: str
) -> int | Problem:
    """Return the class number of a trigger's label, or what is wrong with it."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < classes:
        return value
    if isinstance(value, str) and names is not None and value in names[:classes]:
        return list(names).index(value)
    hint = f"Classes are 0 to {classes - 1}."
    if isinstance(value, str) and names is not None:
        hint = did_you_mean(value, names)
    return Problem(f"unknown label {value!r:.60}", f"{where} label", hint)


def _pixels(
    value: object, shape: tuple[int, ...], where: str
) -> np.ndarray[Any, np.dtype[np.float32]] | Problem:
    place, fix = f"{where} pixels", "Give them as nested lists: channels, rows, columns."
    channels = value if isinstance(value, list) else []
    rows = [row for channel in channels if isinstance(channel, list) for row in channel]
    cells = [cell for row in rows if isinstance(row, list) for cell in row]
    if not cells or not all(_is_number(cell) for cell in cells):
        return Problem("expected numbers in three levels of lists, not empty", place, fix)
    try:
        pixels = np.array(value, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        pixels = np.empty(0)
    if pixels.ndim != 3:
        return Problem("the rows or channels are of different sizes", place, fix)
    if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
        worst = next(cell for cell in cells if not 0 <= cell <= 1)
        return Problem(
            f"expected values from 0 to 1, got {worst!r:.60}", place, "Divide 8-bit values by 255."
        )
    if pixels.shape[0] != shape[0]:
        return Problem(f"{pixels.shape[0]} channels, but the pictures have {shape[0]}", place)
    if pixels.shape[1] > shape[1] or pixels.shape[2] > shape[2]:
        size, whole = (" x ".join(map(str, s[1:])) for s in (pixels.shape, shape))
        return Problem(f"a patch of {size} is larger than the pictures, {whole}", place)
    return pixels.astype(np.float32)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _misplaced(value: object, size: int, whole: int, where: str, edge: str) -> list[Problem]:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        return [Problem(f"expected an integer from 0, got {value!r:.60}", where)]
    if value + size > whole >= size:
        what = f"a patch of {size} {edge} from {value} leaves the picture, which has {whole}"
        return [Problem(what, where)]
    return []
