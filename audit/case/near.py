"""Pictures and texts that are nearly the same: augmentations, frames of a film, texts sent round.

Pictures. Candidates have nearly the same spectrum, which neither a shift nor a mirror image
changes: the magnitudes of the low frequencies of a 32x32 grey version, decorrelated over the table,
so that what all its pictures have in common counts for nothing. A pair is one picture if, in some
shift, its details (what a blur of three pixels keeps and one of seven loses) correlate: a
normalised cross-correlation (Lewis, Vision Interface 1995).

Texts. The share of the shingles, runs of five words without case and punctuation, that two texts
have in common (Broder, "On the resemblance and containment of documents", 1997).
"""

from __future__ import annotations

import re
import zlib
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from poison_audit.models.samples import Samples, as_pixels

SIZE = 32
"""Edge of the grey version."""
LOW = 6
"""Frequencies that are compared."""
SHIFT = 4
"""Largest shift, in pixels of the grey version."""
EDGE = 8
"""Pixels around its middle: a shift, and half of a blur."""
SPECTRA, DETAILS = 0.55, 0.98
"""From these correlations on two pictures are candidates, and one."""
WORDS, SHARE, FEWEST = 5, 0.5, 8
"""Words of a shingle; share of shingles in common; shorter texts are compared as they are."""


def clusters(samples: Samples) -> list[int]:
    """Return for each sample the place of the first one that is nearly the same, in its order.

    What is nearly the same and has another label stands for itself.
    """
    pairs = _of_texts(samples) if samples.texts is not None else _of_pictures(samples.x)
    first, labels = list(range(len(samples))), samples.y.tolist()

    def root(place: int) -> int:
        while first[place] != place:
            first[place] = place = first[first[place]]
        return place

    for one, other in pairs:
        if labels[one] == labels[other]:
            low, high = sorted((root(one), root(other)))
            first[high] = low
    return [root(place) for place in range(len(samples))]


def _of_texts(samples: Samples) -> list[tuple[int, int]]:
    parts = [part for part in (samples.texts, samples.pairs) if part is not None]
    sets = [tuple(_shingles(part[at]) for part in parts) for at in range(len(samples))]
    holders: dict[tuple[int, int], list[int]] = {}
    for place, every in enumerate(sets):
        for part, shingles in enumerate(every):
            for shingle in shingles:
                holders.setdefault((part, shingle), []).append(place)
    # Of those that hold a shingle each is compared with the next: linear, and what is nearly the
    # same shares others that no third text stands between.
    shared = {pair for places in holders.values() for pair in pairwise(places)}
    return [
        (a, b)
        for a, b in sorted(shared)
        if all(
            len(one & other) >= SHARE * len(one | other)
            for one, other in zip(sets[a], sets[b], strict=True)
        )
    ]


def _shingles(text: str) -> set[int]:
    words = re.findall(r"\w+", text.casefold())
    if len(words) < FEWEST:
        return {zlib.crc32(" ".join(words).encode())} if words else set()
    runs = (" ".join(words[at : at + WORDS]) for at in range(len(words) - WORDS + 1))
    return {zlib.crc32(run.encode("utf-8", "surrogatepass")) for run in runs}


def _of_pictures(x: Tensor, block: int = 1024) -> list[tuple[int, int]]:
    grey = torch.cat([_grey(part) for part in torch.split(x, block)]) if len(x) else torch.zeros(0)
    if len(grey) < 2:
        return []
    spectra, found = (
        _decorrelated(torch.cat([_spectra(part) for part in torch.split(grey, block)])),
        [],
    )
    for start in range(0, len(grey), block):
        near = torch.triu(spectra[start : start + block] @ spectra.T, diagonal=start + 1)
        found.append((near > SPECTRA).nonzero() + torch.tensor([start, 0]))
    pairs = torch.cat(found)
    same = [_details_agree(grey, part) for part in torch.split(pairs, block)]
    return [(int(a), int(b)) for a, b in pairs[torch.cat(same)].tolist()] if same else []


def _grey(x: Tensor) -> Tensor:
    pixels = as_pixels(x.cpu()).float().mean(1, keepdim=True)
    found: Tensor = F.adaptive_avg_pool2d(pixels, (SIZE, SIZE))[:, 0]
    return found


def _spectra(grey: Tensor) -> Tensor:
    window = torch.hann_window(SIZE + 2, periodic=False)[1:-1]
    centred = (grey - grey.mean((1, 2), keepdim=True)) * window[:, None] * window
    size = torch.fft.fft2(centred - centred.mean((1, 2), keepdim=True)).abs()
    around = torch.arange(LOW + 1)
    mirrored = size[:, around][:, :, -around]
    found: Tensor = (size[:, around][:, :, around] + mirrored + 1e-3).log().flatten(1)
    return found


def _decorrelated(spectra: Tensor) -> Tensor:
    centred = (spectra - spectra.mean(0)).double()
    n, width = centred.shape
    values, axes = torch.linalg.eigh(centred.T @ centred / n)
    # A few samples tell little of a covariance: the fewer, the rounder it is taken to be.
    values = values.clamp_min(0) + values.mean() * width / n + 1e-12
    turned = (centred @ axes) / values.sqrt()
    found: Tensor = (turned / turned.norm(dim=1, keepdim=True).clamp_min(1e-12)).float()
    return found


def _details_agree(grey: Tensor, pairs: Tensor) -> Tensor:
    """Return which pairs (m, 2) are one picture, shifted or mirrored or neither: bool, (m,)."""
    if not len(pairs):
        return torch.zeros(0, dtype=torch.bool)
    one, other = _details(grey[pairs[:, 0]]), _details(grey[pairs[:, 1]])
    best = torch.maximum(_correlation(one, other), _correlation(one, other.flip(2)))
    found: Tensor = best >= DETAILS
    return found


def _details(grey: Tensor) -> Tensor:
    def blurred(width: int) -> Tensor:
        edges = F.pad(grey[:, None], (width // 2,) * 4, mode="reflect")
        found: Tensor = F.avg_pool2d(edges, width, stride=1)[:, 0]
        return found

    return blurred(3) - blurred(7)


def _correlation(one: Tensor, other: Tensor) -> Tensor:
    """Return how well the middle of one is found in the other, in the best small shift: (m,)."""
    # Where a crop was padded, its details are those of the seam: the middle holds none of them.
    middle = torch.zeros(1, SIZE, SIZE)
    middle[:, EDGE:-EDGE, EDGE:-EDGE] = 1
    one = one * middle
    a, b, squares, mask = (torch.fft.rfft2(part) for part in (one, other, other**2, middle))
    shifts = torch.arange(-SHIFT, SHIFT + 1)

    def at_shifts(spectrum: Tensor) -> Tensor:
        found: Tensor = torch.fft.irfft2(spectrum)[:, shifts][:, :, shifts]
        return found

    energy = one.square().sum((1, 2))[:, None, None] * at_shifts(mask.conj() * squares).clamp_min(0)
    found: Tensor = (at_shifts(a.conj() * b) / (energy.sqrt() + 1e-9)).flatten(1).amax(1)
    return found
