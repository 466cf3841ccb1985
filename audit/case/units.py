"""Are pictures in the units of pictures? In floating point white is 1 and black is 0."""

from __future__ import annotations

import torch

from poison_audit.errors import Problem
from poison_audit.models.image import NORMALIZE
from poison_audit.models.normalization import Normalize, spell_normalize
from poison_audit.models.samples import Samples

SLACK = 0.1
"""How far beyond [0, 1] a picture may lie that was resized, say: normalised ones lie beyond it."""
USUAL: tuple[Normalize, ...] = (
    NORMALIZE["imagenet"],
    NORMALIZE["cifar10"],
    ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),  # of CIFAR-10 as well, as often
    ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),  # CIFAR-100
    ((0.5,), (0.5,)),
    ((0.1307,), (0.3081,)),  # MNIST
    ((0.2860,), (0.3530,)),  # Fashion-MNIST
)
"""What pictures are normalised by most often."""
NEAR = 0.15
"""How near to a whole number an 8-bit value comes that was normalised in 16 bits and back."""
FEW = 64
"""As many pictures tell by what they were normalised."""


def not_pixels(samples: Samples, where: str, *, share: float) -> list[Problem]:
    """Return, as at most one problem, that clean pictures were normalised before they were stored.

    A trigger is stamped and noise is added in [0, 1] pixels: on pictures in other units the trigger
    would be another patch, that no model obeys.

    Args:
        samples: those that should be clean. Canaries that are stored unclipped leave [0, 1].
        where: what messages call them.
        share: of them that may leave [0, 1] all the same.
    """
    if samples.texts is not None or not samples.x.is_floating_point() or len(samples) == 0:
        return []
    flat = samples.x.flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    beyond = (low < -SLACK) | (high > 1 + SLACK)
    if float(beyond.float().mean()) <= share:
        return []
    what = (
        f"{int(beyond.sum()):,} of {len(samples):,} clean pictures leave [0, 1] (values from "
        f"{float(low.min()):.2f} to {float(high.max()):.2f}): they were normalised, or scaled, "
        "before they were stored"
    )
    fix = (
        "Undo that: store x * std + mean of each channel, or 8 bits, and give --normalize "
        "MEANS/STDS."
    )
    if fitting := [spell_normalize(known) for known in USUAL if _fits(samples.x, known)]:
        fix += f" Undoing {fitting[0]} gives 8-bit values: --normalize {fitting[0]}."
    return [Problem(what, where, fix)]


def _fits(x: torch.Tensor, normalize: Normalize) -> bool:
    """Say whether undoing a normalisation gives 8-bit values, as most pictures once were."""
    mean, std = (x.new_tensor(values).float().view(1, -1, 1, 1) for values in normalize)
    if mean.shape[1] not in (1, x.shape[1]):
        return False
    pixels = (x[:FEW].float() * std + mean) * 255
    whole = ((pixels - pixels.round()).abs() < NEAR) & (pixels > -NEAR) & (pixels < 255 + NEAR)
    return float(whole.float().mean()) > 0.99
