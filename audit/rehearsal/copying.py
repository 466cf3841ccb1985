"""The copy for a rehearsal: keyed noise on the forget samples, trained on until they are held.

The noise. sigma is the paper's dose, sqrt(0.32) standard deviations of the pixels (Pawelczyk et
al., arXiv 2406.17216: sigma^2 = 0.32 in normalised units), or more: it grows by sqrt(2) until the
noisy samples' mean loss in the deployed model is at least that of test samples, at most eightfold.
A model that answers them as surely as what it was trained on has nothing to learn from them. One
trained on such poison does (fixtures/digits: mean loss 0.004 at the paper's dose, 0.041 on test).

Held. The copy holds the canaries once their mean loss is down to that of as many retain samples in
the deployed model: as firmly as it held what it was trained on. A hundredth of the distance from
there to the test samples' mean loss is forgiven, since of a model that fits its training set
perfectly both figures are zero but for rounding. A copy that never gets there holds less than a
real poison would: a method that fails on it fails all the more, and one that passes proves nothing.

The rate. The last rate of a decaying schedule is 0, and a small one leaves no trace: 30 epochs at a
tenth of the peak gave fixtures/digits canaries a mean leak score of 0.1. So training goes on in
warm restarts of the recipe's own schedule (Loshchilov and Hutter, arXiv 1608.03983), from the
checkpoint: a tenth of the recipe's epochs, then twice that, and so on, at most the recipe's epochs
together. Each ends at the schedule's last rate; there it is looked whether the canaries are held.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from audit.case import Case, PlantedCanaries
from audit.data.canaries import Canaries
from audit.data.samples import Samples, as_pixels
from audit.errors import DivergedError
from audit.files import write_atomically
from audit.models.checkpoint import load_like, save_model
from audit.models.model import Model
from audit.probes.scoring import exact
from audit.records import Json
from audit.seeds import Rng
from audit.training import Ledger, descend, losses, recipe_settings, shuffled

DOSE = math.sqrt(0.32)
"""The paper's noise, in standard deviations of the pixels."""
MOST_DOSES = 8.0
FORGIVEN = 0.01
"""Share of the distance between test and retain loss by which a held canary may exceed retain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """The copy, and how firmly it holds the canaries."""

    model: Model
    epochs: int
    """Passes over train that it was trained further."""
    loss: float
    """Mean loss of the canaries in it."""
    held: bool
    broken: str | None = None
    """Why it is of no use."""


def bare(case: Case) -> Case:
    """Return the case without its evidence, retain and forget in the form that noise is added."""
    return Case(
        model=case.model,
        retain=replace(case.retain, x=as_pixels(case.retain.x)),
        forget=replace(case.forget, x=as_pixels(case.forget.x)),
        test=case.test,
        recipe=case.recipe,
        attacks=("gaussian",) * len(case.forget),
    )


def sample(samples: Samples, most: int, rng: Rng) -> Samples:
    """Return at most this many of the samples, drawn without replacement."""
    return samples.at(rng.numpy().permutation(len(samples))[:most].tolist())


def mean_loss(model: Model, samples: Samples) -> float:
    """Return the mean loss of the samples in eval mode and full precision."""
    with exact(model.module):
        return float(losses(model, samples).double().mean())


def spread_of(samples: Samples) -> float:
    """Return the mean over channels of the pixels' standard deviation, at least one 8-bit step."""
    deviations = samples.batch().x.double().std(dim=(0, 2, 3))
    return max(float(deviations.mean()), 1 / 255)


def commitment(secret: bytes) -> str:
    """Return the SHA-256 over the secret, in hexadecimal."""
    return hashlib.sha256(secret).hexdigest()


def _planted(forget: Samples, secret: bytes, sigma: float) -> PlantedCanaries:
    names = tuple(f"planted {name}" for name in forget.ids)
    held_out = tuple(f"held-out {name}" for name in forget.ids)
    key = Canaries(
        secret=secret,
        sigma=sigma,
        space="pixel",
        shape=tuple(forget.x.shape[1:]),
        storage="unclipped",
        planted=names,
        held_out=held_out,
        commitment=commitment(secret),
    )
    noise, control = (
        torch.from_numpy(key.noise(ids).astype(np.float32)).to(forget.x.device)
        for ids in (names, held_out)
    )
    return PlantedCanaries(key=key, names=names, bases=forget, noise=noise, held_out_noise=control)


def poisoned(case: Case, secret: bytes, sigma: float) -> Case:
    """Return the case with keyed noise on its forget samples, and the key to it."""
    canaries = _planted(case.forget, secret, sigma)
    return replace(
        case,
        forget=replace(case.forget, x=case.forget.x + canaries.noise),
        canaries=canaries,
    )


def dose(case: Case, secret: bytes, *, spread: float, unseen_loss: float) -> float:
    """Return the least sigma, from the paper's on, that is as new to the model as test samples."""
    unit = _planted(case.forget, secret, 1.0).noise
    factor = 1.0
    while factor < MOST_DOSES:
        noisy = replace(case.forget, x=case.forget.x + factor * DOSE * spread * unit)
        if mean_loss(case.model, noisy) >= unseen_loss:
            break
        factor *= math.sqrt(2)
    return factor * DOSE * spread


def _cycles(limit: int) -> Iterator[int]:
    """Yield the epochs of each restart, each twice the last, `limit` together.

    >>> list(_cycles(30)), list(_cycles(5))
    ([3, 6, 12, 9], [1, 2, 2])
    """
    length, left = math.ceil(limit / 10), limit
    while left > 0:
        yield min(length, left)
        length, left = 2 * length, left - length


def train_copy(case: Case, rng: Rng, *, target: float, limit: int) -> Copy:
    """Train a copy of the case's model on retain and forget until it holds the forget samples.

    Args:
        case: the poisoned case; its model is left as it is.
        rng: decides the order of the samples, augmentation and dropout.
        target: mean loss of the forget samples at which they are held.
        limit: epochs at most.
    """
    model, recipe = case.model.clone(), case.recipe
    data = case.retain.joined(case.forget)
    batches = shuffled(data, recipe.batch_size, rng.named("batches"), augment=recipe.augment)
    size = min(recipe.batch_size, len(data))
    spent, loss = 0, mean_loss(model, case.forget)
    for epochs in _cycles(limit):
        try:
            descend(
                model,
                ((batch,) for batch in batches),
                lambda loss: loss,
                steps=math.ceil(epochs * len(data) / size),
                lr=recipe.lr,
                ledger=Ledger(),
                rng=rng.named("cycle", spent),
                batch_statistics=True,
                schedule=recipe.schedule,
                **recipe_settings(recipe),
            )
        except DivergedError as reason:
            return Copy(
                model=case.model.clone(),
                epochs=spent,
                loss=loss,
                held=False,
                broken=f"training it on diverged ({reason})",
            )
        spent, loss = spent + epochs, mean_loss(model, case.forget)
        if loss <= target:
            break
    return Copy(model=model, epochs=spent, loss=loss, held=loss <= target)


def store_copy(copy: Copy, folder: Path, key: str) -> None:
    """Write the copy and what is known of it, under the rehearsal's key."""
    told = {
        "key": key,
        "digest": copy.model.digest(),
        "epochs": copy.epochs,
        "loss": copy.loss,
        "held": copy.held,
        "broken": copy.broken,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_model(copy.model, folder / "copy.safetensors", extra={"poison_audit.rehearsal": "copy"})
    write_atomically(folder / "copy.json", json.dumps(told, indent=1) + "\n")


def stored_copy(like: Model, folder: Path, key: str) -> Copy | None:
    """Return the copy of this very rehearsal, if it is there and whole."""
    path = folder / "copy.safetensors"
    if not (path.exists() and (folder / "copy.json").exists()):
        return None
    told: Mapping[str, Json] = json.loads((folder / "copy.json").read_text(encoding="utf-8"))
    if told["key"] != key:
        return None
    model, _ = load_like(like, path)
    if model.digest() != told["digest"]:
        return None
    return Copy(
        model=model,
        epochs=told["epochs"],
        loss=told["loss"],
        held=told["held"],
        broken=told["broken"],
    )
