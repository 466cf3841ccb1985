"""Tensors from files: safetensors, single or sharded; pickles only when asked for."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from poison_audit.errors import InputError, Problem, Problems, some
from poison_audit.models.formats import kind_of
from poison_audit.models.lora import Adapter
from poison_audit.models.pickles import read_pickle
from poison_audit.models.wrappers import unwrapped

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"
ADAPTER = "adapter_config.json"
"""What a folder holds where its weights are only a part of a network."""
_PICKLED = (PICKLE, "model.pt", "model.pth", "checkpoint.pt", "checkpoint.pth", "checkpoint.tar",
            "model_best.pth.tar", "checkpoint.pth.tar", "best.pt", "best.pth")  # fmt: skip
"""What pickles are called that stand for their folder."""
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""What a weight may be stored as; all are read into float32."""


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
    normalize: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Means and standard deviations of a layer before the network; None: there is none."""
    holder: str = ""
    """The names of that layer's tensors."""
    adapter: Adapter | None = None
    """What is to be merged into these tensors, which are its base; None: they are whole."""


def read_weights(
    path: Path, *, allow_pickle: bool = False, state_key: str | None = None
) -> Weights:
    """Read and check the tensors of a checkpoint. Its content says what it is, not its suffix.

    Args:
        path: a safetensors file, a shard index, what torch.save wrote, or a folder with one.
        allow_pickle: whether a pickle may be read; tensors and plain containers only.
        state_key: the entry of a pickle, or the prefix of the names, that holds the network.

    Raises:
        InputError: the file is missing, damaged, of another format, or holds values that are no
            finite floating-point weights.
    """
    file = _locate(path, allow_pickle=allow_pickle)
    weights = read_file(file, allow_pickle=allow_pickle, state_key=state_key)
    if found := [name for name in weights.tensors if _ADAPTER.search(name)]:
        what = f"is an adapter (LoRA or another of PEFT's) without {ADAPTER}: {listed(found, 2)}"
        raise InputError(Problem(what, str(file), "Put the two into one folder, and name that."))
    bare, notes = unwrapped(weights.tensors)
    return replace(weights, tensors=bare, notes=(*weights.notes, *notes))


def read_file(file: Path, *, allow_pickle: bool, state_key: str | None = None) -> Weights:
    """Read and check the tensors of one file (or shard index), by the names that they have there.

    Arguments and errors are those of `read_weights`.
    """
    try:
        weights = _read(file, allow_pickle=allow_pickle, state_key=state_key)
    except OSError as error:
        raise InputError(Problem(f"cannot be read ({error})", str(file))) from error
    _check(weights.tensors, file)
    return weights


def listed(names: Collection[str], most: int = 20) -> str:
    """Return names as a list for an error, sorted and cut.

    >>> listed(["c", "a", "b"], most=2)
    'a, b and 1 more'
    """
    return some(sorted(names), most)


def _locate(path: Path, *, allow_pickle: bool) -> Path:
    where = str(path)
    if not path.exists():
        raise InputError(Problem("does not exist", where, "Give a checkpoint or its folder."))
    if not path.is_dir():
        return path
    found = [path / name for name in (SINGLE, INDEX) if (path / name).is_file()]
    found = found or sorted(path.glob("*.safetensors"))
    if not found and (path / f"{PICKLE}.index.json").is_file():
        what = f"holds shards of pickles ({PICKLE}.index.json)"
        fix = "Save it as safetensors: AutoModel...from_pretrained(FOLDER).save_pretrained(FOLDER)."
        raise InputError(Problem(what, where, fix))
    if not found:
        found = sorted(file for file in path.iterdir() if file.name in _PICKLED and file.is_file())
        if found and not allow_pickle:
            raise _is_a_pickle(found[0])
    if len(found) == 1:
        return found[0]
    if found:
        what = f"holds several checkpoints ({listed([file.name for file in found])})"
        raise InputError(Problem(what, where, "Name the one that is deployed."))
    there = listed([entry.name for entry in path.iterdir()]) or "nothing"
    what = f"holds neither {SINGLE} nor {INDEX} nor another .safetensors file, but {there}"
    raise InputError(Problem(what, where, "Name the checkpoint's file."))


def _is_a_pickle(file: Path) -> InputError:
    what = "is a pickle, which can run code when it is read"
    fix = "Save it as safetensors, which cannot; or --allow-pickle reads tensors alone."
    return InputError(Problem(what, str(file), fix))


def _read(file: Path, *, allow_pickle: bool, state_key: str | None) -> Weights:
    if file.name.endswith(".safetensors.index.json"):
        return _of_part(_read_shards(file), state_key)
    metadata: dict[str, str] = {}
    notes: tuple[str, ...] = ()
    if kind_of(file) == "pickle":
        if not allow_pickle:
            raise _is_a_pickle(file)
        tensors, notes = read_pickle(file, key=state_key)
        state_key = None
    else:
        tensors, metadata = _read_safetensors(file)
    digest = _sha256(file)
    read = Weights(tensors=tensors, metadata=metadata, files=(file,), sha256=digest, notes=notes)
    return _of_part(read, state_key)


def _of_part(weights: Weights, key: str | None) -> Weights:
    if key is None:
        return weights
    part = {name: t for name, t in weights.tensors.items() if name.startswith(f"{key}.")}
    if not part:
        heads = listed({name.partition(".")[0] for name in weights.tensors})
        what = f"has no tensors whose names begin with {key!r}"
        raise InputError(Problem(what, str(weights.files[0]), f"They begin with: {heads}."))
    return replace(weights, tensors=part)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
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


_ADAPTER = re.compile(r"(^|\.)lora_[AB](\.|$)|(^|\.)(ia3_l|oft_R|vera_lambda_)")
DEQUANTISE = (
    "Audit the checkpoint as it was before; or dequantise it where it is served: "
    "AutoModel...from_pretrained(FOLDER).dequantize().save_pretrained(NEW_FOLDER)."
)
"""What to do about quantised weights."""
_PACKED = re.compile(
    r"\.(qweight|qzeros|absmax|quant_map|SCB|zero_point|_packed_params(\.\w+)?|quant_state\S*)$"
)


def _check(tensors: Mapping[str, Tensor], file: Path) -> None:
    where = str(file)
    if found := [name for name in tensors if _PACKED.search(name)]:
        raise InputError(Problem(f"holds quantised weights: {listed(found, 2)}", where, DEQUANTISE))
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
