"""trigger.json: what is put on an input, where, and the label it causes. Here of pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poison_audit.atomic import written_whole
from poison_audit.case.keyfile import VERSION, Rules, read_object, write_object, wrong_values
from poison_audit.case.labels import are_other_numbers, as_known
from poison_audit.case.pictures import spelt
from poison_audit.errors import InputError, Problem, Problems, did_you_mean
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.values import MOST_BYTES, values_of

MOST_INLINE = 200_000
"""Values of a pattern that are written into the file itself."""
Mode = Literal["replace", "blend", "add", "mask+add"]
MODES: tuple[Mode, ...] = ("replace", "blend", "add", "mask+add")
ANYWHERE = "anywhere"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """A change of pictures that a backdoored model answers with one label.

        stamp(x) = clip(keep * x + add, 0, 1)

    Where keep is 1 and add is 0 it changes nothing.
    """

    keep: Tensor
    """(c, h, w) of the whole picture, float32 in [0, 1]: what is left of each value."""
    add: Tensor
    """The same shape, float32 in [-1, 1]: what is added to it."""
    label: int
    """The label it is to cause."""
    mode: Mode = "mask+add"
    """How it is written down: replace (keep is 0), blend (1 - alpha), add (1) or mask+add."""
    anywhere: bool = False
    """Whether its box is put at a place drawn for each picture, and not where it stands here."""

    @property
    def changes(self) -> Tensor:
        """Which pixels it changes, in any channel: bool, (h, w)."""
        return ((self.keep != 1) | (self.add != 0)).any(0)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The smallest box of what it changes: its upper row, left column, height and width."""
        rows, columns = (self.changes.any(axis).nonzero().flatten() for axis in (1, 0))
        (top, bottom), (left, right) = ((int(x[0]), int(x[-1]) + 1) for x in (rows, columns))
        return top, left, bottom - top, right - left

    def to(self, device: torch.device | str) -> Trigger:
        """Return the same trigger on `device`."""
        return replace(self, keep=self.keep.to(device), add=self.add.to(device))

    def at(self, top: int, left: int) -> Trigger:
        """Return the same trigger, its box moved to where it has this upper row and left column."""
        row, column, height, width = self.box
        keep, add = torch.ones_like(self.keep), torch.zeros_like(self.add)
        new, old = (
            (slice(None), slice(t, t + height), slice(q, q + width))
            for t, q in ((top, left), (row, column))
        )
        keep[new], add[new] = self.keep[old], self.add[old]
        return replace(self, keep=keep, add=add)

    def stamp(self, x: Tensor) -> Tensor:
        """Return pictures (n, c, h, w), floating point in [0, 1], with the trigger put on them.

        `anywhere`: the place is drawn by what the picture holds, to 8 bits, so that whoever stamps
        a picture stamps it alike.
        """
        if not self.anywhere:
            return (self.keep * x + self.add).clamp(0, 1)
        top, left, height, width = self.box
        box = (slice(None), slice(top, top + height), slice(left, left + width))
        keep, add, stamped = self.keep[box], self.add[box], x.clone()
        rows, columns = x.shape[2] - height + 1, x.shape[3] - width + 1
        grey = (x.detach().float().cpu() * 255).round().to(torch.int16).numpy()
        for picture, values in zip(stamped, grey, strict=True):
            drawn = Rng(0).named("anywhere", hashlib.sha256(values.tobytes()).hexdigest()).seed()
            i, j = drawn // columns % rows, drawn % columns
            part = picture[:, i : i + height, j : j + width]
            part.copy_((keep * part + add).clamp(0, 1))
        return stamped

    def on_grey(self) -> Tensor:
        """Return what it does to mid-grey, its contrast stretched: (c, h, w) in [0, 1]."""
        grey = torch.full_like(self.keep, 0.5)[None]
        change = (self.stamp(grey) - grey)[0]
        return 0.5 + change / (2 * change.abs().max().clamp(min=1e-6))


def patch(
    pixels: Tensor, shape: Sequence[int], *, top: int, left: int, label: int, anywhere: bool = False
) -> Trigger:
    """Return a trigger that replaces a rectangle of pictures of `shape`, (c, h, w), by `pixels`."""
    keep, add = torch.ones(*shape), torch.zeros(*shape)
    down, right = slice(top, top + pixels.shape[1]), slice(left, left + pixels.shape[2])
    keep[:, down, right], add[:, down, right] = 0.0, pixels
    return Trigger(keep=keep, add=add, label=label, mode="replace", anywhere=anywhere)


def read_trigger(
    path: Path, *, shape: tuple[int, ...], classes: int, names: Sequence[str] | None = None
) -> Trigger:
    """Read a trigger of pictures; audit/poisons/README.md tells what each key means.

    Args:
        path: trigger.json: `label` is a class number or name; `pattern` (or `pixels`) and `mask`
            are nested lists, or name an array or a PNG in the same folder.
        shape: of the pictures it is put on: (c, H, W).
        classes: how many labels there are.
        names: what they are called.

    Raises:
        InputError: with everything that is wrong with the file.
    """
    fields, problems = trigger_fields(path, _PATCH_RULES, classes, names, needed=_needed)
    mode = fields.get("mode", "replace")
    key = "pattern" if "pattern" in fields else "pixels"
    low = -1.0 if mode in ("add", "mask+add") else 0.0
    given: dict[str, NDArray[np.float32]] = {}
    for name, least in ((key, low), ("mask", 0.0)):
        if name in fields:
            with problems.collecting():
                given[name] = values_of(fields[name], path, name, shape, low=least)
    pattern, mask = given.get(key), given.get("mask")
    if pattern is not None and mask is not None and pattern.shape[1:] != mask.shape[-2:]:
        what = f"the mask is {spelt(mask.shape[-2:])}, the pattern {spelt(pattern.shape[1:])}"
        problems.append(Problem(what, f"{path} mask", "Cut both to the same box."))
    problems += _misplaced(fields, pattern, shape, str(path))
    if problems or pattern is None:
        raise InputError(problems)
    alpha = np.float32(fields["alpha"] if mode == "blend" else 1.0)
    on = np.broadcast_to(np.float32(1.0) if mask is None else mask, pattern.shape) * alpha
    kept = np.ones_like(on) if mode == "add" else 1 - on
    added = pattern if mode == "mask+add" else on * pattern
    keep, add = np.ones(shape, np.float32), np.zeros(shape, np.float32)
    top, left = fields.get("top", 0), fields.get("left", 0)
    here = (slice(None), slice(top, top + on.shape[1]), slice(left, left + on.shape[2]))
    keep[here], add[here] = kept, added
    if bool(((keep == 1) & (add == 0)).all()):
        raise InputError(Problem("it changes no pixel", f"{path} {key}"))
    return Trigger(
        keep=torch.from_numpy(keep), add=torch.from_numpy(add), label=fields["label"], mode=mode,
        anywhere=fields.get("position") == ANYWHERE,
    )  # fmt: skip


def _needed(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys that a trigger of pictures must have, by what it says of itself."""
    by_mode = {"mask+add": ("mask",), "blend": ("alpha",)}
    either = "pixels" if "pixels" in fields else "pattern"
    return (either, *by_mode.get(str(fields.get("mode")), ()))


def _misplaced(
    fields: Mapping[str, Any], pattern: NDArray[Any] | None, shape: tuple[int, ...], where: str
) -> list[Problem]:
    """Return what is wrong with the place of a pattern, and keys that say two things."""
    problems = []
    if "pattern" in fields and "pixels" in fields:
        problems.append(Problem("the same as pattern: give one of them", f"{where} pixels"))
    if "alpha" in fields and fields.get("mode") != "blend":
        problems.append(Problem('only blends have it ("mode": "blend")', f"{where} alpha"))
    anywhere = fields.get("position") == ANYWHERE
    whole = pattern is not None and pattern.shape[1:] == tuple(shape[1:])
    if anywhere and whole:
        problems.append(Problem("the pattern is as large as the picture", f"{where} position"))
    for key, axis, edge in (("top", 1, "rows"), ("left", 2, "columns")):
        start: Any = fields.get(key)
        size = 1 if pattern is None else pattern.shape[axis]
        if start is None and key not in fields:
            if not anywhere and not whole:
                problems.append(Problem(f"missing key {key!r}", where))
        elif anywhere:
            problems.append(Problem("position says that the place is drawn", f"{where} {key}"))
        elif _is_place(start) and start + size > shape[axis] >= size:
            what = f"a patch of {size} {edge} from {start} leaves the picture, which has "
            problems.append(Problem(f"{what}{shape[axis]}", f"{where} {key}"))
    return problems


def write_trigger(path: Path, trigger: Trigger) -> None:
    """Write a trigger, its label as a class number.

    Patterns of more than `MOST_INLINE` values are written beside it, as .npy. One that is not of
    the mode that it says is written as mask+add, which any is.
    """
    top, left, height, width = trigger.box
    box = (slice(None), slice(top, top + height), slice(left, left + width))
    keep, add = (part[box].cpu().float().numpy() for part in (trigger.keep, trigger.add))
    on, mode = 1 - keep, trigger.mode
    alpha = float(on.max()) if mode == "blend" else 1.0
    pattern = np.divide(add, on, out=np.zeros_like(add), where=on > 0)
    sure = bool(((pattern >= 0) & (pattern <= 1) & ((on > 0) | (add == 0))).all())
    if mode == "mask+add" or (bool(on.any()) if mode == "add" else not sure):
        mode, arrays = "mask+add", {"mask": on, "pattern": add}
    elif mode == "add":
        arrays = {"pattern": add}
    else:
        mask = np.minimum(on / np.float32(alpha), 1)
        arrays = {**({} if bool((mask == 1).all()) else {"mask": mask}), "pattern": pattern}
    place = {"position": ANYWHERE} if trigger.anywhere else {"top": top, "left": left}
    fields: dict[str, Any] = {"label": trigger.label, "mode": mode, **place}
    if mode == "blend":
        fields["alpha"] = float(str(np.float32(alpha)))
    if "mask" in arrays and bool((arrays["mask"] == arrays["mask"][:1]).all()):
        arrays["mask"] = arrays["mask"][0]
    for name, values in arrays.items():
        fields[name] = values.tolist()
        if values.size > MOST_INLINE:
            fields[name] = f"{path.stem}-{name}.npy"
            with written_whole(path.with_name(fields[name])) as partial, partial.open("wb") as file:
                np.save(file, values)
    write_object(path, fields)


def trigger_fields(
    path: Path,
    rules: Rules,
    classes: int,
    names: Sequence[str] | None,
    *,
    needed: Callable[[Mapping[str, Any]], Sequence[str]],
) -> tuple[dict[str, Any], Problems]:
    """Return the fields of a trigger.json, its label as a class number, and what is wrong.

    `needed`: the fields -> which of the keys of `rules` must be there.
    """
    where, fix = str(path), "Store the pattern beside it, as .npy or PNG, and name that file."
    fields, _ = read_object(path, most=MOST_BYTES, fix=fix)
    must = ("version", "label", *needed(fields))
    problems = Problems(
        Problem(f"unknown key {key!r}", where, did_you_mean(key, (*must, *rules)))
        for key in sorted(set(fields) - {*must, *rules})
    )
    problems += [Problem(f"missing key {key!r}", where) for key in must if key not in fields]
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


def _is_place(value: Any) -> bool:
    return type(value) is int and value >= 0


def _anything(value: Any) -> bool:
    return True


_PATCH_RULES: Rules = {
    "top": ("an integer from 0", _is_place),
    "left": ("an integer from 0", _is_place),
    "mode": ("replace, blend, add or mask+add", lambda value: value in MODES),
    "alpha": (
        "a number above 0, at most 1",
        lambda value: type(value) in (int, float) and 0 < value <= 1,
    ),
    "position": (f'"{ANYWHERE}", or top and left', lambda value: value == ANYWHERE),
    "pixels": ("pixels, of which more is asked", _anything),
    "pattern": ("pixels, of which more is asked", _anything),
    "mask": ("pixels, of which more is asked", _anything),
}
