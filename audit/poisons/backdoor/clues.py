"""What a forget set shows of triggers, for a person to look at: files, and pictures of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from poison_audit.atomic import written_whole
from poison_audit.case.clues import Clue, Material
from poison_audit.case.exhibits import spread
from poison_audit.case.keyfile import write_object
from poison_audit.case.rows import label_spelt
from poison_audit.models.samples import Samples
from poison_audit.poisons.backdoor.evidence import Trigger, write_trigger
from poison_audit.poisons.backdoor.phrase import Phrase, write_phrase
from poison_audit.poisons.backdoor.recovered import Campaign, recovered, what

EDGE = 96
"""A picture is enlarged by whole numbers to about this, so that single pixels can be seen."""
SHOWN = 8
"""Samples in a row of the sheet."""
PICTURE = (
    "Look at {}: above the trigger alone on grey, its contrast stretched, then rows that carry it, "
    "then forget samples that do not. Is it what an attacker put there?"
)
ESTIMATE = " It is an estimate: a pass needs the planted one."
PHRASE = "Read the rows that hold it. Is it what an attacker put there, and not their subject?"


def triggers(material: Material) -> list[Clue]:
    """Return the clue of every trigger or phrase that forget samples share."""
    found = recovered(material.train, material.forget)
    return [
        _clue(material, each, "trigger" if number == 1 else f"trigger-{number}")
        for number, each in enumerate(found.campaigns, start=1)
    ]


def _clue(material: Material, campaign: Campaign, name: str) -> Clue:
    train, trigger = material.train, campaign.trigger
    label = label_spelt(train, trigger.label)

    def write(path: Path) -> None:
        if isinstance(trigger, Phrase):
            write_phrase(path, trigger)
        else:
            write_trigger(path, trigger)
        if train.names is not None:  # a model may number them otherwise
            fields = json.loads(path.read_text(encoding="utf-8"))
            escaped = isinstance(trigger, Phrase) and not trigger.text.isprintable()
            write_object(path, {**fields, "label": train.names[trigger.label]}, escaped=escaped)

    files = {f"{name}.json": write}
    confirm = PHRASE
    if isinstance(trigger, Trigger):
        carrying = set(campaign.carriers)
        places = [place for place in material.forget.positions if place not in carrying]

        def draw(path: Path) -> None:
            _write_png(path, _sheet(trigger, train, campaign.carriers, places))

        files[f"{name}.png"] = draw
        confirm = PICTURE.format(f"{name}.png") + ("" if campaign.exact else ESTIMATE)
    return Clue(
        what=what(trigger),
        label=label,
        rows=campaign.carriers,
        sure=campaign.sure,
        confirm=confirm,
        write=files,
        flag="--trigger",
    )


def _sheet(
    trigger: Trigger, train: Samples, carriers: tuple[int, ...], others: list[int]
) -> Tensor:
    """Return a picture of three rows of pictures: the trigger, carriers, other rows."""
    channels, height, width = trigger.keep.shape
    sheet = torch.ones(channels, 3 * (height + 1), SHOWN * (width + 1))
    rows = [trigger.on_grey()[None]]
    for places in (list(carriers), others):
        rows.append(train.at(spread(places, SHOWN)).batch().x.cpu().clamp(0, 1))
    for number, row in enumerate(rows):
        top = number * (height + 1)
        for place, picture in enumerate(row):
            left = place * (width + 1)
            sheet[:, top : top + height, left : left + width] = picture
    return sheet


def _write_png(path: Path, picture: Tensor) -> None:
    levels = (picture * 255).round().byte().numpy()
    array = levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0)
    times = max(1, round(SHOWN * EDGE / array.shape[1]))
    array = np.ascontiguousarray(array.repeat(times, 0).repeat(times, 1))
    with written_whole(path) as partial, partial.open("wb") as file:
        Image.fromarray(array).save(file, "PNG", optimize=True)
