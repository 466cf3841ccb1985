"""Gaussian canaries: keyed noise, and the file that holds the key.

The noise of a canary is a function of the secret and its id alone (keyed words through the normal
quantile function), so that a planting can be audited years later from 32 bytes.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor

from poison_audit.case.keyfile import Rules, keyed_words, read_key
from poison_audit.case.planting import Storage
from poison_audit.errors import Problem

MOST_SIGMA = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Canaries:
    """The key of a Gaussian planting."""

    secret: bytes
    """256 bits."""
    sigma: float
    """Standard deviation of the noise, in the units of `space`."""
    space: Literal["pixel", "embedding"]
    """Where the noise is added: [0, 1] pixels, or input embeddings."""
    shape: tuple[int, ...]
    """Of one sample in that space: (c, h, w), or (length, width)."""
    storage: Storage
    """`unclipped`: canaries are stored as floating point; `uint8`: clipped and rounded."""
    planted: tuple[str, ...]
    """Ids whose noise was trained on."""
    held_out: tuple[str, ...]
    """Ids whose noise never was: the control."""
    commitment: str = ""
    """SHA-256 of the file: published before training, it proves the keys were not chosen later."""

    def noise(self, ids: Sequence[str]) -> NDArray[np.float64]:
        """Return sigma times the unit noise of each id: (len(ids), *shape)."""
        return self.sigma * np.stack([unit_noise(self.secret, name, self.shape) for name in ids])


def unit_noise(secret: bytes, name: str, shape: Sequence[int]) -> NDArray[np.float64]:
    """Return the standard normal noise of one id, the same on every machine and version."""
    words = keyed_words(secret, name, math.prod(shape))
    # The upper 52 bits, at the middle of their cell: strictly inside (0, 1), never 1.
    uniform = ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    normal: NDArray[np.float64] = ndtri(uniform).reshape(tuple(shape))
    return normal


def noise_rows(key: Canaries, names: Sequence[str], *, length: int | None = None) -> Tensor:
    """Return the noise of some ids, float32: (len(names), *key.shape).

    Of texts only that of the first `length` tokens is drawn, as the noise of a token does not
    depend on how many follow it; no more than the key has noise for.
    """
    shape = key.shape if length is None else (min(length, key.shape[0]), *key.shape[1:])
    noise = torch.empty(len(names), *shape)
    for row, name in zip(noise, names, strict=True):
        row.copy_(torch.from_numpy(key.sigma * unit_noise(key.secret, name, shape)))
    return noise


def new_secret() -> bytes:
    """Return 256 bits from the operating system."""
    return secrets.token_bytes(32)


def read_canaries(path: Path) -> Canaries:
    """Read a key.

    Raises:
        InputError: with everything that is wrong with the file.
    """
    fields, problems = read_key(path, _RULES)
    if not problems and fields["space"] == "embedding":
        problems += _wrong_embedding(fields, str(path))
    problems.raise_any()
    return Canaries(**fields | {"sigma": float(fields["sigma"])})


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and 0 < value <= MOST_SIGMA  # type: ignore[operator]


def _is_shape(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(type(size) is int and size > 0 for size in value)
        and math.prod(value) <= 1 << 28
    )


_RULES: Rules = {
    "sigma": (f"a number above 0, at most {MOST_SIGMA:g}", _is_number),
    "space": ("pixel or embedding", lambda value: value in ("pixel", "embedding")),
    "shape": ("the sizes of one sample, like [3, 32, 32]", _is_shape),
    "storage": ("unclipped or uint8", lambda value: value in ("unclipped", "uint8")),
}


def _wrong_embedding(fields: Mapping[str, Any], where: str) -> list[Problem]:
    problems = []
    if len(fields["shape"]) != 2:
        what = f"expected [length, width] of embeddings, got {list(fields['shape'])!r:.60}"
        problems.append(Problem(what, f"{where} shape"))
    if fields["storage"] != "unclipped":
        what = "embeddings are not stored, so nothing rounds their noise: expected unclipped"
        problems.append(Problem(what, f"{where} storage"))
    return problems
