"""The trigger of a backdoor on trial: read, told, and shown on a few inputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from poison_audit.case.case import Case
from poison_audit.case.exhibits import exhibit, spread
from poison_audit.case.files import Evidence, Files
from poison_audit.case.provenance import digest_of
from poison_audit.case.shown import Exhibit
from poison_audit.errors import Problems
from poison_audit.models.samples import Samples
from poison_audit.poisons.backdoor.evidence import Phrase, Trigger, read_phrase, read_trigger
from poison_audit.poisons.backdoor.reading import POISON

SHOWN = 3
"""Inputs that the trigger is shown on."""


def trigger_of(case: Case) -> Trigger | Phrase | None:
    """Return the patch or the phrase of a case; None: it is not known."""
    found: Trigger | Phrase | None = case.evidence.get(POISON.name)
    return found


def backdoor_evidence(files: Files, device: torch.device | str, problems: Problems) -> Evidence:
    """Read the trigger: a patch for pictures, a phrase for texts."""
    path, train, loaded = files.sources.evidence.get("trigger"), files.train, files.loaded
    nothing = Evidence(planted=None, subject={"trigger": None})
    if path is None or train is None or loaded is None:
        return nothing
    classes: dict[str, Any] = {"classes": loaded.model.classes, "names": files.names}
    trigger: Trigger | Phrase
    how: dict[str, Any]
    with problems.collecting():
        if loaded.model.reader is not None:
            trigger = phrase = read_phrase(path, **classes)
            how = {"phrase": phrase.text, "position": phrase.position}
        else:
            trigger = read_trigger(path, shape=tuple(train.x.shape[1:]), **classes).to(device)
            size = list(trigger.pixels.shape[1:])
            how = {"size": size, "top": trigger.top, "left": trigger.left}
        told = {"path": str(path), "sha256": digest_of(path)[0], **how, "label": trigger.label}
        return Evidence(planted=trigger, subject={"trigger": told})
    return nothing


def trigger_exhibits(case: Case) -> list[Exhibit]:
    """Return a few test samples of other classes with the trigger on them."""
    trigger, test = trigger_of(case), case.test
    if trigger is None:
        return []
    others = (test.y != trigger.label).nonzero().flatten().tolist()
    places = spread(others, SHOWN)
    return [
        exhibit("trigger", _stamped(trigger, test.at([p])), 0, names=test.names, attack=POISON.name)
        for p in places
    ]


def _stamped(trigger: Trigger | Phrase, samples: Samples) -> Samples:
    """Return samples to look at, with the trigger put on them."""
    if isinstance(trigger, Trigger):
        return replace(samples, x=trigger.stamp(samples.batch().x))
    if samples.texts is None:
        raise ValueError("a phrase is put on texts, a patch on pictures")
    return replace(samples, texts=tuple(trigger.on(text) for text in samples.texts))
