"""The trigger of a backdoor on a few inputs, and what the model answers with and without it."""

from __future__ import annotations

from dataclasses import replace

import torch

from poison_audit.case.case import Case
from poison_audit.case.exhibits import exhibit, named, spread
from poison_audit.case.shown import Exhibit
from poison_audit.models.reader import Reader
from poison_audit.models.samples import Samples
from poison_audit.poisons.backdoor.evidence import Trigger
from poison_audit.poisons.backdoor.phrase import Phrase
from poison_audit.poisons.backdoor.reading import POISON
from poison_audit.poisons.backdoor.stamping import stamped
from poison_audit.poisons.backdoor.trial import trigger_of
from poison_audit.training.scoring import answers

SHOWN = 4
"""Inputs that the trigger is shown on."""


def trigger_exhibits(case: Case, asked: bool) -> list[Exhibit]:
    """Return a few test samples of other classes with the trigger on them; first it alone."""
    trigger, names = trigger_of(case), case.test.names
    if trigger is None:
        return []
    others = (case.test.y != trigger.label).nonzero().flatten().tolist()
    bare = case.test.at(spread(others, SHOWN))
    if not len(bare):
        return _alone(trigger, names)
    with_it = _stamped(trigger, case.model.reader, bare)
    wanted, shown = named(trigger.label, names), []
    for place in range(len(bare)):
        plain = exhibit("trigger", bare, place, names=names)
        one = exhibit("trigger", with_it, place, names=names, attack=POISON.name)
        shown.append(replace(one, bare=plain.png, wanted=wanted))
    given, plainly = (answers(case.model, part) if asked else None for part in (with_it, bare))
    if given is not None and plainly is not None:
        shown = [
            replace(one, answer=named(answer, names), without=named(without, names))
            for one, answer, without in zip(shown, given, plainly, strict=True)
        ]
    return _alone(trigger, names) + shown


def _alone(trigger: Trigger | Phrase, names: tuple[str, ...] | None) -> list[Exhibit]:
    """Return what a trigger of pictures does to mid-grey, to be looked at."""
    if isinstance(trigger, Phrase):
        return []
    x, y = trigger.on_grey()[None], torch.tensor([trigger.label])
    samples = Samples(ids=("the trigger alone, on grey",), x=x, y=y)
    return [exhibit("trigger", samples, 0, names=names, attack=POISON.name)]


def _stamped(trigger: Trigger | Phrase, reader: Reader | None, samples: Samples) -> Samples:
    """Return samples with the trigger put on them, as the probe does: pictures are not rounded."""
    if isinstance(trigger, Trigger):
        return replace(samples, x=trigger.stamp(samples.batch().x))
    return stamped(trigger, reader, samples)
