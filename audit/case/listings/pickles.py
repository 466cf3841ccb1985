"""Tables in pickles, with --allow-pickle: CIFAR's batches, and arrays of PyTorch or NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poison_audit.case.arrays import Arrays, arrays_of, chosen
from poison_audit.case.listings.listing import Listing, Part
from poison_audit.case.pickled import PLAIN, TORCH, read_pickle, read_torch
from poison_audit.case.pictures import Shape
from poison_audit.errors import InputError, Problem

KINDS = (*TORCH, *PLAIN)
FIX = "Save it by numpy.savez(FILE, x=pictures, y=labels), which --allow-pickle is not needed for."
_TEN, _HUNDRED = "batches.meta", "meta"


def is_cifar(path: Path) -> bool:
    """Say whether this is CIFAR's folder as it is unpacked, or one of the batches in it."""
    if path.is_dir():
        batches = any(path.glob("data_batch_*")) or (path / "train").is_file()
        return batches and _meta(path) is not None
    return not path.suffix and path.is_file() and _meta(path.parent) is not None


def list_cifar(path: Path, part: Part, *, size: Shape | None, allow_pickle: bool) -> Listing:
    """Return CIFAR's pictures as torchvision orders them: data_batch_1 first.

    Raises:
        InputError: pickles may not be read, or a batch is missing or damaged.
    """
    folder = path if path.is_dir() else path.parent
    files = _batches(path, part)
    if not files:
        raise InputError(Problem(f"has no batch for {part}", str(path), "Unpack it again."))
    x, labels = list[NDArray[Any]](), list[int]()
    for file in files:
        batch = read_pickle(file, allow_pickle=allow_pickle, fix=FIX)
        pictures, numbers = _batch(batch, str(file))
        x.append(pictures)
        labels += numbers
    meta = _meta(folder)
    held = read_pickle(meta, allow_pickle=allow_pickle, fix=FIX) if meta is not None else {}
    names = _names(held)
    if names is not None and max(labels) >= len(names):
        what = f"holds the label {max(labels)}, of {len(names)} names"
        raise InputError(Problem(what, str(path)))
    pixels = arrays_of({"x": np.concatenate(x), "y": np.array(labels)}, str(path), size=size).x
    return Listing(
        where=str(path),
        ids=[str(number) for number in range(len(labels))],
        labels=[names[label] if names is not None else str(label) for label in labels],
        places=[f"{path} index {number}" for number in range(len(labels))],
        x=pixels,
        names=names,
    )


def read_pickled(
    path: Path, part: Part, *, size: Shape | None, channels: int | None, allow_pickle: bool
) -> Arrays:
    """Return the pictures and labels of a `.pt`, `.pth`, `.pkl` or `.pickle`.

    It holds a pair of pictures and labels, a `TensorDataset` of them, or a dictionary that names
    them as an `.npz` does.

    Raises:
        InputError: pickles may not be read, or it holds something else.
    """
    where = str(path)
    read = read_torch if path.suffix.lower() in TORCH else read_pickle
    found = read(path, allow_pickle=allow_pickle, fix=FIX)
    if isinstance(found, list | tuple) and len(found) == 2:
        found = {"x": found[0], "y": found[1]}
    if not isinstance(found, Mapping):
        what = f"expected pictures and labels, got {type(found).__name__}"
        raise InputError(Problem(what, where, FIX))
    names = chosen([name for name in found if isinstance(name, str)], part, where)
    arrays = {kind: _array(found[name], name, where) for name, kind in names.items()}
    return arrays_of(arrays, where, size=size, channels=channels)


def _array(value: Any, name: str, where: str) -> NDArray[Any]:
    if isinstance(value, Tensor):
        value = value.float() if value.dtype == torch.bfloat16 else value
        return np.asarray(value.detach().contiguous())
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, list) and all(isinstance(each, int) for each in value):
        return np.array(value, dtype=np.int64)
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return np.array(value, dtype=str)
    what = f"{name} is a {type(value).__name__}, expected an array or a tensor"
    raise InputError(Problem(what, where, FIX))


def _meta(folder: Path) -> Path | None:
    there = [folder / name for name in (_TEN, _HUNDRED) if (folder / name).is_file()]
    return there[0] if there else None


def _batches(path: Path, part: Part) -> Sequence[Path]:
    if not path.is_dir():
        return [path]
    if (path / _TEN).is_file():
        names = "data_batch_*" if part == "train" else "test_batch"
        return sorted(path.glob(names))
    return [path / part] if (path / part).is_file() else []


def _batch(batch: Any, where: str) -> tuple[NDArray[Any], list[int]]:
    """Return the pictures, (n, 3, h, w), and the labels of a batch."""
    held = batch if isinstance(batch, dict) else {}
    data, labels = held.get("data"), held.get("labels", held.get("fine_labels"))
    side = int((data.shape[1] / 3) ** 0.5) if isinstance(data, np.ndarray) and data.ndim == 2 else 0
    if (
        not isinstance(data, np.ndarray)
        or not isinstance(labels, list)
        or data.dtype != np.uint8
        or data.shape != (len(labels), 3 * side * side)
        or not labels
        or not all(isinstance(label, int) and label >= 0 for label in labels)
    ):
        raise InputError(Problem("is no batch of CIFAR: data and labels", where, FIX))
    return data.reshape(len(labels), 3, side, side), labels


def _names(meta: Any) -> tuple[str, ...] | None:
    held = meta if isinstance(meta, dict) else {}
    names = held.get("label_names", held.get("fine_label_names"))
    if not isinstance(names, list) or not all(isinstance(n, str) and n for n in names):
        return None
    return tuple(names) if names and len(set(names)) == len(names) else None
