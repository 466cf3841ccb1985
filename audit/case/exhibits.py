"""Samples to look at: as small pictures or cut texts, for a reader who was not there."""

from __future__ import annotations

import base64
import io
from typing import Literal

import numpy as np
from PIL import Image
from torch import Tensor

from poison_audit.case.shown import Exhibit
from poison_audit.models.samples import Samples, as_pixels

EDGE = 96
"""Longest edge of a picture in pixels; larger ones are made smaller."""
LETTERS = 400
"""Longest text."""


def exhibit(
    role: Literal["target", "forget", "trigger", "flip"],
    samples: Samples,
    place: int,
    *,
    names: tuple[str, ...] | None,
    attack: str = "",
) -> Exhibit:
    """Return one sample to look at, its label by name where there are `names`."""
    parts = [every[place] for every in (samples.texts, samples.pairs) if every is not None]
    text = _cut(" // ".join(parts)) if parts else None
    return Exhibit(
        role=role,
        name=samples.ids[place],
        label=named(int(samples.y[place]), names),
        attack=attack,
        png=as_png(as_pixels(samples.x[place])) if samples.texts is None else None,
        text=text,
    )


def named(label: int, names: tuple[str, ...] | None) -> str:
    """Return a label by its name, where there are `names` and it has one."""
    return names[label] if names is not None and label < len(names) else str(label)


def spread(places: list[int], most: int) -> list[int]:
    """Return at most so many of the places, evenly spread."""
    if len(places) <= most:
        return places
    return [places[round(i * (len(places) - 1) / (most - 1))] for i in range(most)]


def as_png(pixels: Tensor) -> str | None:
    """Return a picture in [0, 1], (1 or 3, h, w), as base64 of a PNG; None: no picture of these.

    What lies outside of [0, 1], as unclipped canaries do, is shown as black or white.
    """
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3):
        return None
    grey = (pixels.detach().float().cpu().clamp(0, 1) * 255).round().byte().numpy()
    array = np.ascontiguousarray(grey[0] if len(grey) == 1 else grey.transpose(1, 2, 0))
    picture = Image.fromarray(array)
    if max(picture.size) > EDGE:
        picture.thumbnail((EDGE, EDGE))
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode("ascii")


def _cut(text: str) -> str:
    return text if len(text) <= LETTERS else f"{text[: LETTERS - 1]}\u2026"
