"""Exhibits: what the poison looks like, for a reader who was not there.

The targets of an attack, a few forget samples of each attack, and the trigger on a few inputs, as
small pictures or cut texts. They are shown beside the figures and decide nothing.
"""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image
from torch import Tensor

from poison_audit.case.load import Trial
from poison_audit.case.samples import Samples, as_pixels
from poison_audit.poisons.backdoor.phrase import Phrase
from poison_audit.records import Exhibit

TARGETS = 48
EACH = 6
"""Forget samples of one attack."""
STAMPED = 3
"""Inputs that the trigger is shown on."""
EDGE = 96
"""Longest edge of a picture in pixels; larger ones are made smaller."""
LETTERS = 400
"""Longest text."""


def exhibits(trial: Trial) -> tuple[Exhibit, ...]:
    """Return the samples to look at, targets first; the same for the same trial."""
    case = trial.case
    found: list[Exhibit] = []
    names = case.test.names
    if case.targets is not None:
        samples = case.targets.samples
        for place in range(min(TARGETS, len(samples))):
            found.append(_exhibit("target", samples, place, names=names))
    by_attack: dict[str, list[int]] = {}
    for place, attack in enumerate(case.attacks):
        by_attack.setdefault(attack, []).append(place)
    for attack, where in by_attack.items():
        for place in _spread(where, EACH):
            shown = _exhibit("forget", case.forget, place, names=case.forget.names, attack=attack)
            found.append(shown)
    if case.trigger is not None:
        others = (case.test.y != case.trigger.label).nonzero().flatten().tolist()
        for place in _spread(others, STAMPED):
            found.append(_stamped(trial, place))
    return tuple(shown for shown in found if shown.png is not None or shown.text is not None)


def _spread(places: list[int], most: int) -> list[int]:
    """Return at most so many of the places, evenly spread."""
    if len(places) <= most:
        return places
    return [places[round(i * (len(places) - 1) / (most - 1))] for i in range(most)]


def _stamped(trial: Trial, place: int) -> Exhibit:
    test, trigger = trial.case.test, trial.case.trigger
    if isinstance(trigger, Phrase) and test.texts is not None:
        text = trigger.on(test.texts[place])
        return Exhibit(
            role="trigger",
            name=test.ids[place],
            label=_label(test, place, test.names),
            attack="backdoor",
            text=_cut(text),
        )
    if trigger is None or isinstance(trigger, Phrase):
        raise ValueError("a phrase is put on texts, a patch on pictures")
    stamped = trigger.stamp(test.batch(slice(place, place + 1)).x)[0]
    return Exhibit(
        role="trigger",
        name=test.ids[place],
        label=_label(test, place, test.names),
        attack="backdoor",
        png=as_png(stamped),
    )


def _exhibit(
    role: str, samples: Samples, place: int, *, names: tuple[str, ...] | None, attack: str = ""
) -> Exhibit:
    text = None if samples.texts is None else _cut(samples.texts[place])
    png = as_png(as_pixels(samples.x[place])) if samples.texts is None else None
    return Exhibit(
        role="target" if role == "target" else "forget",
        name=samples.ids[place],
        label=_label(samples, place, names),
        attack=attack,
        png=png,
        text=text,
    )


def _label(samples: Samples, place: int, names: tuple[str, ...] | None) -> str:
    number = int(samples.y[place])
    return names[number] if names is not None and number < len(names) else str(number)


def _cut(text: str) -> str:
    return text if len(text) <= LETTERS else f"{text[: LETTERS - 1]}\u2026"


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
