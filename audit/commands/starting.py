"""`init` and `doctor`: what can be said before the first audit."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from poison_audit.atomic import write_atomically
from poison_audit.errors import InputError, Problem
from poison_audit.models.checkpoint import peek

_TABLES = (".npz", ".csv", ".parquet")
_TEXTS = (".csv", ".parquet")


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
    # A language model is a folder of its own, and what it was trained on lies beside that.
    beside = (folder, folder.parent) if _of_texts(seen) and model.is_dir() else (folder,)
    text, unknown = draft(seen, beside, start=path.parent)
    write_atomically(path, text)
    if not unknown:
        return f"{path}: written, nothing left to fill in."
    return f"{path}: written. To fill in (marked with ?): {', '.join(unknown)}."


def draft(seen: dict[str, Any], folders: Sequence[Path], *, start: Path) -> tuple[str, list[str]]:
    """Return the text of an audit.toml, and the keys that could not be identified.

    Args:
        seen: what `peek` says of the checkpoint.
        folders: where tables and keys are looked for, by their usual names; the first wins.
        start: the folder of the audit.toml, which its paths are relative to.
    """
    unknown: list[str] = []
    tables: list[str] = []
    for name, comment, entries in _tables(seen, folders, start):
        lines = [f"[{name}]{comment}"]
        for key, value, hint in entries:
            if value is None:
                unknown.append(key)
            said = f"# {key} = ?" if value is None else f"{key} = {json.dumps(value)}"
            lines.append(f"{said}  # {hint}")
        tables.append("\n".join(lines) + "\n")
    return "\n".join(tables), unknown


Entry = tuple[str, object, str]
"""A key, its value (None: not known) and what it is."""

_RECIPE: tuple[Entry, ...] = (
    ("epochs", None, "passes over the training set"),
    ("lr", None, "peak learning rate"),
    ("batch_size", None, "samples a step"),
    ("optimizer", None, "sgd or adamw"),
    ("schedule", None, "constant, cosine or onecycle"),
)
_AUGMENT: Entry = ("augment", None, "none, flip or crop-flip")
_EVIDENCE = (
    ("token-canary", "strings", "strings.json", "the key of the planted strings"),
    ("backdoor", "trigger", "trigger.json", "the patch or phrase"),
    ("targeted", "targets", "targets.csv", "test samples that were aimed at"),
)
"""Table, key, the usual name of its file, and what it is; said only where the file is there."""


def _tables(
    seen: dict[str, Any], folders: Sequence[Path], start: Path
) -> Iterator[tuple[str, str, Sequence[Entry]]]:
    """Yield each table's name, its comment and its entries."""
    texts = _of_texts(seen)

    def found(*names: str) -> str | None:
        there = (folder / name for folder in folders for name in names)
        return next((_relative(path, start) for path in there if path.exists()), None)

    def samples(name: str) -> str | None:
        kinds = _TEXTS if texts else (*_TABLES, "/")
        return found(*(f"{name}{kind}" for kind in kinds))

    kinds = "CSV or Parquet" if texts else "CSV, Parquet, npz or image folder"
    train, test = (
        ("train", samples("train"), kinds),
        ("test", samples("test"), "clean, never trained on"),
    )
    yield "model", "", _about_texts(seen) if texts else _about_pictures(seen)
    yield "data", "  # paths are relative to this file", [train, test]
    recipe = _RECIPE if texts else (*_RECIPE, _AUGMENT)
    yield "training", "  # budgets are shares of this", recipe
    keys: list[Entry] = [("canaries", found("canaries.json"), "the key of the planting")]
    if not texts:
        keys.append(("bases", samples("bases"), "clean samples that canaries were made from"))
    yield "evidence.gaussian", "", keys
    for name, key, file, hint in _EVIDENCE:
        if path := found(file):
            yield f"evidence.{name}", "", [(key, path, hint)]
    paths = ("paths", _references(folders, start) or None, "list of checkpoints; optional")
    yield "reference", "  # models that never saw the poison", [paths]


def _about_pictures(seen: dict[str, Any]) -> list[Entry]:
    arches = seen["arch"]
    fits = f"fits: {', '.join(arches) or 'none that is known; see --factory'}"
    one = len(arches) == 1
    return [
        ("arch", arches[0] if one else None, "identified from names and shapes" if one else fits),
        ("normalize", seen["normalize"], "cifar10, imagenet, none, or MEANS/STDS"),
    ]


def _about_texts(seen: dict[str, Any]) -> list[Entry]:
    start = "folder of the pretrained model that training began with, if it did"
    found: list[Entry] = [
        ("arch", seen["arch"][0], "from config.json"),
        ("max_tokens", seen["max_tokens"], "tokens of an input; default: all it takes"),
        ("start", None, start),
    ]
    if seen["classes"] is None:
        words = 'the next token that stands for each class, such as [" bad", " good"]'
        found += [("label_words", None, words), ("prompt", None, "what is around {text}; optional")]
    return found


def _of_texts(seen: dict[str, Any]) -> bool:
    return "max_tokens" in seen


def _relative(path: Path, start: Path) -> str:
    return Path(os.path.relpath(path, start)).as_posix()


def _references(folders: Sequence[Path], start: Path) -> list[str]:
    files = {path for folder in folders for path in folder.glob("retrain*.safetensors")}
    models = {path.parent for folder in folders for path in folder.glob("retrain*/config.json")}
    return sorted(_relative(path, start) for path in files | models)


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
