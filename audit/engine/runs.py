"""Run directories: which audit one belongs to, and which one to go on in."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import IO

import torch

from poison_audit.atomic import (
    PARTIAL,
    digest_of,
    read_plainly,
    remove_partials,
    write_atomically,
)
from poison_audit.errors import InputError, Problem, Problems, some
from poison_audit.poisons.readings import POISONS
from poison_audit.records import Json, Plan, Recipe
from poison_audit.training.sharding import processes

MEASURING = (
    "case/*", "checks/*", "engine/*", "hypotheses/*", "methods/*", "models/*", "poisons/*",
    "statistics/estimates.py", "statistics/laws.py", "training/*", "records.py",
)  # fmt: skip
"""Of this package, what decides a measurement: any other default in it is another measurement."""
NOT_MEASURING = (
    "*/reading.py", "*/readings.py", "checks/own.py", "*/plant.py", "*/plant_*.py",
    "engine/caveats.py",
    "engine/cluster.py", "engine/exhibits.py", "engine/forecast.py", "engine/plan.py",
    "engine/runs.py",
)  # fmt: skip
"""What lies among it and does not: it judges, words, plants, or chooses what is measured."""

FILES = ("lock", "run.json")
FOLDERS = ("cells", "models", "rehearsal", "rehearsal/cells")
"""What an audit puts into its run directory beside the reports."""
_HOLDER = re.compile(r"(\d+\n)?")
"""What a lock holds: nobody's number, or that of the process that has or had it."""
MOST = 10
"""Problems of a folder that are told."""

SUBJECT = ("model_sha256", "arch", "normalize", "train_sha256", "forget_sha256", "test_sha256")
"""Of what is known of a subject, what decides a measurement."""
ADAPTED = ("config_sha256", "base_sha256")
"""The same of an adapter."""


def fingerprint(
    plan: Plan, recipe: Recipe, subject: Mapping[str, Json], device: str, factory: str | None
) -> str:
    """Return the SHA-256 of everything that decides the measurements of an audit.

    Without the user's own code it names an audit: corrected code measures anew in the same place.

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
        "trainable": plan.trainable,
        "probes": [asdict(step) for step in (*plan.probes, *plan.own)],
        "recipe": asdict(recipe),
        "subject": {key: subject[key] for key in SUBJECT},
        "adapter": {k: v for k, v in (subject.get("adapter") or {}).items() if k in ADAPTED},
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
def open_run(
    out: Path | None,
    key: str,
    *,
    started: str,
    code: str | None = None,
    tell: Callable[[str], object] = lambda text: None,
) -> Iterator[Path]:
    """Give the run directory: the one named, an unfinished one of the same audit, or a new one.

    It is locked while the context lasts; the system lifts the lock of a process that is killed,
    and what such a process had half written is removed. No link within is followed: a directory
    that holds one where this tool writes is refused, and so is a folder that is something else.

    Args:
        out: `--out`, or None.
        key: the audit's `fingerprint`, without the user's own code.
        started: UTC time for the name of a new directory.
        code: digest of the user's own code. Another than last time measures anew in the same place.
        tell: is told so.

    Raises:
        InputError: `out` holds another audit or something else, is used by another process, or is
            no folder that can be written.
    """
    if out is None:
        out = next(_unfinished(key), None) or unused(Path(f"audit-{started}"))
    try:
        out.mkdir(parents=True, exist_ok=True)
        Problems(_not_ours(out)).raise_any()
        lock = _lock(out)
    except OSError as error:
        raise _unwritable(out, error) from error
    if lock is None:
        holder = read_plainly(out / "lock", most=1 << 20).decode("ascii", "replace").strip()[:20]
        what = f"is in use by another audit (process {holder or 'unknown'})"
        raise InputError(Problem(what, str(out), "Wait for it, or choose another --out"))
    with lock:
        Problems(_not_ours(out)).raise_any()  # nobody else's audit changes it from here on
        for folder in (out, *(out / name for name in FOLDERS)):
            remove_partials(folder)
        _mark(out, key, code, tell)
        yield out


def _not_ours(out: Path) -> list[Problem]:
    """Return why a folder cannot be written to: it holds links, or is no run directory."""
    fix = "Choose another --out, a new or an empty folder"
    there = {entry.name: entry for entry in os.scandir(out)}
    own = [there[name] for name in (*FILES, *FOLDERS) if name in there]
    below = [entry for each in own if each.is_dir(follow_symlinks=False) for entry in _within(each)]
    wrong = []
    for entry in (*own, *below):
        folder = entry.is_dir(follow_symlinks=False)
        plain = folder or entry.is_file(follow_symlinks=False)
        if entry in own and plain and folder != (entry.name in FOLDERS):
            plain = False
        if not plain:
            link = "a link, and none is followed" if entry.is_symlink() else "not what is put there"
            wrong.append(Problem(f"is {link}", entry.path, fix))
    if wrong or "run.json" in there:
        return wrong[:MOST]
    # CI restores the cells alone; a process may have been killed before it marked its directory.
    strange = sorted(
        name for name in there if name not in ("lock", "cells") and not name.endswith(PARTIAL)
    )
    cells = (entry for entry in below if entry.path.startswith(str(out / "cells")))
    strange += sorted(f"cells/{e.name}" for e in cells if not e.name.endswith((".json", PARTIAL)))
    if not strange:
        return []
    what = f"is no run directory, and not empty: it holds {some(strange, 3)}"
    return [Problem(what, str(out), fix)]


def _within(folder: os.DirEntry[str]) -> Iterator[os.DirEntry[str]]:
    for entry in os.scandir(folder):
        yield entry
        if entry.is_dir(follow_symlinks=False):
            yield from _within(entry)


def _lock(out: Path) -> IO[str] | None:
    """Return the open, locked file of a run directory; None if another process holds it.

    InputError: what stands in its place is not one.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    file = os.fdopen(os.open(out / "lock", flags, 0o666), "r+", encoding="ascii", errors="replace")
    told = os.fstat(file.fileno())
    # A file with a second name is somebody's under the other one.
    if not stat.S_ISREG(told.st_mode) or told.st_nlink > 1 or not _HOLDER.fullmatch(file.read(99)):
        file.close()
        what = "is not the lock of a run directory, and would be overwritten"
        raise InputError(Problem(what, str(out / "lock"), "Choose another --out"))
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
    file.seek(0)
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def _unwritable(out: Path, error: OSError) -> InputError:
    what = f"cannot be written ({error.strerror})"
    return InputError(Problem(what, str(out), "Choose another --out"))


def _mark(out: Path, key: str, code: str | None, tell: Callable[[str], object]) -> None:
    marker = out / "run.json"
    try:
        before = _marked(marker) if marker.exists() else None
        if before is not None and "key" not in before:
            what = "was not written by poison-audit, and would be overwritten"
            raise InputError(Problem(what, str(marker), "Choose another --out"))
        if before is not None and before["key"] != key:
            what = "holds an audit of another model, data set or plan, or of another version"
            raise InputError(Problem(what, str(out), "Choose another --out"))
        if before is not None and before.get("code") != code:
            tell(f"The code of --factory is another than before: {out} is measured anew by it.")
        write_atomically(marker, json.dumps({"key": key, "code": code}, sort_keys=True) + "\n")
    except OSError as error:
        raise _unwritable(out, error) from error


def _marked(marker: Path) -> dict[str, Json]:
    """Return what a run directory is marked with; nothing where that is none of our marks."""
    try:
        told = json.loads(read_plainly(marker, most=1 << 20))
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _unfinished(key: str) -> Iterator[Path]:
    for marker in sorted(Path().glob("audit-*/run.json"), reverse=True):
        same = _marked(marker).get("key") == key
        if same and not os.path.lexists(marker.parent / "report.json") and _free(marker.parent):
            yield marker.parent


def unused(out: Path) -> Path:
    """Return a path at which nothing lies: a clock may have gone back, and audits begin at once."""
    number, named = 2, out
    while os.path.lexists(named):
        named, number = out.with_name(f"{out.name}-{number}"), number + 1
    return named


def _free(out: Path) -> bool:
    try:
        lock = None if _not_ours(out) else _lock(out)
    except (OSError, InputError):
        return False
    if lock is None:
        return False
    lock.close()
    return True
