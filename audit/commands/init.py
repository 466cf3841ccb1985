"""`init`: an audit.toml from what a checkpoint and its folder show, and a job for CI."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from poison_audit.atomic import write_atomically
from poison_audit.commands.own_settings import CI, Drafting
from poison_audit.commands.settings import TABLES
from poison_audit.errors import InputError, Problem, Problems
from poison_audit.poisons.readings import POISONS

_TABLES, _TEXTS = (".npz", ".csv", ".parquet", "/"), (".csv", ".parquet")
_ROWS = (".tsv", ".jsonl", ".csv.gz", ".tsv.gz", ".jsonl.gz")
"""Suffixes of tables of both kinds, besides."""
_CALLED = {"train": ("train", "training"), "test": ("test", "val", "validation", "valid", "dev")}
_WHOLE = ("cifar-10-batches-py", "cifar-100-python", "data/cifar-10-batches-py", "data", "dataset")
"""Folders that may hold every part of a data set."""
_NOTES = {
    "data": "paths are relative to this file",
    "training": "budgets are shares of this",
    "reference": "models that never saw the poison",
}


def init(settings: Drafting) -> int:
    """Write what is asked for, and say so; return the exit code.

    Raises:
        InputError: nothing is asked for, the checkpoint cannot be read, or a file is there already
            and `force` is off.
    """
    if settings.model is None and settings.ci is None:
        raise InputError(Problem("nothing to write", "init", "Give MODEL, or --ci github"))
    written: dict[Path, tuple[str, str]] = {}
    if settings.model is not None:
        path, text, told = _config(settings.model, settings)
        written[path] = text, told
    if settings.ci is not None:
        alone = settings.output if settings.model is None else None
        template, place = CI[settings.ci]
        job = files("poison_audit.templates") / "ci" / template
        path = alone or Path(place)
        written[path] = job.read_text("utf-8"), "written. Read its head: it names what it expects"
    there = [path for path in written if path.exists() and not settings.force]
    fix = "Overwrite it by --force"
    Problems(Problem("is there already", str(path), fix) for path in there).raise_any()
    for path, (text, told) in written.items():
        write_atomically(path, text)
        print(f"{path}: {told}.")
    return 0


def _config(model: Path, settings: Drafting) -> tuple[Path, str, str]:
    """Return where an audit.toml goes, its text, and what is to be said of it."""
    from poison_audit.models.checkpoint import peek  # torch: a job alone needs none

    seen = peek(
        model, allow_pickle=settings.allow_pickle, state_key=settings.state_key, base=settings.base
    )
    seen |= {"state_key": settings.state_key, "base": settings.base}
    output = settings.output
    folder = model if model.is_dir() else model.parent
    path = output if output is not None else folder / "audit.toml"
    # A language model is a folder of its own, and what it was trained on lies beside that.
    beside = (folder, folder.parent) if _of_texts(seen) and model.is_dir() else (folder,)
    text, unknown = draft(seen, beside, start=path.parent)
    if not unknown:
        return path, text, "written, nothing left to fill in"
    return path, text, f"written. To fill in (marked with ?): {', '.join(unknown)}"


def draft(seen: dict[str, Any], folders: Sequence[Path], *, start: Path) -> tuple[str, list[str]]:
    """Return the text of an audit.toml, and the keys that could not be identified.

    Args:
        seen: what `peek` says of the checkpoint.
        folders: where tables and keys are looked for, by their usual names; the first wins.
        start: the folder of the audit.toml, which its paths are relative to.
    """
    known, kinds = _identified(seen, folders, start), _kinds(seen)
    unknown: list[str] = []
    tables: list[str] = []
    for name, keys in TABLES.items():
        lines = [f"[{name}]" + (f"  # {_NOTES[name]}" if name in _NOTES else "")]
        for key, declared in keys.items():
            value, hint = known.get((name, key), (None, ""))
            if declared.of not in kinds or (value is None and not declared.asked):
                continue
            if value is None:
                unknown.append(key)
            said = f"# {key} = ?" if value is None else f"{key} = {json.dumps(value)}"
            default = "" if name in ("training", "policy") else declared.told
            told = hint or declared.help + (f" Default: {default}." if default else "")
            lines.append(f"{said}  # {told}")
        if len(lines) > 1:
            tables.append("\n".join(lines) + "\n")
    return "\n".join(tables), unknown


def _identified(
    seen: dict[str, Any], folders: Sequence[Path], start: Path
) -> dict[tuple[str, str], tuple[Any, str]]:
    """Return what is known, by table and key, each with a hint of its own where it has one."""
    texts = _of_texts(seen)

    def found(*names: str) -> str | None:
        there = (folder / name for folder in folders for name in names)
        return next((_relative(path, start) for path in there if path.exists()), None)

    def samples(name: str) -> str | None:
        kinds = (*(_TEXTS if texts else _TABLES), *_ROWS)
        called = [f"{each}{kind}" for each in _CALLED.get(name, (name,)) for kind in kinds]
        beside = found(*called, *(f"data/{each}" for each in called))
        return beside if beside or name not in _CALLED or texts else _whole(folders, start)

    known: dict[tuple[str, str], tuple[Any, str]] = {
        ("data", "train"): (samples("train"), ""),
        ("data", "test"): (samples("test"), ""),
        ("reference", "paths"): (_references(folders, start) or None, ""),
        ("model", "arch"): _arch(seen),
        ("model", "normalize"): (seen.get("normalize"), ""),
        ("model", "max_tokens"): (seen.get("max_tokens"), ""),
        ("model", "state_key"): (seen.get("state_key"), ""),
        ("model", "base"): (_relative(base, start) if (base := seen.get("base")) else None, ""),
    }
    for poison in POISONS.values():
        for file in poison.files:
            look = found if Path(file.file).suffix else samples
            known[poison.table, file.name] = (look(file.file), "")
    return known


def _whole(folders: Sequence[Path], start: Path) -> str | None:
    """Return a folder that holds a data set, of which each table is a part."""
    from poison_audit.case.listings import hub, pickles  # torch: a job alone needs none

    there = [folder / name for folder in folders for name in _WHOLE if (folder / name).is_dir()]
    kept = [p for p in there if pickles.is_cifar(p) or hub.is_saved(p) or hub.is_hub(p)]
    return _relative(kept[0], start) if kept else None


def _kinds(seen: dict[str, Any]) -> set[str]:
    """Return what fields may say something of, for this checkpoint."""
    if not _of_texts(seen):
        return {"", "pictures"}
    return {"", "texts", "causal"} if seen["classes"] is None else {"", "texts"}


def _arch(seen: dict[str, Any]) -> tuple[str | None, str]:
    arches = seen["arch"]
    if _of_texts(seen):
        return arches[0], "from config.json"
    if len(arches) == 1:
        return arches[0], "identified from names and shapes"
    return None, f"fits: {', '.join(arches) or 'none that is known; see --factory'}"


def _of_texts(seen: dict[str, Any]) -> bool:
    return "max_tokens" in seen


def _relative(path: Path, start: Path) -> str:
    return Path(os.path.relpath(path, start)).as_posix()


def _references(folders: Sequence[Path], start: Path) -> list[str]:
    found = {path for folder in folders for path in folder.glob("retrain*.safetensors")}
    models = {path.parent for folder in folders for path in folder.glob("retrain*/config.json")}
    return sorted(_relative(path, start) for path in found | models)
