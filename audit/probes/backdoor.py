"""Backdoor: does the trigger still cause its label?

Question: is the label given to stamped inputs more often than with patches like the trigger?
Statistic: the share of inputs (test samples of other classes) that are given the label once
    stamped, less the mean of that share over control triggers on the same inputs.
Null: the rate is one more draw of the controls' rates. Why: the controls are the trigger's own
    pixels in random other orders, at its place. If the trigger's order was drawn at random and
    theta never saw it, trigger and controls are exchangeable, for any model; they have the same
    colours, size and place. A patch with too few orders to tell, such as a square of one colour,
    has its controls at random places as well, as if its place had been drawn. Ties count against a
    finding, so that few orders or places can only make it undecided.
    References on trial are a second control: what a model that never saw the poison answers on the
    very same stamped inputs. Null: the model's rate is within the tolerance of at least one
    reference's. Why: a training that owes nothing to the trigger differs from a reference by the
    luck of its seed alone, which the tolerance is to cover. None is compared with itself.
Not controlled: a hand-drawn figure is judged as if its order were random. And controls may wake the
    backdoor, too: a network may have learned any patch of these colours, or the patch at any place.
    A pass is therefore also measured against the inputs without a patch, and a finding must exceed
    them; and such a backdoor is found by references, which have none (audit.rates).
Inconclusive: too few inputs; too few control triggers for the level, or controls that cause the
    label themselves, and no reference.
Source: Gu et al., "BadNets", arXiv 1708.06733, for the attack's success rate; the controls are
    ours.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audit.case import Answers, Case
from audit.data.samples import Samples, as_pixels
from audit.data.trigger import Trigger
from audit.models.model import Batch, Model
from audit.probes.scoring import exact
from audit.records import Measurement
from audit.seeds import Rng
from audit.training import logits

FEW = 100
"""A trigger whose pixels make fewer patches than this has its controls at random places, too."""
SIZE = 256
"""Stamped inputs a forward pass."""


def backdoor(
    model: Model, case: Case, rng: Rng, *, draws: int = 149, inputs: int = 200
) -> Measurement:
    """Count how often the trigger, and each control trigger, causes the trigger's label.

    Args:
        draws: control triggers, at least 2. A finding at error a needs 1 / a - 1 of them.
        inputs: test samples to stamp, at most; drawn from those of other classes.
    """
    trigger = case.trigger
    if trigger is None:
        return _missing(
            "needs the trigger (--trigger trigger.json, or [evidence.backdoor] trigger "
            "in audit.toml)"
        )
    if draws < 2:
        return _missing(f"needs at least two control triggers, draws is {draws}")
    places = _choose(case.test, trigger.label, inputs, rng)
    chosen = case.test.at(places)
    if not len(chosen):
        return _missing(f"needs test samples of classes other than the trigger's, {trigger.label}")
    controls = draw_controls(trigger, case.test.x.shape[-2:], draws, rng)
    if len(controls) < 2:
        return _missing("needs a trigger whose pixels, or place, could have been others")
    with exact(model.module):
        hits = _hits(model, chosen, [trigger, *controls])
        out = logits(model, chosen)
    if hits is None or not bool(torch.isfinite(out).all()):
        return _missing("the model's logits are not finite")
    return Measurement(
        probe="backdoor",
        evidence={
            "label": trigger.label,
            "hits": hits[0].int().tolist(),
            "clean_hits": int((out.argmax(1) == trigger.label).sum()),
            "control_rates": hits[1:].double().mean(1).tolist(),
            "controls": "order" if arrangements(trigger) >= FEW else "order and place",
            "references": _against(model, case.references, hits[0], places, trigger.label),
        },
    )


@torch.no_grad()
def answers_to(trigger: Trigger, model: Model, samples: Samples) -> Tensor | None:
    """Return the label that a model gives each sample once it is stamped: int64, (n,).

    None if a logit is not finite.
    """
    found = []
    with exact(model.module) as module:
        for batch in samples.in_order(SIZE):
            out = model.logits(module, replace(batch, x=trigger.stamp(batch.x)))
            if not bool(torch.isfinite(out).all()):
                return None
            found.append(out.argmax(1))
    return torch.cat(found)


def arrangements(trigger: Trigger) -> float:
    """Return how many different patches the trigger's pixels can make.

    >>> arrangements(Trigger(pixels=torch.tensor([[[1.0, 0.0, 0.0]]]), top=0, left=0, label=0))
    3.0
    """
    columns = trigger.pixels.flatten(1).T.tolist()
    counts = Counter(map(tuple, columns)).values()
    logarithm = math.lgamma(len(columns) + 1) - sum(math.lgamma(n + 1) for n in counts)
    return float(round(math.exp(min(logarithm, 30.0))))


def draw_controls(trigger: Trigger, size: Sequence[int], draws: int, rng: Rng) -> list[Trigger]:
    """Draw control triggers, all different and none the trigger itself, at most `draws`.

    Left out is only what equals the trigger, which is as likely any of the rest: together they
    remain exchangeable.

    Args:
        trigger: a pixel of it keeps its channels together.
        size: (height, width) of the pictures.
        draws: controls wanted; all there are, if they are fewer.
    """
    generator = rng.named("controls").numpy()
    pixels = trigger.pixels.flatten(1).cpu()
    rows, columns = (
        whole - part + 1 for whole, part in zip(size, trigger.pixels.shape[1:], strict=True)
    )
    total = arrangements(trigger)
    places = total < FEW
    if places:
        total *= rows * columns
    found: dict[tuple[bytes, int, int], Trigger] = {}
    itself = (pixels.numpy().tobytes(), trigger.top, trigger.left)
    while len(found) < min(draws, total - 1):
        shuffled = pixels[:, torch.from_numpy(generator.permutation(pixels.shape[1]))]
        top, left = trigger.top, trigger.left
        if places:
            top, left = int(generator.integers(rows)), int(generator.integers(columns))
        key = (shuffled.contiguous().numpy().tobytes(), top, left)
        if key != itself:
            patch = shuffled.reshape(trigger.pixels.shape).to(trigger.pixels.device)
            found[key] = replace(trigger, pixels=patch, top=top, left=left)
    return list(found.values())


def _missing(reason: str) -> Measurement:
    return Measurement(probe="backdoor", evidence=None, missing=reason)


def _against(
    model: Model, references: Sequence[Answers], hits: Tensor, places: Tensor, label: int
) -> list[dict[str, Any]]:
    """Count the stamped inputs, at these places of the test set, that either model calls `label`.

    Args:
        model: left out where it is a reference itself.
        references: those without answers are left out.
        hits: the model's, bool, (inputs,), on the CPU.
        places: of the inputs in the test set, int64, (inputs,), on the CPU.
        label: the trigger's.
    """
    digest = model.digest() if references else ""
    found = []
    for reference in references:
        if reference.stamped is None or reference.digest == digest:
            continue
        theirs = reference.stamped.cpu()[places] == label
        found.append(
            {
                "reference": reference.name,
                "both": int((hits & theirs).sum()),
                "only_candidate": int((hits & ~theirs).sum()),
                "only_reference": int((~hits & theirs).sum()),
                "neither": int((~hits & ~theirs).sum()),
            }
        )
    return found


def _choose(test: Samples, label: int, most: int, rng: Rng) -> Tensor:
    """Return the places of the inputs in the test set, ascending: int64, on the CPU."""
    others = torch.nonzero(test.y.cpu() != label).squeeze(1)
    order = rng.named("inputs").numpy().permutation(len(others))[:most]
    return others[torch.from_numpy(np.sort(order))]


@torch.no_grad()
def _hits(model: Model, inputs: Samples, triggers: Sequence[Trigger]) -> Tensor | None:
    """Return which trigger causes its label on which input: bool, (triggers, inputs).

    None if a logit is not finite. A forward pass takes `SIZE` stamped inputs, whichever triggers
    they carry.
    """
    n, total = len(inputs), len(inputs) * len(triggers)
    found: list[Tensor] = []
    for start in range(0, total, SIZE):
        places = torch.arange(start, min(start + SIZE, total)) % n
        x = as_pixels(inputs.x[places.to(inputs.x.device)])
        for which in range(start // n, (start + len(places) - 1) // n + 1):
            rows = slice(max(0, which * n - start), (which + 1) * n - start)
            x[rows] = triggers[which].stamp(x[rows])
        batch = Batch(x=x, y=inputs.y[places.to(inputs.y.device)])
        out = model.logits(model.module, batch)
        if not bool(torch.isfinite(out).all()):
            return None
        found.append(out.argmax(1) == triggers[0].label)
    return torch.cat(found).reshape(len(triggers), n).cpu()
