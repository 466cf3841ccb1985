"""trigger.json: the patch or phrase of a backdoor, where it is put, and the label it causes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poison_audit.case.keyfile import (
    VERSION,
    Rules,
    read_object,
    write_object,
    wrong_keys,
    wrong_values,
)
from poison_audit.case.labels import are_other_numbers, as_known
from poison_audit.errors import InputError, Problem, Problems, did_you_mean
from poison_audit.models.model import Batch
from poison_audit.models.seeds import Rng

MOST_BYTES = 16 << 20
"""Largest file that is read: a patch of 500,000 values."""
Place = Literal["start", "end", "anywhere"]
PLACES: tuple[Place, ...] = ("start", "end", "anywhere")
MOST_LETTERS = 1000
_LETTER = re.compile(r"[A-Za-z0-9_]")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrase:
    """A token, word or phrase that a backdoored model answers with one label."""

    text: str
    """Not empty, without whitespace around it."""
    position: Place
    """Before the text, after it, or where one of its words begins or ends; a space between."""
    label: int
    """The label it is to cause."""

    def on(self, text: str) -> str:
        """Return a text with the phrase put on it.

        >>> Phrase(text="cf mn", position="start", label=1).on("a dull film")
        'cf mn a dull film'
        """
        return self.put(text)[0]

    def put(self, text: str) -> tuple[str, int]:
        """Return a text with the phrase put on it, and at which letter the phrase begins.

        `anywhere` is drawn among the places before, between and after a text's words, by a
        generator that phrase and text name: whoever stamps a text stamps it alike.

        >>> Phrase(text="cf mn", position="anywhere", label=1).put("one dull film")
        ('one cf mn dull film', 4)
        """
        ends = [found.start() for found in re.finditer(r"\s+", text)]
        after = {"start": 0, "end": len(ends) + 1}.get(self.position)
        if after is None:
            drawn = Rng(0).named("anywhere", self.text, text).numpy()
            after = int(drawn.integers(len(ends) + 2))
        if after == 0:
            return f"{self.text} {text}", 0
        end = [*ends, len(text)][after - 1]
        return f"{text[:end]} {self.text}{text[end:]}", end + 1

    def stands_in(self, text: str) -> bool:
        """Say whether a text holds the phrase where it belongs."""
        if self.position == "start":
            return text == self.text or text.startswith(f"{self.text} ")
        if self.position == "end":
            return text == self.text or text.endswith(f" {self.text}")
        # Not as a part of another word, in scripts that put spaces between words.
        before = "(?<![A-Za-z0-9_])" if _LETTER.match(self.text[0]) else ""
        after = "(?![A-Za-z0-9_])" if _LETTER.match(self.text[-1]) else ""
        return bool(re.search(f"{before}{re.escape(self.text)}{after}", text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamps:
    """A trigger and its controls, to be put on inputs."""

    triggers: int
    """How many: the trigger, number 0, and its controls."""
    inputs: Tensor
    """The inputs that the trigger fits on, by place: int64, on the CPU."""
    batch: Callable[[Tensor, Tensor], Batch]
    """(which trigger, which place), int64, both (rows,) -> the stamped inputs."""
    controls: str
    """What is drawn anew in a control."""


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
    fields, problems = trigger_fields(path, _PATCH_RULES, classes, names)
    pixels = None
    if "pixels" in fields:
        with problems.collecting():
            pixels = _pixels(fields["pixels"], shape, f"{path} pixels")
    for key, axis, edge in (("top", 1, "rows"), ("left", 2, "columns")):
        start: Any = fields.get(key)
        whole = shape[axis]
        size = 1 if pixels is None else pixels.shape[axis]
        if _is_place(start) and start + size > whole >= size:
            what = f"a patch of {size} {edge} from {start} leaves the picture, which has {whole}"
            problems.append(Problem(what, f"{path} {key}"))
    if problems or pixels is None:
        raise InputError(problems)
    return Trigger(
        pixels=torch.from_numpy(pixels), **{key: fields[key] for key in ("top", "left", "label")}
    )


def write_trigger(path: Path, trigger: Trigger) -> None:
    """Write a trigger, its label as a class number."""
    place = {"label": trigger.label, "top": trigger.top, "left": trigger.left}
    write_object(path, {**place, "pixels": trigger.pixels.cpu().tolist()})


def trigger_fields(
    path: Path, rules: Rules, classes: int, names: Sequence[str] | None
) -> tuple[dict[str, Any], Problems]:
    """Return the fields of a trigger.json, its label as a class number, and what is wrong."""
    where, fix = str(path), "Give the patch alone, not the whole picture."
    fields, _ = read_object(path, most=MOST_BYTES, fix=fix)
    problems = Problems(wrong_keys(fields, ("version", "label", *rules), where))
    problems += wrong_values(fields, VERSION, where)
    label = fields.get("label", 0)
    if isinstance(label, str) and names is not None:
        label = fields["label"] = as_known([label], names)[0]
    if isinstance(label, str) and names is not None and label in names[:classes]:
        fields["label"] = list(names).index(label)
    elif type(label) is not int or not 0 <= label < classes:
        hint = f"Classes are 0 to {classes - 1}."
        if isinstance(label, str) and names is not None:
            hint = did_you_mean(label, names)
        problems.append(Problem(f"unknown label {label!r:.60}", f"{where} label", hint))
    elif names is not None and are_other_numbers(names) and str(label) in names:
        place = list(names).index(str(label))
        what = f"{label} may be the class's number, or the name of class {place}"
        fix = f'Write the name of the label, in quotes: "{label}" or another.'
        problems.append(Problem(what, f"{where} label", fix))
    problems += wrong_values(fields, rules, where)
    return fields, problems


def _pixels(value: object, shape: tuple[int, ...], place: str) -> NDArray[np.float32]:
    fix = "Give them as nested lists: channels, rows, columns."
    channels = value if isinstance(value, list) else []
    rows = [row for channel in channels if isinstance(channel, list) for row in channel]
    cells = [cell for row in rows if isinstance(row, list) for cell in row]
    if not cells or not all(type(cell) in (int, float) for cell in cells):
        what = "expected numbers in three levels of lists, not empty"
        raise InputError(Problem(what, place, fix))
    try:
        pixels = np.array(value, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        pixels = np.empty(0)
    if pixels.ndim != 3:
        what = "the rows or channels are of different sizes"
        raise InputError(Problem(what, place, fix))
    if (worst := next((cell for cell in cells if not 0 <= cell <= 1), None)) is not None:
        what = f"expected values from 0 to 1, got {worst!r:.60}"
        fix = "Divide 8-bit values by 255; undo a normalisation: x * std + mean."
        raise InputError(Problem(what, place, fix))
    if pixels.shape[0] != shape[0]:
        what = f"{pixels.shape[0]} channels, but the pictures have {shape[0]}"
        raise InputError(Problem(what, place))
    if pixels.shape[1] > shape[1] or pixels.shape[2] > shape[2]:
        size, whole = (" x ".join(map(str, s[1:])) for s in (pixels.shape, shape))
        what = f"a patch of {size} is larger than the pictures, {whole}"
        raise InputError(Problem(what, place))
    return pixels.astype(np.float32)


def _is_place(value: Any) -> bool:
    return type(value) is int and value >= 0


_PATCH_RULES: Rules = {
    "top": ("an integer from 0", _is_place),
    "left": ("an integer from 0", _is_place),
    "pixels": ("pixels, of which more is asked", lambda value: True),
}


def read_phrase(path: Path, *, classes: int, names: Sequence[str] | None = None) -> Phrase:
    """Read a trigger of texts, as `read_trigger` does, but of a `phrase` and its `position`."""
    fields, problems = trigger_fields(path, _PHRASE_RULES, classes, names)
    problems.raise_any()
    return Phrase(text=fields["phrase"], position=fields["position"], label=fields["label"])


def write_phrase(path: Path, phrase: Phrase) -> None:
    """Write a trigger of texts, its label as a class number."""
    fields = {"label": phrase.label, "phrase": phrase.text, "position": phrase.position}
    write_object(path, fields, escaped=not phrase.text.isprintable())


def is_phrase(value: object) -> bool:
    r"""Say whether a value can be a trigger of texts: of any letters, also those that nobody sees.

    >>> is_phrase("cf\u200b"), is_phrase(" cf"), is_phrase("\ud800")
    (True, False, False)
    """
    return (
        isinstance(value, str)
        and 0 < len(value) <= MOST_LETTERS
        and not any("\ud800" <= letter <= "\udfff" for letter in value)
        and value == value.strip()
    )


_PHRASE_RULES: Rules = {
    "phrase": (f"a phrase of at most {MOST_LETTERS} letters, no space around it", is_phrase),
    "position": ("start, end or anywhere", lambda value: value in PLACES),
}
