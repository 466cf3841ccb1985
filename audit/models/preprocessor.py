"""What a preprocessor_config.json, or timm's config.json, says is done to pictures before a model.

Scale and normalisation are obeyed. A size cannot be: triggers and noise stand in the pixels of the
tables, so that pictures of another size must be stored again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from poison_audit.errors import InputError, Problem
from poison_audit.models.image import NORMALIZE
from poison_audit.models.normalization import Normalize, checked_normalize
from poison_audit.models.weights import json_beside

FILE = "preprocessor_config.json"
_PROCESSOR = "processor_config.json"
_FILTERS = {0: "nearest", 1: "Lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "Hamming"}
_LARGE = 384
"""From this size on a ConvNext's preprocessor crops nothing."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures that a preprocessor makes."""

    height: int | None
    """None: of any height of which the shorter side is `shortest`."""
    width: int | None
    shortest: int | None
    how: str
    """Such as `resized, bilinear`."""
    file: Path

    def fits(self, height: int, width: int) -> bool:
        """Say whether a picture of this size may come from the preprocessor."""
        if self.height is None:
            return min(height, width) == self.shortest
        return (height, width) == (self.height, self.width)

    @property
    def size(self) -> str:
        """The size as people say it."""
        if self.height is None:
            return f"{self.shortest} pixels on the shorter side"
        return f"{self.height}x{self.width}"


def misfit(pictures: Pictures | None, shape: Sequence[int], where: str) -> Problem | None:
    """Return what is wrong with a table's pictures of this shape (channels, height, width)."""
    if pictures is None or pictures.fits(*shape[-2:]):
        return None
    here = f"{shape[-2]}x{shape[-1]}"
    what = (
        f"has pictures of {here}, and {pictures.file} makes them {pictures.size} ({pictures.how})"
    )
    fix = (
        "Store them, and the trigger, as training saw them: AutoImageProcessor.from_pretrained("
        f"{str(pictures.file.parent)!r})(picture, do_rescale=False, do_normalize=False). If "
        f"training saw {here}, set do_resize and do_center_crop to false in that file."
    )
    return Problem(what, where, fix)


def pictures_of(folder: Path) -> Pictures | None:
    """Return what a folder's preprocessor makes of pictures; None: it changes no size.

    Raises:
        InputError: the file cannot be read.
    """
    file, config = _config(folder)
    resizes, crops = config.get("do_resize") is True, config.get("do_center_crop") is True
    size = config.get("size") if resizes else None
    by = _FILTERS.get(config.get("resample", -1))
    told = [f"resized, {by}" if by else "resized"] if resizes else []
    if crops and (cropped := _sides(config.get("crop_size"), square=True)):
        return Pictures(*cropped, "; ".join([*told, "cropped"]), file)
    if size is None:
        return None
    edge = size.get("shortest_edge") if isinstance(size, dict) else None
    if type(config.get("crop_pct")) is float and type(edge) is int:  # ConvNext
        told += ["cropped"] if edge < _LARGE else []
        return Pictures(edge, edge, None, "; ".join(told), file)
    sides = _sides(size, square=not crops)
    return Pictures(*sides, "; ".join(told), file) if sides else None


def _sides(size: Any, *, square: bool) -> tuple[int | None, int | None, int | None] | None:
    """Return height, width and shorter side; None: nothing that can be told."""
    if type(size) is int and size > 0:
        return (size, size, None) if square else (None, None, size)
    if not isinstance(size, dict):
        return None
    sides = [size.get(key) for key in ("height", "width", "shortest_edge")]
    numbers = [type(side) is int and side > 0 for side in sides]
    if numbers[0] and numbers[1]:
        return sides[0], sides[1], None
    return (None, None, sides[2]) if numbers[2] and "longest_edge" not in size else None


def normalize_from_preprocessor(folder: Path) -> Normalize | None:
    """Return what a folder's preprocessor does to [0, 1] pixels; None if it does not say.

    A preprocessor takes 8-bit values, multiplies them and then normalises: of x in [0, 1] that is
    (255 f x - offset - mean) / std.

    Raises:
        InputError: the file cannot be read, or says what cannot normalise.
    """
    file, config = _config(folder)
    if not config:
        return _of_timm(folder)
    mean, std = config.get("image_mean"), config.get("image_std")
    if config.get("do_normalize", True) is False:
        mean, std = [0.0], [1.0]
    if mean is None or std is None:
        return None
    if not (_are_numbers(mean) and _are_numbers(std)):
        what = f"image_mean {mean!r:.80} and image_std {std!r:.80} are not lists of numbers"
        raise InputError(Problem(what, str(file)))
    if _divides_twice(config):
        std = [value * value for value in std]
    scale = _scale(config, mean)
    if scale is None:
        return None
    offset = 1.0 if config.get("rescale_offset") is True else 0.0
    if scale != 1 or offset:
        mean, std = [(m + offset) / scale for m in mean], [value / scale for value in std]
        if max(mean) > 1:  # what no picture is normalised by
            return None
    if len(mean) == 1 and (mean[0], std[0]) == (0, 1):
        return NORMALIZE["none"]
    return checked_normalize(mean, std, where=str(file))


def _scale(config: Mapping[str, Any], mean: Sequence[float]) -> float | None:
    """Return what white becomes before it is normalised; None: the file does not tell."""
    if config.get("do_rescale", True) is not True:
        # Who rescales nothing may give it pictures in [0, 1] already: means of 8 bits tell.
        return 255.0 if max(mean) > 1 else None
    factor = config.get("rescale_factor", 1 / 255)
    if type(factor) not in (int, float) or not factor > 0:
        return None
    return 1.0 if math.isclose(factor, 1 / 255, rel_tol=1e-6) else 255 * float(factor)


def _divides_twice(config: Mapping[str, Any]) -> bool:
    """Say whether it is EfficientNet's, which divides by the deviations once more."""
    kind = str(config.get("image_processor_type", ""))
    return kind.startswith("EfficientNet") and config.get("include_top", True) is True


def timm_config(folder: Path) -> dict[str, Any]:
    """Return timm's config.json of a folder; empty: there is none, or it is another library's."""
    config = json_beside(folder / "config.json")
    ours = isinstance(config.get("architecture"), str) and "model_type" not in config
    return config if ours else {}


def timm_labels(folder: Path, classes: int) -> tuple[str, ...] | None:
    """Return what timm's config.json calls the classes, in the order of the outputs."""
    names = timm_config(folder).get("label_names")
    if not isinstance(names, list) or len(names) != classes or len(set(map(str, names))) != classes:
        return None
    return tuple(map(str, names))


def _of_timm(folder: Path) -> Normalize | None:
    config = timm_config(folder)
    inner = config.get("pretrained_cfg")
    config = inner if isinstance(inner, dict) else config
    mean, std = config.get("mean"), config.get("std")
    if not (_are_numbers(mean) and _are_numbers(std)):
        return None
    return checked_normalize(mean, std, where=str(folder / "config.json"))


def _config(folder: Path) -> tuple[Path, dict[str, Any]]:
    file = folder / FILE
    if not file.is_file() and (folder / _PROCESSOR).is_file():
        inner = json_beside(folder / _PROCESSOR).get("image_processor")
        if isinstance(inner, dict):
            return folder / _PROCESSOR, inner
    return file, json_beside(file)


def _are_numbers(value: Any) -> TypeGuard[list[float]]:
    return isinstance(value, list) and all(type(number) in (int, float) for number in value)
