"""Writing a Model as safetensors, so that it can be read back from the file alone."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from poison_audit.atomic import written_whole
from poison_audit.models.beside import files_beside, write_beside
from poison_audit.models.lora_files import WEIGHTS, tensors_of
from poison_audit.models.model import Model
from poison_audit.models.normalization import NORMALIZE_KEY
from poison_audit.models.strict import first_of_ties

ARCH_KEY = "poison_audit.arch"
"""The header's key for the architecture's name."""


def save_model(
    model: Model, path: Path, *, extra: Mapping[str, str] | None = None, config: str | None = None
) -> None:
    """Write a model as safetensors, with its architecture and normalisation in the header.

    Tensors keep the names that they were read by, so that the code that made the checkpoint reads
    this one. Equal models give equal bytes, and a reader finds the file whole or not at all. Of
    tied tensors one is written: the one that transformers ties the others to, else the first by
    name.
    By the name of an adapter's weights, an adapter is written alone, with its configuration.
    Beside a language model its tokenizer and config.json are written, over what is there.

    Args:
        model: any model; one from a factory can be read back with the factory only, one of
            pictures from transformers with its config.json beside it.
        path: the file; its folder must exist.
        config: of a language model: what config.json is to say, where that is not what the one
            says that it was read with.

    Raises:
        InputError: the tokenizer that a language model was read with is there no more.
    """
    metadata = {**(extra or {}), "format": "pt", ARCH_KEY: model.arch}
    if model.normalize is not None:
        metadata[NORMALIZE_KEY] = json.dumps(model.normalize)
    if model.adapter is not None and path.name == WEIGHTS:
        write_beside(path.parent, files_beside(model, adapter=True))
        write_tensors(path, tensors_of(model.adapter), metadata)
        return
    beside = files_beside(model)
    if config is not None:
        beside["config.json"] = config.encode()
    write_beside(path.parent, beside)
    state: dict[str, Tensor] = model.module.state_dict()
    named = {stored: state[name] for name, stored in stored_names(model).items()}
    write_tensors(path, named, metadata)


def stored_names(model: Model) -> dict[str, str]:
    """Return what a checkpoint calls a model's tensors, by the module's own names for them.

    Of tied tensors one is there: the one that transformers ties the others to, else the first.
    """
    tied = getattr(model.module, "all_tied_weights_keys", {})
    untied = _untied(model.module.state_dict(), tied)
    return {name: model.stored.get(name, name) for name in untied}


def write_tensors(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors as safetensors, whole or not at all; equal ones give equal bytes.

    Args:
        path: the file; its folder must exist.
        state: by name. Of tied tensors the first by name is written.
        metadata: of the header; empty for none.
    """
    # Copies, since safetensors refuses views of one memory.
    tensors = {
        name: state[name].detach().cpu().clone(memory_format=torch.contiguous_format)
        for name in _untied(state, ())
    }
    content = memoryview(safetensors.torch.save(tensors, dict(metadata) or None))
    size = int.from_bytes(content[:8], "little")
    header = _ordered_header(bytes(content[8 : 8 + size]))
    with written_whole(path) as partial, partial.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little"))
        stream.write(header)
        stream.write(content[8 + size :])


def _untied(state: Mapping[str, Tensor], tied: Collection[str]) -> list[str]:
    """Return one name for each memory; of several one that is not in `tied`, if there is one."""
    first = first_of_ties(state)
    # Older versions of transformers take a tied name alone for a tensor that is missing.
    chosen: dict[str, str] = {}
    for name in sorted(state, key=lambda name: (name in tied, name)):
        chosen.setdefault(first[name], name)
    return sorted(chosen.values())


def _ordered_header(header: bytes) -> bytes:
    # safetensors writes the metadata in a different order each time.
    entries = json.loads(header)
    stated = entries.pop("__metadata__", None)
    ordered = {**({"__metadata__": dict(sorted(stated.items()))} if stated else {}), **entries}
    text = json.dumps(ordered, separators=(",", ":"), ensure_ascii=False).encode()
    return text + b" " * (-len(text) % 8)
