"""How far apart the same training steps end that are made twice.

On CUDA some kernels add by atomics, in the order in which threads arrive, and PyTorch has no other
ones: the backward passes of attention (flash and memory-efficient), of `gather`, of pooling to
uneven areas, and `index_add`. cuDNN's convolutions are held to a fixed order. So a picture network
as a rule repeats to the bit, and a language model up to rounding; how far is measured, not listed.
"""

from __future__ import annotations

import torch

from poison_audit.errors import DivergedError
from poison_audit.models.model import Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.records import Recipe
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import descend_on
from poison_audit.training.scoring import logits

STEPS, ASKED = 8, 256


def apart(model: Model, samples: Samples, recipe: Recipe, rng: Rng) -> float | None:
    """Return the largest difference of a logit, relative to the largest logit: 0 is the same bits.

    Two clones are trained for `STEPS` steps, as the recipe says, at a tenth of its rate. None where
    they diverge, or memory does not hold it.

    Args:
        model: stays as it is.
        samples: what is trained on, and of which the first `ASKED` are asked; not empty.
        recipe: how the model was trained.
        rng: decides the batches and dropout, the same for both.
    """
    few = samples.at(torch.arange(min(ASKED, len(samples))))
    ends = []
    try:
        for _ in range(2):
            made = model.clone()
            descend_on(made, samples, recipe, rng, ledger=Ledger(), lr=recipe.lr / 10, steps=STEPS,
                       batch_norm="eval")  # fmt: skip
            ends.append(logits(made, few).double())
    except (DivergedError, torch.OutOfMemoryError):
        return None
    one, other = ends
    return float((one - other).abs().max() / one.abs().max().clamp(min=1e-12))
