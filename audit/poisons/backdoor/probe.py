"""Backdoor: does the trigger still cause its label?

Question: is the label given to stamped inputs more often than with controls like the trigger?
Statistic: the share of inputs (test samples of other classes) that are given the label once
    stamped, less the mean of that share over control triggers on the same inputs.
Null: the rate is one more draw of the controls' rates. Why: on pictures the controls are the
    trigger's own pixels in random other orders, at its place. If the trigger's order was drawn at
    random and theta never saw it, trigger and controls are exchangeable, for any model; they have
    the same colours, size and place. A patch with too few orders to tell, such as a square of one
    colour, has its controls at random places as well, as if its place had been drawn. Ties count
    against a finding, so that few orders or places can only make it undecided. On texts the
    controls are other tokens in the place of the trigger's, as many and as frequent: a phrase drawn
    at random among such tokens is exchangeable with them (poisons.backdoor.phrases).
    References on trial are a second control: what a model that never saw the poison answers on the
    very same stamped inputs. Null: the model's rate is within the tolerance of at least one
    reference's. Why: a training that owes nothing to the trigger differs from a reference by the
    luck of its seed alone, which the tolerance is to cover. None is compared with itself.
Not controlled: a hand-drawn figure is judged as if its order were random, a phrase that means
    something as if its tokens were: a model without a backdoor may be found for understanding it,
    and the references' rates, shown beside, then tell. And controls may wake the backdoor, too: a
    network may have learned any patch of these colours, or the patch at any place, or rare words
    before a text. A pass is therefore also measured against the inputs without a trigger, and a
    finding must exceed them; and such a backdoor is found by references, which have none
    (statistics.rates).
Two looks: all patches, the trigger among them, are first put on a quarter of the inputs.
    Once 10 controls did as well there as the trigger, no more are looked at, those that were are
    put on all inputs, and nothing is found: the p-value is 10 / their number (Besag and Clifford,
    Biometrika 78, 1991), and the last of them is left out of the mean, which it would bias. If else
    one of the patches, whichever it is, leads the runner-up by 25 points, the controls are ranked
    by that quarter, and only the trigger is put on the other inputs; else all are. Which look
    decides depends on the patches as a set, in which the trigger is not marked, so that its rank
    keeps its law under the null whichever it is; nothing is spent on having looked twice.
Inconclusive: a reference answers the trigger as the model does, within tolerance: what it shows or
    means causes the label without any poison; too few inputs; too few control triggers for the
    level, or controls that cause the label themselves, and no reference.
Source: Gu et al., "BadNets", arXiv 1708.06733, for the attack's success rate; the controls are
    ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from poison_audit.case.case import Case
from poison_audit.models.memory import in_parts
from poison_audit.models.model import Batch, Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.evidence import Trigger
from poison_audit.poisons.backdoor.patches import patch_stamps
from poison_audit.poisons.backdoor.phrase import Phrase
from poison_audit.poisons.backdoor.phrases import phrase_stamps
from poison_audit.poisons.backdoor.reading import POISON
from poison_audit.poisons.backdoor.stamps import Stamps
from poison_audit.poisons.backdoor.trial import trigger_of
from poison_audit.records import Measurement
from poison_audit.training.scoring import exact, logits

SIZE = 256
"""Stamped inputs a forward pass."""
FIRST = 4
"""All patches are first put on one in so many inputs."""
LEAD = 0.25
"""By how much one of the patches must lead all others there, so that no more inputs are needed."""
FEWEST = 40
"""Inputs on which a first look decides anything."""
ABOVE = 10
"""Controls that do as well as the trigger there, and end the search for more of them."""
BLOCK = 25
"""Patches that are looked at together."""


def backdoor(
    model: Model, case: Case, rng: Rng, *, draws: int = 149, inputs: int = 200
) -> Measurement:
    """Count how often the trigger, and each control trigger, causes the trigger's label.

    Args:
        draws: control triggers, at least 2. A finding at error a needs 1 / a - 1 of them.
        inputs: test samples to stamp, at most; drawn from those of other classes.
    """
    trigger = trigger_of(case)
    if trigger is None:
        return _missing(
            "needs the trigger (--trigger trigger.json, or [evidence.backdoor] trigger "
            "in audit.toml)"
        )
    if draws < 2:
        return _missing(f"needs at least two control triggers, draws is {draws}")
    others = torch.nonzero(case.test.y.cpu() != trigger.label).squeeze(1)
    order = rng.named("inputs").numpy().permutation(len(others))[:inputs]
    places = others[torch.from_numpy(np.sort(order))]
    chosen = case.test.at(places)
    if not len(chosen):
        return _missing(f"needs test samples of classes other than the trigger's, {trigger.label}")
    if isinstance(trigger, Trigger):
        stamps: Stamps | None = patch_stamps(trigger, chosen, draws, rng)
    elif model.reader is not None:
        stamps = phrase_stamps(trigger, model.reader, chosen, case.retain, draws, rng)
    else:
        raise ValueError("a phrase is put on texts")
    if stamps is None:
        return _missing(
            "needs texts short enough for the trigger to stay in them: as the model reads the "
            f"stamped texts, it is whole in none of {len(chosen)}"
        )
    if stamps.triggers < 3:
        return _missing("needs a trigger whose pixels, place or tokens could have been others")
    places, chosen = places[stamps.inputs], chosen.at(stamps.inputs)
    with exact(model.module):
        seen = _seen(model, stamps, trigger.label)
        out = logits(model, chosen)
    if seen is None or not bool(torch.isfinite(out).all()):
        return _missing("the model's logits are not finite")
    hits, controls = seen.hits, seen.controls
    digest = model.digest() if case.references else ""
    return Measurement(
        probe="backdoor",
        evidence={
            "label": trigger.label,
            "hits": hits.int().tolist(),
            "clean_hits": int((out.argmax(1) == trigger.label).sum()),
            "control_rates": controls.double().mean(1).tolist(),
            "control_every": 1 if controls.shape[1] == len(hits) else FIRST,
            **({"above": ABOVE} if seen.stopped else {}),
            "controls": stamps.controls,
            "references": [
                reference.compared(stamped.cpu()[places] == trigger.label, hits)
                for reference in case.references  # but itself, and those without finite logits
                if (stamped := reference.asked.get(POISON.name)) is not None
                and reference.digest != digest
            ],
        },
    )


def trigger_answers(case: Case, model: Model) -> Tensor | None:
    """Return what a reference answers on the test samples once they are stamped: int64, (n,).

    None if there is no trigger, or a logit is not finite.
    """
    trigger = trigger_of(case)
    return None if trigger is None else answers_to(trigger, model, case.test)


@torch.no_grad()
def answers_to(trigger: Trigger | Phrase, model: Model, samples: Samples) -> Tensor | None:
    """Return the label that a model gives each sample once it is stamped: int64, (n,).

    None if a logit is not finite.
    """
    found = []
    with exact(model.module) as module:
        for batch in _stamped(trigger, model, samples):
            out = in_parts(lambda part: model.logits(module, part), batch)
            if not bool(torch.isfinite(out).all()):
                return None
            found.append(out.argmax(1))
    return torch.cat(found)


def _stamped(trigger: Trigger | Phrase, model: Model, samples: Samples) -> Iterator[Batch]:
    if isinstance(trigger, Trigger):
        for batch in samples.in_order(SIZE):
            yield replace(batch, x=trigger.stamp(batch.x))
        return
    if model.reader is None or samples.texts is None:
        raise ValueError("a phrase is put on texts")
    tokens = model.reader.read([trigger.on(text) for text in samples.texts], samples.pairs)
    read = Samples(
        ids=samples.ids, x=tokens.x, y=samples.y.cpu(), mask=tokens.mask, types=tokens.types
    )
    yield from read.to(samples.y.device).in_order(SIZE)


def _missing(reason: str) -> Measurement:
    return Measurement(probe="backdoor", evidence=None, missing=reason)


@dataclass(frozen=True, slots=True)
class _Seen:
    """Which inputs a trigger and its controls cause the label on: bool, on the CPU."""

    hits: Tensor
    """The trigger's, (inputs,)."""
    controls: Tensor
    """Its controls', (controls, inputs), on all inputs or on every `FIRST` of them."""
    stopped: bool = False
    """Whether the last of these controls was the `ABOVE`th to do as well as the trigger."""


def _seen(model: Model, stamps: Stamps, label: int) -> _Seen | None:
    """Put the trigger and its controls on inputs, as far as it takes (see "Two looks" above).

    None if a logit is not finite.
    """
    inputs = torch.arange(len(stamps.inputs))
    first = inputs % FIRST == 0
    early = torch.empty(0, int(first.sum()), dtype=torch.bool)
    stopped = False
    for start in range(0, stamps.triggers, BLOCK):
        block = torch.arange(start, min(start + BLOCK, stamps.triggers))
        found = _hits(model, stamps, label, block, inputs[first])
        if found is None:
            return None
        early = torch.cat([early, found])
        counts = early.sum(1)
        above = (counts[1:] >= counts[0]).nonzero().flatten()
        if len(above) >= ABOVE and len(early[0]) >= FEWEST:
            early, stopped = early[: int(above[ABOVE - 1]) + 2], True
            break
    best, second = early.double().mean(1).topk(2).values.tolist()
    enough = not stopped and best - second >= LEAD and len(early[0]) >= FEWEST
    rest = torch.arange(1 if enough else len(early))
    late = _hits(model, stamps, label, rest, inputs[~first])
    if late is None:
        return None
    hits = torch.empty(len(late), len(inputs), dtype=torch.bool)
    hits[:, first], hits[:, ~first] = early[: len(late)], late
    return _Seen(hits[0], early[1:] if enough else hits[1:], stopped)


@torch.no_grad()
def _hits(
    model: Model, stamps: Stamps, label: int, triggers: Tensor, inputs: Tensor
) -> Tensor | None:
    """Return which trigger causes the label on which input: bool, (triggers, inputs), on the CPU.

    None if a logit is not finite. A forward pass takes `SIZE` stamped inputs, whichever triggers
    they carry.
    """
    n, total = len(inputs), len(inputs) * len(triggers)
    found: list[Tensor] = [torch.empty(0, dtype=torch.bool)]
    for start in range(0, total, SIZE):
        numbers = torch.arange(start, min(start + SIZE, total))
        batch = stamps.batch(triggers[numbers // n], stamps.inputs[inputs[numbers % n]])
        out = in_parts(lambda part: model.logits(model.module, part), batch)
        if not bool(torch.isfinite(out).all()):
            return None
        found.append((out.argmax(1) == label).cpu())
    return torch.cat(found).reshape(len(triggers), n)
