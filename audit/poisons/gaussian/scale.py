"""Are these samples the canaries of this key? The stored noise, compared with the keyed noise.

A key with a wrong sigma, secret, id or base makes a poisoned model look clean, and fresh noise of
the same wrong sigma, as a control, hides it. So every canary is made anew and compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from poison_audit.case.planting import Storage
from poison_audit.errors import Problem, some
from poison_audit.models.samples import as_pixels
from poison_audit.poisons.gaussian.evidence import Canaries

Array = NDArray[np.float64]

RESIDUAL = 0.05
"""Largest squared distance of a canary from what the key says, as a share of its squared noise."""
CORRELATED = 0.3
"""Correlation of stored and keyed noise above which it is the same noise, at another scale."""
EXPLAINED = 0.9
"""Share of the stored difference that another sigma must explain to be blamed."""
LEAST_ATTENUATION = 0.05
"""Below this, storage has destroyed the noise, and nothing can be compared."""
FAR = 6.0
"""Standard errors that no honest key is away from its canaries' slope."""
SURE = 10.0
"""Standard errors from zero at which a slope counts as seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A canary as stored, and the clean sample it was made from."""

    name: str
    """Its id in the key."""
    sample: Tensor
    """(c, h, w), as `Samples` holds it."""
    base: Tensor | None
    """Of the same shape; None: not known."""
    unit: Array
    """The unit noise that the key draws for it, of the same shape."""


def store(x: Array, storage: Storage) -> Array:
    """Return pictures as training would read them back after they were stored.

    >>> store(np.array([-0.1, 0.5, 1.2]), "uint8").round(4).tolist()
    [0.0, 0.502, 1.0]
    """
    if storage == "unclipped":
        return x
    stored: Array = np.round(np.clip(x, 0, 1) * 255) / 255
    return stored


def pixels(x: Tensor) -> Array:
    """Return a picture in [0, 1] pixels, as float64."""
    array: Array = as_pixels(x).double().cpu().numpy()
    return array


def attenuation(pairs: Sequence[Pair], key: Canaries) -> float:
    """Return <d, xi> / <xi, xi>, pooled: what storage left of the noise, 1 if all of it.

    d is the stored difference of sample and base, xi the noise that was drawn. Where the base is
    not known it is sample - xi, and nothing was lost.
    """
    kept = drawn = 0.0
    for pair in pairs:
        noise = key.sigma * pair.unit
        drawn += float((noise**2).sum())
        difference = noise if pair.base is None else pixels(pair.sample) - pixels(pair.base)
        kept += float((difference * noise).sum())
    return kept / drawn


def wrong_differences(pairs: Sequence[Pair], key: Canaries, where: str) -> list[Problem]:
    """Compare canaries with known bases to store(base + sigma * u), u the keyed unit noise.

    Equal means: within float16 rounding, or one grey level in 8-bit storage, at every pixel, and
    within a twentieth of the noise's energy overall. Otherwise the problem says what explains the
    difference: another sigma, another base, or another key.

    Returns:
        At most one problem; of no pairs none.
    """
    if not pairs:
        return []
    wrong = [pair for pair in pairs if not _matches(pair, key)]
    if wrong:
        names = some([pair.name for pair in wrong])
        count = f"{len(wrong)} of {len(pairs)} canaries ({names}) do not match the key"
        return [_diagnosis(count, wrong, key, where)]
    kept = attenuation(pairs, key)
    if kept < LEAST_ATTENUATION:
        what = f"storage left {kept:.2g} of the noise: whether the key is theirs cannot be told"
        return [
            Problem(what, where, f"sigma {key.sigma:g} is too small for {key.storage} storage.")
        ]
    return []


def wrong_recoveries(pairs: Sequence[Pair], key: Canaries, where: str) -> list[Problem]:
    """Check canaries whose base is not known, by regressing each sample on its unit noise.

    A base does not depend on its noise, so the slope is sigma, up to a standard error that the
    residuals give; and sample - sigma * u, the base, must lie in [0, 1].

    Returns:
        At most one problem, also where the slope is too uncertain to tell; of no pairs none.
    """
    if not pairs:
        return []
    lines = [_regress(pair, key) for pair in pairs]
    weights = np.array([line.weight for line in lines])
    slope = float(np.average([line.slope for line in lines], weights=weights))
    error = float(np.linalg.norm([line.error for line in lines] * weights) / weights.sum())
    wrong = [
        pair
        for pair, line in zip(pairs, lines, strict=True)
        if not _in_range(pair, key) or not _near(line.slope, key.sigma, line.error)
    ]
    off = not _near(slope, key.sigma, error)
    seen = slope > SURE * error
    if not wrong and not off:
        if seen:
            return []
        what = f"too few canaries to tell, without bases, whether sigma {key.sigma:g} is right"
        return [Problem(what, where, "Name each canary's clean sample in the base column.")]
    if not seen:
        what = "these are not the keyed samples, or sigma is far off: wrong secret, ids or sigma"
        return [Problem(what, where, "Check the key file and the canary column.")]
    if off and all(_near(line.slope, slope, line.error) for line in lines):
        return [_wrong_sigma("judged without bases", slope, key, where)]
    names = some([pair.name for pair in wrong])
    what = (
        f"{len(wrong)} of {len(pairs)} canaries ({names}) are no picture in [0, 1] plus "
        f"sigma {key.sigma:g} times their keyed noise: wrong ids, or wrong sigma (all together "
        f"fit {slope:.4g})"
    )
    return [Problem(what, where, "Check the canary column and sigma.")]


def _matches(pair: Pair, key: Canaries) -> bool:
    assert pair.base is not None
    sample, base = pixels(pair.sample), pixels(pair.base)
    made = store(base + key.sigma * pair.unit, key.storage)
    # Sample and base may each have been rounded to float16, by at most 2**-11 of their value. In
    # 8 bits, noise added in float32 may round to the neighbouring level.
    rounding = 1e-5 + 1e-3 * (abs(sample) + abs(base))
    slack = rounding if key.storage == "unclipped" else 1.1 / 255
    error, noise = sample - made, made - base
    # A float32 pixel is off by up to 1e-7, which is no difference where storage left no noise.
    most = RESIDUAL * float((noise**2).sum()) + 1e-12 * error.size
    return bool((abs(error) <= slack).all()) and float((error**2).sum()) <= most


def _diagnosis(count: str, wrong: Sequence[Pair], key: Canaries, where: str) -> Problem:
    # A few dozen canaries settle it, and bound the memory.
    wrong = wrong[:32]
    bases = np.stack([pixels(pair.base) for pair in wrong if pair.base is not None])
    differences = np.stack([pixels(pair.sample) for pair in wrong]) - bases
    units = np.stack([pair.unit for pair in wrong])
    energy, unit_energy = float((differences**2).sum()), float((units**2).sum())
    along = float((differences * units).sum())
    if along <= CORRELATED * math.sqrt(energy * unit_energy):
        fix = "Check the key file, and the canary and base columns."
        what = f"{count}: these are not the keyed samples: wrong secret, wrong ids or wrong base"
        return Problem(what, where, fix)

    from scipy.optimize import minimize_scalar

    def unexplained(log_sigma: float) -> float:
        made = store(bases + math.exp(log_sigma) * units, key.storage)
        return float(((made - bases - differences) ** 2).sum())

    # Clipping and rounding only shrink the slope. Each pixel's distance falls until the true sigma
    # and rises after it, so there is one minimum.
    start = math.log(along / unit_energy)
    best = minimize_scalar(unexplained, bounds=(start - 1, start + 5), method="bounded")
    if best.fun <= (1 - EXPLAINED) * energy:
        return _wrong_sigma(count, math.exp(best.x), key, where)
    what = f"{count}: they carry the keyed noise, but on another base, or stored otherwise"
    return Problem(what, where, f"Check the base column; storage is {key.storage} by the key.")


def _wrong_sigma(count: str, found: float, key: Canaries, where: str) -> Problem:
    factor = max(found / key.sigma, key.sigma / found)
    size = "large" if key.sigma > found else "small"
    what = (
        f"{count}: sigma is wrong: the stored canaries differ from their bases by sd {found:.4g} "
        f"along the keyed noise, canaries.json says sigma {key.sigma:g} (too {size}, factor "
        f"{factor:.3g})"
    )
    return Problem(what, where, "Sigma is in [0, 1] pixels, not in normalised or 0..255 units.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    slope: float
    error: float
    """Standard error of the slope."""
    weight: float


def _regress(pair: Pair, key: Canaries) -> _Line:
    # Ordinary least squares with an intercept: a picture's mean brightness is not noise.
    x, u = pixels(pair.sample), pair.unit
    x, u = x - x.mean(), u - u.mean()
    weight = float((u**2).sum())
    slope = float((x * u).sum()) / weight
    residual = float(((x - slope * u) ** 2).sum())
    error = math.sqrt(residual / max(1, x.size - 2) / weight)
    return _Line(slope=slope, error=error, weight=weight)


def _near(slope: float, sigma: float, error: float) -> bool:
    # The relative slack is for bases so plain that rounding is all the residual there is.
    return abs(slope - sigma) <= FAR * error + 1e-3 * sigma


def _in_range(pair: Pair, key: Canaries) -> bool:
    sample = pixels(pair.sample)
    base = sample - key.sigma * pair.unit
    slack = 1e-5 + 1e-3 * abs(sample)
    return bool(((base >= -slack) & (base <= 1 + slack)).all())
