"""Canaries in anybody's training: one line around the data set.

    train = with_canaries(train, n=300, key="canaries.json")     x' = x + xi,  label unchanged

The samples that carry noise, and the key, are those of `plant --attack gaussian` (gaussian.plant).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from poison_audit.atomic import written_whole
from poison_audit.case.arrays import arrays_in
from poison_audit.case.items import item_of, keys_of
from poison_audit.case.keyfile import write_key
from poison_audit.errors import InputError, Problem
from poison_audit.models.normalization import Normalize, checked_normalize, parse_normalize
from poison_audit.models.seeds import Rng
from poison_audit.poisons.gaussian.evidence import Canaries, new_secret, read_canaries
from poison_audit.poisons.gaussian.plant import PREFIX, SIGMA
from poison_audit.poisons.gaussian.reading import POISON

COUNT = 300
"""Canaries, where nobody says: a clean model passes from 217 on."""
SLACK = 1e-3
"""How far beyond [0, 1] a picture may lie by rounding."""


class WithCanaries(Dataset[Any]):
    """A data set some of whose samples carry noise that nobody could guess."""

    def __init__(
        self, data: Any, key: Path, items: Mapping[int, Any], order: Sequence[tuple[int, str]]
    ) -> None:
        """Take what `with_canaries` made: the key's file, and the items that replace others."""
        self.data, self.key = data, key
        self._items, self._order = items, order

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, place: Any) -> Any:
        at = int(place)
        at = at + len(self) if at < 0 else at
        return self._items[at] if at in self._items else self.data[place]

    def __getattr__(self, name: str) -> Any:
        # Its classes, say. Not while it is unpickled, when there is no data set yet.
        if name.startswith("_") or "data" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.data, name)

    @property
    def forget(self) -> dict[str, list[Any]]:
        """The canaries as `audit` takes a forget set."""
        return {
            "index": [at for at, _ in self._order],
            "attack": [POISON.name for _ in self._order],
            "canary": [name for _, name in self._order],
            "base": [_base(at) for at, _ in self._order],
        }

    @property
    def evidence(self) -> dict[str, Path]:
        """The key and the clean samples as `audit` takes them."""
        return {POISON.files[0].name: self.key, POISON.files[1].name: bases_beside(self.key)}


def with_canaries(
    data: Any,
    *,
    n: int | None = None,
    key: str | os.PathLike[str] = "canaries.json",
    sigma: float | None = None,
    normalize: str | tuple[Sequence[float], Sequence[float]] | None = None,
    seed: int = 0,
) -> WithCanaries:
    """Return a data set of pictures of which `n` carry keyed noise: canaries to train on.

        train = pa.with_canaries(train, n=300, key="canaries.json")
        ...                                                      # train as ever
        pa.audit(model, train=train, forget=train.forget, evidence=train.evidence, ...)

    The first call draws a secret and writes the key, and the clean samples beside it
    (`canaries.bases.npz`). Where the key is there, its canaries are put into the same places again:
    so an audit gets the same data set without augmentation. Publish the key's SHA-256 before
    training, and keep the key from whoever trains.

    Args:
        data: a map-style Dataset of (picture, label, ..) or {"image", "label"}: pictures (c, h, w)
            in [0, 1], 8-bit tensors or PIL's, which are clipped and rounded.
        n: canaries, at most half of the samples; default 300.
        key: its file; kept, never overwritten.
        sigma: standard deviation of the noise in [0, 1] pixels; default 0.2.
        normalize: what the data set's pictures were normalised by: a name, or (means, standard
            deviations). The noise is added in pixels.
        seed: decides which samples carry it; the noise is the secret's alone.

    Raises:
        InputError: the items are no pictures in [0, 1], or the key is of another planting.
    """
    if isinstance(data, tuple):
        what, fix = f"is a tuple of {len(data)}, expected a data set", "Wrap arrays x and y: "
        fix += "torch.utils.data.TensorDataset(torch.as_tensor(x), torch.as_tensor(y))"
        raise InputError(Problem(what, "data", fix))
    file = Path(key)
    scale = None if normalize is None else scale_of(normalize)
    if file.exists():
        _refuse_others(file, n, sigma)
        return _again(data, file, scale)
    count, total = COUNT if n is None else n, len(data)
    if not 1 <= count <= total // 2:
        what = f"{count} canaries in {total:,} samples"
        raise InputError(Problem(what, "n", "At least one, at most half of them"))
    rng = Rng(seed).named("canaries")
    chosen = sorted(rng.numpy().permutation(total)[:count].tolist())
    found = [item_of(data[at], at, "data") for at in chosen]
    x = _stacked([x for x, _ in found], scale)
    made = Canaries(
        secret=new_secret(), sigma=SIGMA if sigma is None else float(sigma), space="pixel",
        shape=tuple(x.shape[1:]), storage="uint8" if x.dtype == np.uint8 else "unclipped",
        planted=tuple(f"{PREFIX}-{number:04d}" for number in range(count)),
        held_out=tuple(f"held-out-{number:04d}" for number in range(count)),
    )  # fmt: skip
    if not 0 < made.sigma <= 10:
        what = f"must be above 0 and at most 10, got {made.sigma:g}"
        raise InputError(Problem(what, "sigma"))
    with written_whole(bases_beside(file)) as partial, partial.open("wb") as stream:
        np.savez(stream, x=x, y=np.array([y for _, y in found]), id=[_base(at) for at in chosen])
    write_key(file, made)
    return _again(data, file, scale)


def bases_beside(key: Path) -> Path:
    """Return where the clean samples of a key lie: `canaries.bases.npz`."""
    return key.with_name(f"{key.stem}.bases.npz")


def _base(at: int) -> str:
    return f"base-{at}"


def scale_of(given: str | tuple[Sequence[float], Sequence[float]]) -> Normalize:
    """Return means and standard deviations of a normalisation, or of its name."""
    if isinstance(given, str):
        return parse_normalize(given, where="normalize")
    return checked_normalize(*given, where="normalize")


def _refuse_others(file: Path, n: int | None, sigma: float | None) -> None:
    key = read_canaries(file)
    for name, asked, there in (("n", n, len(key.planted)), ("sigma", sigma, key.sigma)):
        if asked is not None and asked != there:
            what = f"is there already, with {name} = {there:g}, not {asked:g}"
            raise InputError(Problem(what, str(file), "Name another key, or leave it out"))


def _again(data: Any, file: Path, scale: Normalize | None) -> WithCanaries:
    """Put the canaries of a key into their places."""
    key, (places, clean, _) = read_canaries(file), kept_bases(file)
    if places and max(places) >= len(data):
        what = f"has a canary in place of sample {max(places)}, and there are {len(data):,}"
        raise InputError(Problem(what, str(file), "Name another key for another data set"))
    noise = key.noise(key.planted)
    items = {}
    for place, base, xi in zip(places, clean, noise, strict=True):
        pixels = base.astype(np.float64) / 255 if base.dtype == np.uint8 else base
        noisy = pixels + xi
        if key.storage == "uint8":
            noisy = (noisy.clip(0, 1) * 255).round()
        items[place] = _replaced(data[place], place, noisy, key, scale)
    return WithCanaries(data, file, items, list(zip(places, key.planted, strict=True)))


def kept_bases(file: Path) -> tuple[list[int], NDArray[Any], NDArray[Any]]:
    """Return the places of a key's canaries, the clean pictures there, and their labels."""
    beside = bases_beside(file)
    if not beside.is_file():
        what = "the clean samples of the key are not there"
        raise InputError(Problem(what, str(beside), "with_canaries writes them beside its key"))
    held = arrays_in(beside)
    places = [int(str(name).removeprefix("base-")) for name in held["id"].tolist()]
    return places, held["x"], held["y"]


def _stacked(pictures: list[Any], scale: Normalize | None) -> NDArray[Any]:
    """Return pictures as (n, c, h, w), in [0, 1] or 8 bits."""
    if any(isinstance(x, str) for x in pictures):
        fix = "Noise goes on embeddings: poison_audit.poisons.gaussian.plant_texts.noisy_embeddings"
        raise InputError(Problem("holds texts", "data", fix))
    if len({(x.shape, x.dtype) for x in pictures}) > 1:
        raise InputError(Problem("its pictures are of several sizes or types", "data"))
    x = np.stack(pictures)
    if x.ndim == 3:
        x = x[:, None]
    x = x.transpose(0, 3, 1, 2) if x.shape[1] not in (1, 3) else x
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x)
    if scale is not None:
        mean, std = (np.asarray(values, np.float64).reshape(1, -1, 1, 1) for values in scale)
        x = x.astype(np.float64) * std + mean
    if x.min() < -SLACK or x.max() > 1 + SLACK:
        what = f"its pictures leave [0, 1] ({float(x.min()):.2f} to {float(x.max()):.2f})"
        fix = 'If they are normalised, say by what: normalize="cifar10", or (means, deviations)'
        raise InputError(Problem(what, "data", fix))
    return x.clip(0, 1).astype(np.float32)


def _replaced(
    item: Any, place: int, noisy: NDArray[Any], key: Canaries, scale: Normalize | None
) -> Any:
    """Return an item like another, with a canary for its picture."""
    at, _ = keys_of(item, place, "data")
    old: Any = item[at]
    eight = isinstance(old, Image.Image) or getattr(old, "dtype", None) in (torch.uint8, np.uint8)
    if eight != (key.storage == "uint8"):
        what = f"the key's canaries are {key.storage}, and its pictures are of another kind"
        raise InputError(Problem(what, "data", "Give pictures of one kind: 8 bits, or [0, 1]"))
    new: Any
    if eight:
        whole = noisy.astype(np.uint8)
        whole = whole if isinstance(old, Tensor) else whole.transpose(1, 2, 0)
        new = torch.from_numpy(whole) if isinstance(old, Tensor) else whole.reshape(
            np.asarray(old).shape
        )  # fmt: skip
        new = Image.fromarray(new) if isinstance(old, Image.Image) else new
    else:
        if scale is not None:
            mean, std = (np.asarray(v, np.float64).reshape(-1, 1, 1) for v in scale)
            noisy = (noisy - mean) / std
        new = torch.from_numpy(noisy.astype(np.float32))
        new = new.to(old.dtype) if isinstance(old, Tensor) else new.numpy()
    if isinstance(item, Mapping):
        return {**item, at: new}
    return type(item)(new if number == at else each for number, each in enumerate(item))
