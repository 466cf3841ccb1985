"""A trigger and its controls, ready to be put on inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from poison_audit.models.model import Batch
from poison_audit.models.samples import Samples, sent
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.controls import far_controls
from poison_audit.poisons.backdoor.evidence import Trigger

SOME = 300
"""Retain pictures that pieces are cut from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamps:
    """A trigger and its controls, to be put on inputs."""

    families: tuple[str, ...]
    """Of which kind each control is: the trigger is number 0, and they follow."""
    inputs: Tensor
    """The inputs that the trigger fits on, by place: int64, on the CPU."""
    batch: Callable[[Tensor, Tensor], Batch]
    """(which trigger, which place), int64, both (rows,) -> the stamped inputs."""
    controls: str
    """What they are: `far`, or of texts `tokens`."""

    @property
    def triggers(self) -> int:
        """How many there are: the trigger and its controls."""
        return 1 + len(self.families)


def picture_stamps(
    trigger: Trigger, inputs: Samples, retain: Samples, draws: int, rng: Rng
) -> Stamps:
    """Return the trigger, which fits on pictures, and its controls, to be put on them.

    At most `draws` contents at its place, and some of its own elsewhere; `rng` decides which.
    Pieces are cut from pictures of `retain`.
    """
    trigger, generator = trigger.to("cpu"), rng.named("controls").numpy()
    places = torch.from_numpy(generator.permutation(len(retain))[:SOME])
    others = (retain if len(retain) else inputs).at(places).batch().x
    some = inputs.at(torch.arange(min(len(inputs), 32))).batch().x
    x, pictures = (part.detach().cpu().double().clamp(0, 1).numpy() for part in (some, others))
    controls = far_controls(trigger, x, pictures, generator, most=draws)
    triggers = [trigger, *(control.trigger for control in controls)]

    def batch(which: Tensor, places: Tensor) -> Batch:
        found = inputs.batch(places)
        kinds = sorted(set(which.tolist()))
        rows = torch.searchsorted(torch.tensor(kinds), which)
        return replace(found, x=_put_on(found.x, [triggers[n] for n in kinds], rows))

    return Stamps(
        families=tuple(control.family for control in controls),
        inputs=torch.arange(len(inputs)),
        batch=batch,
        controls="far",
    )


def _put_on(x: Tensor, triggers: Sequence[Trigger], rows: Tensor) -> Tensor:
    """Return pictures with triggers put on them, without a wait for their device.

    Args:
        x: (n, c, h, w).
        triggers: in main memory.
        rows: which of them each picture gets: int64, (n,), in main memory.
    """
    if any(trigger.anywhere for trigger in triggers):  # each picture is looked at for its place
        stamped = x.clone()
        for number, trigger in enumerate(triggers):
            own = sent((rows == number).nonzero().squeeze(1), x.device)
            stamped[own] = trigger.to(x.device).stamp(x[own])
        return stamped
    where = sent(rows, x.device)
    keep, add = (
        sent(torch.stack(parts), x.device)[where]
        for parts in ([each.keep for each in triggers], [each.add for each in triggers])
    )
    return (keep * x + add).clamp(0, 1)
