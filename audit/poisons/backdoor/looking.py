"""What a model answers with a trigger, with its controls, and without."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poison_audit.models.folding import folded
from poison_audit.models.memory import in_parts
from poison_audit.models.model import Batch, Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.controls import ELSEWHERE
from poison_audit.poisons.backdoor.evidence import Trigger
from poison_audit.poisons.backdoor.phrase import PLACES, Phrase
from poison_audit.poisons.backdoor.phrases import phrase_stamps
from poison_audit.poisons.backdoor.stamps import Stamps, picture_stamps
from poison_audit.training.scoring import exact, logits

SIZE = 256
"""Stamped inputs a forward pass."""
FEW = 32
"""Inputs of other classes that every control is put on."""
TYPICAL = 8
"""Controls that are put on all inputs."""
DRAWS, INPUTS = 200, 400
Floats = NDArray[np.float64]


def stamps_of(
    trigger: Trigger | Phrase, model: Model, inputs: Samples, retain: Samples, draws: int, rng: Rng
) -> Stamps | None:
    """Return a trigger and its controls; None: a phrase stays in no text."""
    if isinstance(trigger, Trigger):
        return picture_stamps(trigger, inputs, retain, draws, rng)
    if model.reader is None:
        raise ValueError("a phrase is put on texts")
    return phrase_stamps(trigger, model.reader, inputs, retain, draws, rng)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a model answers with the trigger, its controls, and without; answers are classes."""

    y: NDArray[np.int64]
    clean: NDArray[np.int64]
    stamped: NDArray[np.int64]
    typical: NDArray[np.int64]
    """(`TYPICAL`, inputs)."""
    rises: Floats
    """rise(g, l) on few inputs: (1 + controls, classes); the trigger's is the first."""
    losses: Floats
    """Share of right answers each costs there: (1 + controls,)."""
    rates: Floats
    """How often each causes the trigger's label there, (1 + controls,)."""
    few: int
    scale: float
    """Mean margin of the answers without a trigger."""
    others: Tensor
    """Which inputs are of other classes than the trigger's."""


def look(model: Model, stamps: Stamps, inputs: Samples, label: int, rng: Rng) -> Seen | None:
    """Look at the trigger and its controls, as far as the probe does; None: a logit is not finite.

    Args:
        inputs: those at `stamps.inputs`, in that order.
    """
    y = inputs.y.cpu().numpy()
    base = logits(model, inputs).cpu().double()
    if not bool(torch.isfinite(base).all()):
        return None
    few = looked(model, stamps, y, base, label)
    if few is None:
        return None
    here = [n for n, name in enumerate(stamps.families, 1) if name != ELSEWHERE]
    picked = rng.named("typical").numpy().permutation(here)[:TYPICAL].tolist()
    answers = _outputs(model, stamps, torch.tensor([0, *picked]), torch.arange(len(y)))
    if answers is None:
        return None
    said = answers.argmax(2).numpy()
    return Seen(
        y=y, clean=base.argmax(1).numpy(), stamped=said[0], typical=said[1:],
        others=torch.from_numpy(y != label), **few,
    )  # fmt: skip


def looked(
    model: Model, stamps: Stamps, y: NDArray[np.int64], base: Tensor, label: int
) -> dict[str, Any] | None:
    """Return the rises and losses of trigger and controls on few inputs, as fields of `Seen`."""
    count = np.cumsum(y != label)
    few = min(len(y), int(np.searchsorted(count, FEW)) + 1)
    first, clean = torch.arange(few), _margins(base[:few]).numpy()
    other = y[:few, None] != np.arange(base.shape[1])
    right = (base[:few].argmax(1).numpy() == y[:few]).mean()
    rises, losses, rates = [], [], []
    each = max(1, SIZE // few)
    for start in range(0, len(stamps.families) + 1, each):
        block = torch.arange(start, min(start + each, len(stamps.families) + 1))
        out = _outputs(model, stamps, block, first)
        if out is None:
            return None
        for one in out:
            change = (_margins(one).numpy() - clean) * other
            said = one.argmax(1).numpy()
            rises.append(change.sum(0) / np.maximum(1, other.sum(0)))
            losses.append(right - (said == y[:few]).mean())
            rates.append((said == label)[other[:, label]].mean())
    return {
        "rises": np.array(rises), "losses": np.array(losses), "rates": np.array(rates),
        "few": int(other[:, label].sum()), "scale": max(1e-9, float(clean.max(1).mean())),
    }  # fmt: skip


def _margins(out: Tensor) -> Tensor:
    """Return each logit less the largest other: (n, classes)."""
    top = out.topk(2, dim=1).values
    return out - torch.where(out == top[:, :1], top[:, 1:], top[:, :1])


@torch.no_grad()
def _outputs(model: Model, stamps: Stamps, triggers: Tensor, inputs: Tensor) -> Tensor | None:
    """Return the logits with each trigger on each input: float64, (triggers, inputs, classes).

    None if one is not finite. A forward pass takes `SIZE` stamped inputs, whichever triggers they
    carry.
    """
    n, found = len(inputs), []
    quick = folded(model)
    for start in range(0, n * len(triggers), SIZE):
        numbers = torch.arange(start, min(start + SIZE, n * len(triggers)))
        batch = stamps.batch(triggers[numbers // n], stamps.inputs[inputs[numbers % n]])
        out = in_parts(lambda part: quick.logits(quick.module, part), batch)
        if not bool(torch.isfinite(out).all()):
            return None
        found.append(out.cpu().double())
    return torch.cat(found).reshape(len(triggers), n, -1)


@torch.no_grad()
def answers_to(trigger: Trigger | Phrase | None, model: Model, samples: Samples) -> Tensor | None:
    """Return the label that a model gives each sample once it is stamped: int64, (n,), on the CPU.

    Without a trigger, as it is. None if a logit is not finite.
    """
    found = []
    with exact(model.module) as module:
        for batch in _stamped(trigger, model, samples):
            out = in_parts(lambda part: model.logits(module, part), batch)
            if not bool(torch.isfinite(out).all()):
                return None
            found.append(out.argmax(1).cpu())
    return torch.cat(found)


def hits_elsewhere(
    trigger: Trigger | Phrase, model: Model, inputs: Samples
) -> list[dict[str, Any]] | None:
    """Count the inputs that get the label with a phrase at each place but its own.

    The fields of the reading's `elsewhere`: none where its place is not start or end. None if a
    logit is not finite.
    """
    if not isinstance(trigger, Phrase) or trigger.position not in ("start", "end"):
        return []
    found = []
    for place in PLACES:
        if place != trigger.position:
            said = answers_to(replace(trigger, position=place), model, inputs)
            if said is None:
                return None
            found.append({"position": place, "hits": int((said == trigger.label).sum())})
    return found


def _stamped(trigger: Trigger | Phrase | None, model: Model, samples: Samples) -> Iterator[Batch]:
    if trigger is None:
        yield from samples.in_order(SIZE)
        return
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
