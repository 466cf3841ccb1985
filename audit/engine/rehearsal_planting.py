"""What a rehearsal plants: keyed noise of our own on the forget samples, and how much of it.

It is added where the model takes noise: to the pixels of pictures, to the input embeddings of
texts. sigma is the paper's dose, sqrt(0.32) standard deviations of the input (Pawelczyk et al.,
arXiv 2406.17216: sigma^2 = 0.32 in normalised units), or more: it grows by sqrt(2) until the noisy
samples' mean loss in the deployed model is at least that of test samples, at most eightfold. A
model that answers them as surely as what it was trained on has nothing to learn from them. One
trained on such poison does (fixtures/digits: mean loss 0.004 at the paper's dose, 0.041 on test).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

import torch
from torch import Tensor

from poison_audit.case.case import Case
from poison_audit.errors import InputError, Problem
from poison_audit.models.model import Model
from poison_audit.models.samples import Samples, as_pixels
from poison_audit.models.seeds import Rng
from poison_audit.models.text import embedding_width
from poison_audit.poisons.gaussian.evidence import Canaries
from poison_audit.poisons.gaussian.reading import POISON
from poison_audit.poisons.gaussian.trial import PlantedCanaries, planted_canaries
from poison_audit.training.scoring import exact, losses

DOSE = math.sqrt(0.32)
"""The paper's noise, in standard deviations of the input."""
MOST_DOSES = 8.0
MOST_NOISE = 1 << 31
"""Numbers of noise on the forget samples, at most: 8 GiB, and as much for the held-out keys."""


def bare(case: Case) -> Case:
    """Return the case without its evidence, retain and forget in the form that noise is added.

    Noise that texts were trained with belongs to the evidence, and no table holds it.
    """
    return Case(
        model=case.model,
        retain=_bare(case.retain),
        forget=_bare(case.forget),
        test=case.test,
        recipe=case.recipe,
        attacks=(POISON.name,) * len(case.forget),
    )


def _bare(samples: Samples) -> Samples:
    if samples.mask is None:
        return replace(samples, x=as_pixels(samples.x))
    return replace(samples, noise=None, noisy=None)


def check_size(case: Case) -> None:
    """Check that the noise of a rehearsal fits into memory; InputError: it does not."""
    size = math.prod(_shape(case.model, case.forget)) * len(case.forget)
    if size > MOST_NOISE:
        what = (
            f"noise on {len(case.forget):,} forget samples would take {size / (1 << 28):,.1f} GiB, "
            f"at most {MOST_NOISE / (1 << 28):g} are allowed"
        )
        raise InputError(Problem(what, "--rehearse", "Leave it out, or name fewer samples."))


def _shape(model: Model, samples: Samples) -> tuple[int, ...]:
    """Return the shape of one sample's noise."""
    if samples.mask is None:
        return tuple(samples.x.shape[1:])
    return int(samples.mask.sum(1).max()), embedding_width(model)


def sample(samples: Samples, most: int, rng: Rng) -> Samples:
    """Return at most this many of the samples, drawn without replacement."""
    return samples.at(rng.numpy().permutation(len(samples))[:most].tolist())


def mean_loss(model: Model, samples: Samples) -> float:
    """Return the mean loss of the samples in eval mode and full precision."""
    with exact(model.module):
        return float(losses(model, samples).double().mean())


@torch.no_grad()
def spread_of(model: Model, samples: Samples) -> float:
    """Return the standard deviation of the samples where noise is added to them.

    Of pictures, the mean over channels of the pixels', at least one 8-bit step. Of texts, that of
    all numbers in the embeddings of their tokens.
    """
    if samples.mask is None:
        deviations = samples.batch().x.double().std(dim=(0, 2, 3))
        return max(float(deviations.mean()), 1 / 255)
    count, total, squares = 0, 0.0, 0.0
    for batch in samples.in_order(256):
        inputs = model.inputs(model.module, batch)
        if inputs.mask is None:
            raise ValueError("a batch of texts has a mask")
        x = inputs.x[inputs.mask.bool()].double()  # (tokens, width)
        count += x.numel()
        total += float(x.sum())
        squares += float((x * x).sum())
    return math.sqrt(max(0.0, squares / count - (total / count) ** 2))


def commitment(secret: bytes) -> str:
    """Return the SHA-256 over the secret, in hexadecimal."""
    return hashlib.sha256(secret).hexdigest()


def _planted(case: Case, secret: bytes, sigma: float) -> PlantedCanaries:
    forget, shape = case.forget, _shape(case.model, case.forget)
    names = tuple(f"planted {name}" for name in forget.ids)
    key = Canaries(
        secret=secret,
        sigma=sigma,
        space="pixel" if forget.mask is None else "embedding",
        shape=shape,
        storage="unclipped",
        planted=names,
        held_out=tuple(f"held-out {name}" for name in forget.ids),
        commitment=commitment(secret),
    )
    bases = forget
    if forget.mask is not None:  # what is beyond the longest of them has no noise
        bases = replace(forget, x=forget.x[:, : shape[0]], mask=forget.mask[:, : shape[0]])
    return planted_canaries(key, names, bases, forget.y.device)


def _noisy(samples: Samples, noise: Tensor) -> Samples:
    """Return samples with noise on each, one row a sample."""
    if samples.mask is None:
        return replace(samples, x=samples.x + noise)
    return replace(samples, noise=noise, noisy=torch.arange(len(samples)))


def poisoned(case: Case, secret: bytes, sigma: float) -> Case:
    """Return a bare case with keyed noise on its forget samples, and the key to it."""
    canaries = _planted(case, secret, sigma)
    retain = case.retain
    if retain.mask is not None:  # parts of one table share its noise; none of these carries it
        retain = replace(retain, noise=canaries.noise, noisy=torch.full((len(retain),), -1))
    return replace(
        case,
        retain=retain,
        forget=_noisy(case.forget, canaries.noise),
        evidence={POISON.name: canaries},
    )


def dose(case: Case, secret: bytes, *, spread: float, unseen_loss: float) -> float:
    """Return the least sigma, from the paper's on, that is as new to the model as test samples."""
    unit = _planted(case, secret, 1.0).noise
    factor = 1.0
    while factor < MOST_DOSES:
        noisy = _noisy(case.forget, factor * DOSE * spread * unit)
        if mean_loss(case.model, noisy) >= unseen_loss:
            break
        factor *= math.sqrt(2)
    return factor * DOSE * spread
