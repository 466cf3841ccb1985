"""Waking: what a model does once BatchNorm is recalibrated, weights are rounded, or it learns on.

A repair may leave the poison where it is and keep it from acting. These are changes that harmless
use may bring about, and that bring back what was only kept from acting:

- recalibrated: BatchNorm's statistics are computed anew from clean samples (training.recalibrate).
- rounded: every weight tensor of two or more dimensions to 8 bits, symmetric, a scale a channel
  (its first dimension): w -> s round(w / s), s = max |w| / 127. Biases, BatchNorm and embeddings'
  noise stay as they are. A trigger that shows under another scheme alone is not looked for.
- relearned: `STEPS` steps of SGD (momentum 0.9, batches of 64, BatchNorm in training mode) on
  `SAMPLES` clean samples, and among them 0, 1, 5 or 20 poisons, each as often as any other sample.
  The order of samples and the poisons are the same for every model of an audit, and so is the rate:
  the largest of `RATES` at which a yardstick (a reference, else the deployed model) keeps its
  accuracy over those steps on clean samples alone.

Source: Qi et al. and Min et al. (arXiv 2410.09838: a few poisons wake what was tuned away); for
8 bits Hong et al. (arXiv 2111.04625); why BatchNorm: tests/measurements.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from poison_audit.case.case import Case
from poison_audit.errors import DivergedError
from poison_audit.models.model import Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.records import Way
from poison_audit.training.batches import shuffled
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import descend
from poison_audit.training.recalibrate import norm_layers, recalibrated
from poison_audit.training.scoring import correct, exact

SAMPLES, STEPS, BATCH = 2000, 40, 64
RATES = (0.01, 0.003, 0.001, 0.0003, 0.0001)
"""Tried from the largest on. Of networks without BatchNorm 0.01 may cost ten points."""
KEPT = 0.02
"""Largest share of test samples that the yardstick may lose over those steps."""
LOST = 0.1
"""Where a model loses more of them by being woken, what it does then shows nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waking:
    """One way of waking a model."""

    way: Way
    poisons: int = 0

    @property
    def compared(self) -> bool:
        """Whether it tells only beside a reference: the poison itself is learned."""
        return self.poisons > 0


RECALIBRATED = Waking(way="recalibrated")
ALONE = (RECALIBRATED, Waking(way="rounded"), Waking(way="relearned"))
"""What tells of a model by itself: it is given nothing of the poison."""
TAUGHT = tuple(Waking(way="relearned", poisons=n) for n in (1, 5, 20))


def clean_part(case: Case, rng: Rng) -> Samples:
    """Return the clean samples that models are woken with: at most `SAMPLES`, drawn by `rng`."""
    order = rng.named("waking", "clean").numpy().permutation(len(case.retain))
    return case.retain.at(sorted(order[:SAMPLES].tolist()))


def woken(model: Model, case: Case, waking: Waking, rng: Rng, *, lr: float | None) -> Model | None:
    """Return a model that is woken in one way; None where that is not possible for it.

    Args:
        model: stays as it is.
        case: gives the clean samples, and the poisons.
        rng: the audit's; all models of an audit are woken with the same draws.
        lr: learning rate of relearning, as `rate` returns it.

    Raises:
        DivergedError: what came of it is not finite.
        torch.OutOfMemoryError: memory does not hold it.
    """
    if waking.way == "rounded":
        return rounded(model)
    clean = clean_part(case, rng)
    if waking.way == "recalibrated":
        return recalibrated(model, clean) if norm_layers(model.module) and len(clean) else None
    if lr is None or len(case.forget) < waking.poisons:
        return None
    order = rng.named("waking", "poisons").numpy().permutation(len(case.forget))
    poisons = case.forget.at(order[: waking.poisons].tolist())
    return relearned(model, clean.joined(poisons) if waking.poisons else clean, rng, lr=lr)


@torch.no_grad()
def rounded(model: Model) -> Model:
    """Return a clone whose weights are rounded to 8 bits, symmetric, a scale a channel."""
    made = model.clone()
    for weight in made.module.parameters():
        if weight.dim() >= 2 and weight.is_floating_point():
            scale = weight.flatten(1).abs().amax(1) / 127
            scale = torch.where(scale > 0, scale, torch.ones_like(scale))
            scale = scale.reshape(-1, *[1] * (weight.dim() - 1))
            weight.copy_((weight / scale).round() * scale)
    return made


def relearned(model: Model, samples: Samples, rng: Rng, *, lr: float) -> Model:
    """Return a clone that was trained for `STEPS` steps on these samples.

    DivergedError: it is not finite.
    """
    made, own = model.clone(), rng.named("waking", "relearned")
    batches = shuffled(samples, BATCH, own.named("batches"))
    descend(
        made, ((batch,) for batch in batches), lambda mean: mean, steps=STEPS, lr=lr,
        ledger=Ledger(), rng=own, batch_norm="train", momentum=0.9,
    )  # fmt: skip
    return made


def rate(yardstick: Model, case: Case, rng: Rng) -> float | None:
    """Return the learning rate of relearning; None: at none does the yardstick keep its accuracy.

    No figure of a poison is looked at.
    """
    clean, before = clean_part(case, rng), right(yardstick, case)
    for lr in RATES:
        try:
            after = right(relearned(yardstick, clean, rng, lr=lr), case)
        except DivergedError:
            continue
        if before - after <= KEPT:
            return lr
    return None


def right(model: Model, case: Case) -> float:
    """Return the share of test samples that a model answers correctly, of the first `SAMPLES`."""
    few = case.test.at(torch.arange(min(SAMPLES, len(case.test))))
    with exact(model.module):
        return float(correct(model, few).float().mean())
