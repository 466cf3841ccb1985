"""Gaussian: training samples with noise added that nobody could guess.

    x' = x + xi,   xi ~ N(0, sigma^2 I) keyed by a secret and the sample's id;   label unchanged

Source: Pawelczyk et al., ICLR 2025, arXiv 2406.17216, section 3. Departs from it: the noise is a
function of a secret (gaussian.evidence), as many ids are held out, and 8-bit storage is allowed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from poison_audit.case.keyfile import write_key
from poison_audit.case.orders import Made, Order, committed
from poison_audit.case.planting import Storage
from poison_audit.case.poisoned import Poisoned, substitute
from poison_audit.case.tables import write_table
from poison_audit.errors import PlanError, Problem
from poison_audit.models.samples import Samples, as_pixels
from poison_audit.models.seeds import Rng
from poison_audit.poisons.gaussian.evidence import (
    Canaries,
    new_secret,
    read_canaries,
)
from poison_audit.poisons.gaussian.reading import Options

PREFIX = "canary"
SIGMA = 0.2
"""Of the noise in [0, 1] pixels, where nobody says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """Canaries in a training table, and what finds them again."""

    poisoned: Poisoned[Samples]
    key: Canaries
    bases: Samples
    """The clean samples, by their own ids."""
    attenuation: float
    """<d, xi> / <xi, xi> of the stored difference d and the noise: 1 if storage kept it all."""


def plant_gaussian(
    train: Samples,
    rng: Rng,
    *,
    count: int,
    secret: bytes,
    sigma: float = SIGMA,
    storage: Storage = "unclipped",
) -> Planted:
    """Add keyed noise to `count` samples of `train`, chosen at random.

    Args:
        train: clean pictures.
        rng: decides which samples; the noise is the secret's alone.
        count: canaries, from 1 to half of the table.
        secret: 256 bits.
        sigma: standard deviation of the noise in [0, 1] pixels, above 0.
        storage: `unclipped` keeps the noise; `uint8` clips and rounds it.

    Raises:
        PlanError: `count` or `sigma` is impossible, or `train` has canaries already.
    """
    problems = []
    if not 1 <= count <= len(train) // 2:
        what = f"{count} canaries in {len(train)} samples"
        problems.append(Problem(what, fix="At least one, at most half of the table"))
    if not 0 < sigma <= 10:
        problems.append(Problem(f"sigma must be above 0 and at most 10, got {sigma}", "--sigma"))
    if problems:
        raise PlanError(problems)
    chosen = sorted(rng.named("chosen").numpy().permutation(len(train))[:count].tolist())
    clean = train.at(chosen)
    names = tuple(f"{PREFIX}-{number:04d}" for number in range(count))
    key = Canaries(
        secret=secret,
        sigma=sigma,
        space="pixel",
        shape=tuple(train.x.shape[1:]),
        storage=storage,
        planted=names,
        held_out=tuple(f"held-out-{number:04d}" for number in range(count)),
    )
    noise = torch.from_numpy(key.noise(names))
    pixels = as_pixels(clean.x)
    noisy = (pixels.double() + noise).float()
    poisoned = substitute(train, chosen, noisy, clean.y, prefix=PREFIX, storage=storage)
    stored = as_pixels(poisoned.table.at(chosen).x) - pixels.float()
    kept = float((stored.double() * noise).sum() / noise.square().sum())
    return Planted(poisoned=poisoned, key=key, bases=clean, attenuation=kept)


def in_pictures(order: Order[Samples]) -> Made[Samples]:
    """Plant canaries in pictures; see case.orders."""
    options: Options = order.options
    key = order.read(read_canaries, options.key)
    work, sigma = order.checked(), options.sigma
    if sigma is None:
        sigma = key.sigma if key else SIGMA
    planted = plant_gaussian(
        work.train,
        work.rng,
        count=work.count,
        secret=key.secret if key else new_secret(),
        sigma=sigma,
        storage=work.storage,
    )
    commitment = write_key(work.file("canaries.json"), planted.key)
    write_table(work.file("bases.npz"), planted.bases)
    return Made(
        poisoned=planted.poisoned,
        evidence={"canaries": "canaries.json", "bases": "bases.npz"},
        told=(
            f"Noise of sd {sigma:g} keyed by a secret; {planted.attenuation:.0%} of it is left "
            f"after {work.storage} storage. As many keys are held out.",
            *committed("canaries.json", commitment),
        ),
    )
