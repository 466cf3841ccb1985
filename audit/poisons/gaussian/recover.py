"""Gaussian noise, from a forget set whose bases are known: no key is needed to see it.

Question: do forget samples differ from their bases by independent normal noise of one sd?
Statistics: of the differences, the pooled sd; its excess kurtosis; the correlation of neighbours;
    the mean cosine between two samples' differences, in standard errors. A trigger shares a
    direction, a crafted poison has heavy tails or an edge, an augmentation is smooth.
Why that suffices for a probe: noise that was drawn independently of the base is independent of the
    gradient there in any model that never saw it, whoever kept the key. What clipping left is not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from poison_audit.case.clues import Clue, Material
from poison_audit.case.forget import ForgetSet
from poison_audit.models.samples import Samples
from poison_audit.poisons.gaussian.reading import POISON

ATTACKS = ("", POISON.name)
"""What forget.csv says of rows that are looked at."""
FEWEST = 12
"""Samples with a base from which on anything is said."""
KURTOSIS = 0.5
"""Largest excess kurtosis, of either sign, of what is called normal; clipping takes some."""
BESIDE = 0.05
"""Largest correlation of values that stand side by side."""
SHARED = 8.0
"""Standard errors of a mean cosine above which the differences share a direction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """How forget samples differ from their bases."""

    places: tuple[int, ...]
    """Of the samples, in the training table."""
    bases: Tensor
    """The clean samples, in pixels: float32, (n, c, h, w)."""
    noise: Tensor
    """Sample less base, in pixels: float32, (n, c, h, w)."""
    sd: float
    kurtosis: float
    """Excess over the normal distribution's."""
    beside: float
    """Correlation of values that stand side by side."""
    shared: float
    """Mean cosine between two of them, in its standard errors under independence."""
    clipped: bool
    """Whether all samples lie in [0, 1], so that storage may have cut the noise."""

    @property
    def normal(self) -> bool:
        """Whether they look like independent Gaussian noise."""
        return (
            self.sd > 0
            and abs(self.kurtosis) <= KURTOSIS
            and abs(self.beside) <= BESIDE
            and self.shared <= SHARED
        )


def differences(train: Samples, forget: ForgetSet, bases: Samples | None) -> Differences | None:
    """Return how forget samples differ from the bases that forget.csv names; None: too few do."""
    if train.texts is not None:
        return None
    known = {name: (train, place) for place, name in enumerate(train.ids)}
    if bases is not None and bases.x.shape[1:] == train.x.shape[1:]:
        known |= {name: (bases, place) for place, name in enumerate(bases.ids)}
    pairs = [
        (place, known[base])
        for place, base, attack in zip(forget.positions, forget.bases, forget.attacks, strict=True)
        if base is not None and base in known and attack in ATTACKS
    ]
    if len(pairs) < FEWEST:
        return None
    places = tuple(place for place, _ in pairs)
    x = train.at(places).batch().x.cpu().float()
    clean = torch.cat([table.at([at]).batch().x.cpu().float() for _, (table, at) in pairs])
    noise = x - clean
    flat = noise.flatten(1).double()
    sd = float(flat.square().mean().sqrt())
    unit = flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-12)
    n = len(unit)
    cosine = float((unit.sum(0).square().sum() - n) / (n * (n - 1)))
    error = math.sqrt(2 / (n * (n - 1) * unit.shape[1]))
    return Differences(
        places=places,
        bases=clean,
        noise=noise,
        sd=sd,
        kurtosis=float((flat**4).mean() / max(sd, 1e-12) ** 4 - 3),
        beside=float((noise[..., 1:] * noise[..., :-1]).mean()) / max(sd, 1e-12) ** 2,
        shared=cosine / error,
        clipped=bool(x.min() >= 0 and x.max() <= 1),
    )


def noise(material: Material) -> list[Clue]:
    """Return the clue of Gaussian noise, if forget samples are their bases and that."""
    found = differences(material.train, material.forget, material.bases)
    if found is None or not found.normal:
        return []
    cut = " Here storage cut it, so that only the key will do." if found.clipped else ""
    return [
        Clue(
            what=f"Gaussian noise of sd {found.sd:.3g} in pixels on named bases",
            label="",
            rows=found.places,
            sure=f"excess kurtosis {found.kurtosis:.2f}, directions {found.shared:.1f} standard "
            "errors from independent",
            confirm="Whoever planted it has a key, which --canaries takes. Without one `check` "
            f"measures with the noise as it is stored.{cut}",
            write={},
        )
    ]
