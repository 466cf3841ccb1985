"""Run directories: which audit one belongs to, and which one to go on in."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import IO

import torch

from poison_audit.atomic import digest_of, remove_partials, write_atomically
from poison_audit.errors import InputError, Problem
from poison_audit.poisons.readings import POISONS
from poison_audit.records import Json, Plan, Recipe
from poison_audit.training.sharding import processes

MEASURING = (
    "case/*", "checks/*", "engine/*", "hypotheses/*", "methods/*", "models/*", "poisons/*",
    "statistics/estimates.py", "training/*", "records.py",
)  # fmt: skip
"""Of this package, what decides a measurement: any other default in it is another measurement."""
NOT_MEASURING = (
    "*/reading.py", "*/readings.py", "*/plant.py", "*/plant_*.py", "engine/caveats.py",
    "engine/cluster.py", "engine/exhibits.py", "engine/forecast.py", "engine/plan.py",
    "engine/runs.py",
)  # fmt: skip
"""What lies among it and does not: it judges, words, plants, or chooses what is measured."""

SUBJECT = ("model_sha256", "arch", "normalize", "train_sha256", "forget_sha256", "test_sha256")
"""Of what is known of a subject, what decides a measurement."""


def fingerprint(
    plan: Plan, recipe: Recipe, subject: Mapping[str, Json], device: str, factory: str | None
) -> str:
    """Return the SHA-256 of everything that decides the measurements of an audit.

    Policy, gate, candidates on trial, methods and budgets are left out: they choose among
    measurements, and do not change one. References are not: probes compare with them.
    `device` is its kind, and what its training steps multiply in. `factory` is the digest of the
    user's own code (`models.factory.user_code`), None where the network is none of theirs.
    """
    told = {
        "version": version("poison-audit"),
        "code": code_digest(),
        "factory": factory,
        "torch": torch.__version__,
        "device": device,
        "processes": processes(),
        "seed": plan.seed,
        "found": (plan.found, plan.found_seed),
        "halved": plan.tune > 0,
        "probes": [asdict(step) for step in plan.probes],
        "recipe": asdict(recipe),
        "subject": {key: subject[key] for key in SUBJECT},
        "evidence": {
            **{
                file.name: {k: v for k, v in (subject.get(file.name) or {}).items() if k != "path"}
                for poison in POISONS.values()
                for file in poison.files
            },
            "reading": subject["reading"],
            "references": sorted(
                made["sha256"]
                for made in subject["candidates"].values()
                if made["kind"] == "reference"
            ),
        },
    }
    return digest_of(told)


def code_digest(*also: str, package: Path | None = None) -> str:
    """Return the SHA-256 of this package's source, as far as it measures.

    Args:
        also: patterns of further files, relative to the package.
        package: its folder; by default where this file lies.
    """
    package = package or Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        if _like(name, also) or (_like(name, MEASURING) and not _like(name, NOT_MEASURING)):
            digest.update(f"{name}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _like(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


@contextmanager
def open_run(out: Path | None, key: str, *, started: str) -> Iterator[Path]:
    """Give the run directory: the one named, an unfinished one of the same audit, or a new one.

    It is locked while the context lasts; the system lifts the lock of a process that is killed,
    and what such a process had half written is removed.

    Args:
        out: `--out`, or None.
        key: the audit's `fingerprint`.
        started: UTC time for the name of a new directory.

    Raises:
        InputError: `out` holds another audit, is used by another process, or is no folder that can
            be written.
    """
    if out is None:
        out = next(_unfinished(key), Path(f"audit-{started}"))
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = _lock(out)
    except OSError as error:
        raise _unwritable(out, error) from error
    if lock is None:
        holder = (out / "lock").read_text(encoding="ascii", errors="replace").strip()[:20]
        what = f"is in use by another audit (process {holder or 'unknown'})"
        raise InputError(Problem(what, str(out), "Wait for it, or choose another --out"))
    with lock:
        for folder in (out, out / "cells", out / "models", out / "rehearsal" / "cells"):
            remove_partials(folder)
        _mark(out, key)
        yield out


def _lock(out: Path) -> IO[str] | None:
    """Return the open, locked file of a run directory; None if another process holds it."""
    file = (out / "lock").open("a+", encoding="ascii")
    try:
        import fcntl
    except ImportError:  # no such lock on this system: whoever runs two audits takes two folders
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return None
        raise
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def _unwritable(out: Path, error: OSError) -> InputError:
    what = f"cannot be written ({error.strerror})"
    return InputError(Problem(what, str(out), "Choose another --out"))


def _mark(out: Path, key: str) -> None:
    marker = out / "run.json"
    try:
        if marker.exists() and marker.read_text("utf-8", errors="replace") != _marked(key):
            what = "holds an audit of another model, data set or plan, or of another version"
            raise InputError(Problem(what, str(out), "Choose another --out"))
        write_atomically(marker, _marked(key))
    except OSError as error:
        raise _unwritable(out, error) from error


def _marked(key: str) -> str:
    return json.dumps({"key": key}) + "\n"


def _unfinished(key: str) -> Iterator[Path]:
    for marker in sorted(Path().glob("audit-*/run.json"), reverse=True):
        same = marker.read_text(encoding="utf-8", errors="replace") == _marked(key)
        if same and not (marker.parent / "report.json").exists() and _free(marker.parent):
            yield marker.parent


def _free(out: Path) -> bool:
    try:
        lock = _lock(out)
    except OSError:
        return False
    if lock is None:
        return False
    lock.close()
    return True
