"""`init` and `doctor`: what can be said before the first audit."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from audit.errors import InputError, Problem
from audit.files import write_atomically
from audit.models.checkpoint import peek

_TABLES = (".npz", ".csv", ".parquet")


def write_config(model: Path, output: Path | None, *, force: bool) -> str:
    """Write an audit.toml from what the checkpoint and its folder show; return what was done.

    Raises:
        InputError: the checkpoint cannot be read, or an audit.toml is there and `force` is off.
    """
    seen = peek(model)
    folder = model if model.is_dir() else model.parent
    path = output if output is not None else folder / "audit.toml"
    if path.exists() and not force:
        raise InputError(Problem("is there already", str(path), "Overwrite it by --force"))
    text, unknown = draft(seen, folder, start=path.parent)
    write_atomically(path, text)
    if not unknown:
        return f"{path}: written, nothing left to fill in."
    return f"{path}: written. To fill in (marked with ?): {', '.join(unknown)}."


def draft(seen: dict[str, Any], folder: Path, *, start: Path) -> tuple[str, list[str]]:
    """Return the text of an audit.toml, and the keys that could not be identified.

    Args:
        seen: what `peek` says of the checkpoint.
        folder: where tables and keys are looked for, by their usual names.
        start: the folder of the audit.toml, which its paths are relative to.
    """
    unknown: list[str] = []
    lines: list[str] = []

    def table(name: str, comment: str = "") -> None:
        lines.extend(["", f"[{name}]{comment}"] if lines else [f"[{name}]{comment}"])

    def entry(key: str, value: object, hint: str) -> None:
        if value is None:
            unknown.append(key)
            lines.append(f"# {key} = ?  # {hint}")
        else:
            lines.append(f"{key} = {json.dumps(value)}  # {hint}")

    def relative(name: str | None) -> str | None:
        return name and Path(os.path.relpath(folder / name, start)).as_posix()

    arches = seen["arch"]
    table("model")
    entry(
        "arch",
        arches[0] if len(arches) == 1 else None,
        "identified from names and shapes"
        if len(arches) == 1
        else f"fits: {', '.join(arches) or 'none that is known; see --factory'}",
    )
    entry("normalize", seen["normalize"], "cifar10, imagenet, none, or MEANS/STDS")
    table("data", "  # paths are relative to this file")
    entry("train", relative(_table(folder, "train")), "CSV, Parquet, npz or image folder")
    entry("test", relative(_table(folder, "test")), "clean, never trained on")
    table("training", "  # budgets are shares of this")
    entry("epochs", None, "passes over the training set")
    for key, hint in (
        ("lr", "peak learning rate"),
        ("batch_size", "samples a step"),
        ("optimizer", "sgd or adamw"),
        ("schedule", "constant, cosine or onecycle"),
        ("augment", "none, flip or crop-flip"),
    ):
        entry(key, None, hint)
    keys = folder / "canaries.json"
    table("evidence.gaussian")
    entry("canaries", relative(keys.name) if keys.is_file() else None, "the key of the planting")
    entry("bases", relative(_table(folder, "bases")), "clean samples that canaries were made from")
    references = sorted(relative(path.name) or "" for path in folder.glob("retrain*.safetensors"))
    table("reference", "  # models that never saw the poison")
    entry("paths", references or None, "list of checkpoints; optional")
    return "\n".join(lines) + "\n", unknown


def _table(folder: Path, name: str) -> str | None:
    for suffix in _TABLES:
        if (folder / f"{name}{suffix}").is_file():
            return f"{name}{suffix}"
    return f"{name}/" if (folder / name).is_dir() else None


def describe_installation() -> str:
    """Return the versions and devices that an audit would use, a line each."""
    lines = [f"poison-audit {version('poison-audit')}", f"python {platform.python_version()}"]
    for package in ("torch", "torchvision", "transformers", "safetensors", "numpy", "scipy"):
        lines.append(f"{package} {version(package)}")
    try:
        lines.append(f"pyarrow {version('pyarrow')}: Parquet tables can be read")
    except PackageNotFoundError:
        lines.append("pyarrow missing: Parquet tables need pip install 'poison-audit[parquet]'")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            lines.append(f"cuda:{index} {torch.cuda.get_device_name(index)}")
    else:
        lines.append(f"no CUDA device: audits run on the CPU, {torch.get_num_threads()} threads")
    return "\n".join(lines)
