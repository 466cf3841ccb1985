"""What references answer to a trigger, and to controls of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from poison_audit.case.case import Case
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.looking import (
    DRAWS,
    FEW,
    Floats,
    answers_to,
    looked,
    stamps_of,
)
from poison_audit.poisons.backdoor.trial import trigger_of
from poison_audit.training.scoring import exact, logits


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a reference answers."""

    clean: Tensor
    """On the test samples as they are: int64, (n,), on the CPU."""
    stamped: Tensor
    """Once they are stamped."""
    rises: Floats
    """rise(g, l) of control triggers, in units of the mean margin: (controls, classes)."""


def trigger_answers(case: Case, model: Model) -> Asked | None:
    """Ask a reference what it does with the trigger and with controls of its own.

    None if there is no trigger, or a logit is not finite.
    """
    trigger, rng = trigger_of(case), Rng(0).named("backdoor", "references")
    if trigger is None or not len(case.test):
        return None
    stamped, clean = (answers_to(t, model, case.test) for t in (trigger, None))
    order = torch.from_numpy(rng.named("inputs").numpy().permutation(len(case.test))[: 4 * FEW])
    chosen = case.test.at(order)
    stamps = stamps_of(trigger, model, chosen, case.retain, DRAWS, rng)
    if stamped is None or clean is None:
        return None
    rises = np.empty((0, model.classes))
    if stamps is not None and stamps.families:
        with exact(model.module):
            inputs = chosen.at(stamps.inputs)
            base = logits(model, inputs).cpu().double()
            few = looked(model, stamps, inputs.y.cpu().numpy(), base, trigger.label)
        if few is not None:
            rises = few["rises"][1:] / few["scale"]
    return Asked(clean=clean, stamped=stamped, rises=rises)
