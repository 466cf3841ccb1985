"""Controls of a trigger of pictures: what an attacker could have used instead, as strong as it.

A far pattern has the trigger's support, keeps as much of the picture as it does, and is scaled to
its energy, E|stamp(x) - x|^2. Its content is drawn from four families: one colour; geometric
(checks, stripes, gratings, edges and corners in two colours); random pixels or cells; pieces of
other pictures. None looks like the trigger, or much like another. A fifth family is the trigger's
own content at other places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from poison_audit.poisons.backdoor.evidence import Trigger

Picture = NDArray[np.float64]
FAMILIES = ("one colour", "geometric", "pixels", "picture")
ELSEWHERE = "elsewhere"
ALIKE, SAME = 0.7, 0.97
"""Largest cosine of a control's change of the pictures to the trigger's, and to another's: beyond
it the control would be the trigger, or is one that there is already."""
PICTURES, VALUES = 12, 60_000
"""Pictures, and values of them, at most, on which strength and likeness are compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """One control trigger."""

    trigger: Trigger
    family: str


def far_controls(
    trigger: Trigger, x: Picture, pictures: Picture, draws: np.random.Generator, *, most: int
) -> list[Control]:
    """Draw at most `most` far patterns, and a sixth as many places for its own content.

    A family of few contents runs out first.

    Args:
        trigger: fits on the pictures.
        x: some of those it is put on, (n, c, h, w) in [0, 1].
        pictures: others, which pieces are cut from.
        draws: decides which.
        most: at least 1.
    """
    bank = _Bank.of(trigger, x)
    mine = _unit(bank.change(bank.add))
    found: list[Control] = []
    seen = np.empty((most, len(mine)), np.float32)
    for number in range(2 * most):
        family = FAMILIES[number % len(FAMILIES)]
        content = _content(family, bank.add.shape, pictures, draws)
        added = bank.scaled(content, draws)
        change = _unit(bank.change(added))
        near = seen[: len(found)] @ change.astype(np.float32)
        if change @ mine >= ALIKE or near.max(initial=-1.0) >= SAME:
            continue
        seen[len(found)] = change
        found.append(Control(trigger=bank.trigger_of(added), family=family))
        if len(found) == most:
            break
    return found + _elsewhere(trigger, draws, most // 6)


def _elsewhere(trigger: Trigger, draws: np.random.Generator, most: int) -> list[Control]:
    """Return the trigger at places at least half of its box away; none for one that is large."""
    top, left, height, width = trigger.box
    rows, columns = trigger.keep.shape[1:]
    if trigger.anywhere or 4 * height * width > rows * columns:
        return []
    places = [
        (i, j)
        for i in range(rows - height + 1)
        for j in range(columns - width + 1)
        if 2 * abs(i - top) >= height or 2 * abs(j - left) >= width
    ]
    chosen = [places[k] for k in draws.permutation(len(places))[:most]]
    return [Control(trigger=trigger.at(*place), family=ELSEWHERE) for place in chosen]


def _unit(change: Picture) -> Picture:
    flat = change.ravel()
    found: Picture = flat / max(float(np.linalg.norm(flat)), 1e-9)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bank:
    """A trigger in its box, and pictures cut to it."""

    trigger: Trigger
    x: Picture
    keep: Picture
    add: Picture
    on: NDArray[np.bool_]
    """Which pixels of the box it changes, (height, width)."""

    @classmethod
    def of(cls, trigger: Trigger, x: Picture) -> _Bank:
        top, left, height, width = trigger.box
        box = (slice(None), slice(top, top + height), slice(left, left + width))
        keep, add = (part[box].cpu().double().numpy() for part in (trigger.keep, trigger.add))
        few = max(2, min(PICTURES, VALUES // keep.size))
        on = trigger.changes[box[1:]].cpu().numpy()
        return cls(trigger=trigger, x=x[(slice(few), *box)], keep=keep, add=add, on=on)

    def change(self, add: Picture) -> Picture:
        """Return what a pattern changes in the pictures."""
        return np.clip(self.x * self.keep + add, 0, 1) - self.x

    def scaled(self, content: Picture, draws: np.random.Generator) -> Picture:
        """Return what is added for a content in [0, 1], as strong as the trigger.

        What hides the picture is pulled towards mid-grey, or pushed from it; what only adds to it
        has the signs of what was added.
        """
        hides, positive = self.keep.min() < 0.999, bool((self.add >= 0).all())
        if not hides:
            inside = content[:, self.on]
            content = content - (inside.min() if positive else inside.mean())
            if float(np.abs(content[:, self.on]).max()) < 1e-3:
                content = content + (1 if positive or draws.random() < 0.5 else -1)

        def at(scale: float) -> Picture:
            pulled = np.clip(0.5 + scale * (content - 0.5), 0, 1)
            values = (1 - self.keep) * pulled if hides else scale * content
            return np.where(self.on, values, 0.0)

        def energy(add: Picture) -> float:
            return float(np.square(self.change(add)).sum())

        wanted, low, high = energy(self.add), 0.0, 16.0 if hides else 4.0
        if hides and energy(at(1.0)) <= wanted:
            low = 1.0
        for _ in range(14):
            middle = (low + high) / 2
            low, high = (middle, high) if energy(at(middle)) < wanted else (low, middle)
        return at(high)

    def trigger_of(self, add: Picture) -> Trigger:
        top, left, height, width = self.trigger.box
        whole = torch.zeros_like(self.trigger.add)
        values = torch.from_numpy(add).to(whole)
        whole[:, top : top + height, left : left + width] = values
        # Where it adds nothing it still hides: its box is the trigger's.
        return replace(self.trigger, add=whole)


def _content(
    family: str, shape: Sequence[int], pictures: Picture, draws: np.random.Generator
) -> Picture:
    """Draw a content of a family, (c, h, w) in [0, 1]."""
    channels, height, width = shape
    if family == "picture":
        found = _piece(height, width, pictures, draws)
    else:
        drawn = {"one colour": _colour, "geometric": _figure, "pixels": _cells}[family]
        found = drawn(channels, height, width, draws)
    return np.broadcast_to(found, shape).astype(np.float64)


def _colour(channels: int, height: int, width: int, draws: Any) -> Picture:
    if draws.random() < 0.5:
        return np.asarray(draws.random((channels, 1, 1)))
    return np.asarray(draws.integers(0, 2, (channels, 1, 1)))


def _cells(channels: int, height: int, width: int, draws: Any) -> Picture:
    cell = int(draws.integers(1, max(2, min(4, height // 2 + 1))))
    size = (channels if draws.random() < 0.7 else 1, -(-height // cell), -(-width // cell))
    grid = draws.random(size) if draws.random() < 0.5 else draws.integers(0, 2, size)
    return np.asarray(grid).repeat(cell, 1).repeat(cell, 2)[:, :height, :width]


def _figure(channels: int, height: int, width: int, draws: Any) -> Picture:
    i, j = np.indices((height, width))
    kind, size = int(draws.integers(4)), int(draws.integers(1, max(2, min(5, height // 2 + 1))))
    s, t = draws.integers(0, 2 * size, 2)
    if kind == 0:
        mask = ((i + s) // size + (j + t) // size) % 2
    elif kind == 1:
        mask = ((i + s) // size if draws.random() < 0.5 else (j + t) // size) % 2
    elif kind == 2:
        turn, often = draws.random() * np.pi, np.exp(draws.uniform(0, np.log(max(1.5, height / 3))))
        along = (i * np.cos(turn) + j * np.sin(turn)) / height
        mask = 0.5 + 0.5 * np.sin(2 * np.pi * (often * along + draws.random()))
    else:
        mask = (i >= draws.integers(height)) * 1.0
        if draws.random() < 0.5:
            mask = np.abs(mask - (j >= draws.integers(width)))
    dark, bright = np.zeros(channels), np.ones(channels)
    if draws.random() >= 0.4:
        dark, bright = draws.integers(0, 2, (2, channels)).astype(float)
    if (dark == bright).all():
        bright = 1 - dark
    if draws.random() < 0.5:
        dark, bright = bright, dark
    return np.asarray(dark[:, None, None] * (1 - mask) + bright[:, None, None] * mask)


def _piece(height: int, width: int, pictures: Picture, draws: Any) -> Picture:
    picture = pictures[int(draws.integers(len(pictures)))]
    top = int(draws.integers(picture.shape[1] - height + 1))
    left = int(draws.integers(picture.shape[2] - width + 1))
    piece = picture[:, top : top + height, left : left + width]
    if draws.random() < 0.5:
        piece = (piece - piece.min()) / max(float(piece.max() - piece.min()), 1e-6)
    return np.asarray(piece[:, :, ::-1] if draws.random() < 0.5 else piece)
