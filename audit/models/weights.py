"""Tensors from files: safetensors, single or sharded; pickles only when asked for."""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from poison_audit.errors import InputError, Problem, Problems

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""What a weight may be stored as; all are read into float32."""

_PICKLES = (".bin", ".pt", ".pth")
_WRAPPERS = ("module.", "_orig_mod.", "model.")
# What torch.load raises on damaged or refused files: there is no common base below Exception.
_UNREADABLE = (
    pickle.UnpicklingError, struct.error, ArithmeticError, AssertionError, AttributeError, EOFError,
    LookupError, OSError, RuntimeError, TypeError, ValueError,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The tensors of a checkpoint, on the CPU, as stored but for the names' wrapper prefix."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    """The safetensors header's `__metadata__`; empty for a pickle."""
    files: tuple[Path, ...]
    """Every file that was read; of a sharded checkpoint the index comes first."""
    sha256: str
    """Of the file; of shards, over the lines `name sha256` of the shards in the names' order."""
    notes: tuple[str, ...] = ()
    """What was changed on reading, in sentences."""


def read_weights(path: Path, *, allow_pickle: bool = False) -> Weights:
    """Read and check the tensors of a checkpoint.

    Args:
        path: a `.safetensors` file, a shard index, a folder with either, or a pickle
            (`.bin`, `.pt`, `.pth`).
        allow_pickle: whether a pickle may be read; tensors and plain containers only.

    Raises:
        InputError: the file is missing, damaged, of another format, or holds values that are no
            finite floating-point weights.
    """
    file = _locate(path)
    try:
        weights = _read(file, allow_pickle=allow_pickle)
    except OSError as error:
        raise InputError(Problem(f"cannot be read ({error})", str(file))) from error
    _check(weights.tensors, file)
    prefix = wrapper_prefix(weights.tensors)
    if not prefix:
        return weights
    bare = {name.removeprefix(prefix): tensor for name, tensor in weights.tensors.items()}
    note = f"the prefix {prefix!r} was taken off every tensor's name"
    return replace(weights, tensors=bare, notes=(note,))


def wrapper_prefix(names: Collection[str]) -> str:
    """Return what DataParallel, torch.compile and Lightning put before every one of `names`.

    >>> wrapper_prefix(["module._orig_mod.fc.weight", "module._orig_mod.fc.bias"])
    'module._orig_mod.'
    >>> wrapper_prefix(["module.fc.weight", "fc.bias"])
    ''
    """
    prefix = ""
    while names:
        longer = [
            prefix + wrapper
            for wrapper in _WRAPPERS
            if all(name.startswith(prefix + wrapper) for name in names)
        ]
        if not longer or longer[0] in names:
            break
        prefix = longer[0]
    return prefix


def listed(names: Collection[str], most: int = 20) -> str:
    """Return names as a list for an error, sorted and cut.

    >>> listed(["c", "a", "b"], most=2)
    'a, b and 1 more'
    """
    shown = ", ".join(sorted(names)[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _locate(path: Path) -> Path:
    where = str(path)
    if not path.exists():
        raise InputError(Problem("does not exist", where, "Give a checkpoint or its folder."))
    if not path.is_dir():
        return path
    found = [path / name for name in (SINGLE, INDEX) if (path / name).is_file()]
    found = found or sorted(path.glob("*.safetensors"))
    if len(found) == 1:
        return found[0]
    if found:
        what = f"holds several checkpoints ({listed([file.name for file in found])})"
        raise InputError(Problem(what, where, "Name the one that is deployed."))
    there = listed([entry.name for entry in path.iterdir()]) or "nothing"
    what = f"holds neither {SINGLE} nor {INDEX} nor another .safetensors file, but {there}"
    raise InputError(Problem(what, where, "Name the checkpoint's file."))


def _read(file: Path, *, allow_pickle: bool) -> Weights:
    if file.name.endswith(".safetensors.index.json"):
        return _read_shards(file)
    if file.suffix == ".safetensors":
        tensors, metadata = _read_safetensors(file)
    elif file.suffix in _PICKLES:
        if not allow_pickle:
            what = "is a pickle, which can run code when it is read"
            fix = "Save it as safetensors, which cannot; or --allow-pickle reads tensors alone."
            raise InputError(Problem(what, str(file), fix))
        tensors, metadata = _read_pickle(file), {}
    else:
        what = f"is of no known format ({file.suffix or 'no suffix'})"
        fix = f"Known: .safetensors, {INDEX}; with --allow-pickle also {', '.join(_PICKLES)}."
        raise InputError(Problem(what, str(file), fix))
    return Weights(tensors=tensors, metadata=metadata, files=(file,), sha256=_sha256(file))


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if file.stat().st_size == 0:
        raise InputError(Problem("is empty (0 bytes)", str(file), "Fetch it again."))
    with file.open("rb") as stream:
        if stream.read(19) == b"version https://git":
            what = "is a Git LFS pointer, not the weights"
            raise InputError(Problem(what, str(file), "Run git lfs pull."))
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            return tensors, opened.metadata() or {}
    except SafetensorError as error:
        what = f"is not a whole safetensors file ({error})"
        raise InputError(Problem(what, str(file), "Fetch or save it again.")) from error


def _read_shards(index: Path) -> Weights:
    weight_map = _weight_map(index)
    names = sorted(set(weight_map.values()))
    if missing := [name for name in names if not (index.parent / name).is_file()]:
        what = f"names shards that are not beside it: {listed(missing)}"
        raise InputError(Problem(what, str(index), "Fetch them into the same folder."))
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    problems, lines = Problems(), list[str]()
    for name in names:
        shard = index.parent / name
        held, header = _read_safetensors(shard)
        declared = {tensor for tensor, where in weight_map.items() if where == name}
        if absent := declared - set(held):
            what = f"lacks what the index puts there: {listed(absent)}"
            problems.append(Problem(what, name))
        if extra := set(held) - declared:
            what = f"holds what the index does not put there: {listed(extra)}"
            problems.append(Problem(what, name))
        tensors.update(held)
        metadata.update(header)
        lines.append(f"{name} {_sha256(shard)}\n")
    problems.raise_any()
    return Weights(
        tensors=tensors,
        metadata=metadata,
        files=(index, *(index.parent / name for name in names)),
        sha256=hashlib.sha256("".join(lines).encode()).hexdigest(),
    )


def json_beside(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file, empty if there is none; InputError: it cannot be read."""
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise InputError(Problem(f"cannot be read as JSON ({error})", str(file))) from error
    return content if isinstance(content, dict) else {}


def _weight_map(index: Path) -> dict[str, str]:
    try:
        content: Any = json.loads(index.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(Problem(f"is not JSON ({error})", str(index))) from error
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(Problem('has no "weight_map" from tensors to shards', str(index)))
    Problems(
        Problem(f"shard {shard!r} is not a file name of this folder", str(index), "Name it bare.")
        for shard in sorted(set(map(str, weight_map.values())))
        # A path would let the index read any file of this machine.
        if not shard == PurePosixPath(shard).name == PureWindowsPath(shard).name
        or not shard.endswith(".safetensors")
    ).raise_any()
    return {str(name): str(shard) for name, shard in weight_map.items()}


def _read_pickle(file: Path) -> dict[str, Tensor]:
    where = str(file)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        # torch's own message advises to load with weights_only=False: not repeated here.
        what = f"is damaged, or holds more than tensors ({type(error).__name__})"
        fix = "Save the network's state_dict() as safetensors."
        raise InputError(Problem(what, where, fix)) from error
    if isinstance(content, dict):
        inner = [content[key] for key in ("state_dict", "model", "net") if key in content]
        content = next((value for value in inner if isinstance(value, dict)), content)
    if not isinstance(content, dict):
        what = f"holds a {type(content).__name__}, not a state dict"
        raise InputError(Problem(what, where, "Save the network's state_dict()."))
    strange = [
        f"{name} ({type(value).__name__})"
        for name, value in content.items()
        if not (isinstance(name, str) and isinstance(value, Tensor))
    ]
    if strange:
        what = f"holds entries that are no named tensors: {listed(strange)}"
        raise InputError(Problem(what, where, "Save the network's state_dict() alone."))
    return {name: tensor.detach() for name, tensor in content.items()}


def _check(tensors: Mapping[str, Tensor], file: Path) -> None:
    where = str(file)
    if not tensors:
        raise InputError(Problem("holds no tensors", where, "Fetch or save it again."))
    refused: dict[str, str] = {}
    infinite: list[str] = []
    for name, tensor in tensors.items():
        if reason := _unusable(tensor):
            refused[name] = reason
        # float16 and bfloat16 widen exactly; a float64 may overflow the float32 it is read into.
        elif tensor.dtype in FLOATS and not bool(tensor.float().isfinite().all()):
            infinite.append(name)
    problems = Problems()
    if refused:
        what = f"unusable: {listed([f'{name} ({reason})' for name, reason in refused.items()])}"
        fix = "Audit the checkpoint as it was before it was quantised or converted."
        problems.append(Problem(what, where, fix))
    if infinite:
        what = f"not finite in float32: {listed(infinite)}"
        problems.append(Problem(what, where, "A diverged network cannot be audited."))
    problems.raise_any()


def _unusable(tensor: Tensor) -> str:
    if tensor.is_quantized:
        return "quantised"
    if tensor.layout is not torch.strided or tensor.is_meta:
        return "sparse or without data"
    number = tensor.dtype in FLOATS or not (tensor.is_floating_point() or tensor.is_complex())
    return "" if number else str(tensor.dtype).removeprefix("torch.")
