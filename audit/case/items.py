"""One item of somebody's data set: its sample and its label, whatever it is kept in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from poison_audit.errors import InputError, Problem

INPUTS = ("text", "sentence", "image", "img", "pixel_values", "x", "input", "inputs", "data")
LABELS = ("label", "labels", "fine_label", "target", "targets", "y")
"""What they are called, the first that is there."""
_FIX = "Give (x, y), or a dict with image or text and label"


def item_of(item: Any, place: int, where: str) -> tuple[Any, Any]:
    """Return a sample, an array or a text, and its label, a number or a name.

    Args:
        item: (sample, label, ..), or a mapping.
        place: its position, for messages.
        where: what messages call the data set.

    Raises:
        InputError: it is no such item.
    """
    x_at, y_at = keys_of(item, place, where)
    x, y = item[x_at], item[y_at]
    return x if isinstance(x, str) else picture_of(x), y.item() if hasattr(y, "item") else y


def keys_of(item: Any, place: int, where: str) -> tuple[Any, Any]:
    """Return where in an item its sample and its label stand."""
    if isinstance(item, Mapping):
        found = [next((k for k in names if k in item), None) for names in (INPUTS, LABELS)]
        if None not in found:
            return found[0], found[1]
    elif isinstance(item, tuple | list) and len(item) > 1:
        return 0, 1
    keys = f": {', '.join(map(str, item))}" if isinstance(item, Mapping) else ""
    what = f"item {place} is a {type(item).__name__}{keys}, no sample and label"
    raise InputError(Problem(what, where, _FIX))


def picture_of(x: Any) -> Any:
    """Return a picture as an array."""
    if isinstance(x, Image.Image):
        x = x if x.mode in ("L", "RGB") else x.convert("RGB")
        return np.asarray(x)
    return array_of(x)


def array_of(values: Any) -> Any:
    """Return an array, or a list of texts."""
    if isinstance(values, torch.Tensor):
        plain = values.detach().cpu()
        return (plain.float() if plain.dtype is torch.bfloat16 else plain).numpy()
    if isinstance(values, Sequence) and values and isinstance(values[0], str):
        return list(values)
    return np.asarray(values)
