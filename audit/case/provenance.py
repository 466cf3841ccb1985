"""Where an audit came from: the SHA-256 of every file that it read, and the state of the work."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from poison_audit.case.shown import InputFile
from poison_audit.errors import InputError, Problem
from poison_audit.records import Json

_GIT = ("git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
"""A repository may name programs that git runs: none of them is."""
_WAIT = 10.0
"""Seconds after which git is not waited for."""


def digest_of(path: Path, *, folder: bool = False) -> tuple[str, int]:
    """Return the SHA-256 and the bytes of a file, or of all files of a folder.

    A folder's digest is that of the sorted lines `sha256  relative/path` of its files.

    Raises:
        OSError: it cannot be read.
    """
    if not folder:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            return hashlib.file_digest(stream, "sha256").hexdigest(), size
    lines, size = [], 0
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        own, length = digest_of(file)
        lines.append(f"{own}  {file.relative_to(path).as_posix()}\n")
        size += length
    return hashlib.sha256("".join(lines).encode()).hexdigest(), size


def input_files(given: Iterable[tuple[str, Path]]) -> tuple[InputFile, ...]:
    """Return the files of (role, path), in this order; one that is given twice is hashed once.

    Raises:
        InputError: one cannot be read any more.
    """
    known: dict[Path, tuple[str, int]] = {}
    found = []
    for role, path in given:
        folder = path.is_dir()
        try:
            if path not in known:
                known[path] = digest_of(path, folder=folder)
        except OSError as error:
            what = f"cannot be read any more ({error.strerror})"
            raise InputError(Problem(what, str(path))) from error
        digest, size = known[path]
        found.append(
            InputFile(role=role, path=path.as_posix(), sha256=digest, size=size, folder=folder)
        )
    return tuple(found)


def git_state(folder: Path) -> dict[str, Json]:
    """Return `commit`, `branch` (None: none is checked out) and `dirty`; or why it is `missing`."""
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if commit is None:
        inside = _git(folder, "rev-parse", "--is-inside-work-tree")
        why = "no commit yet" if inside == "true" else "the working folder is in no git repository"
        return {"missing": why}
    status = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {
        "commit": commit,
        "branch": _git(folder, "symbolic-ref", "--quiet", "--short", "HEAD") or None,
        "dirty": None if status is None else bool(status),
    }


def git_top(folder: Path) -> Path | None:
    """Return the top of the working tree that a folder lies in."""
    top = _git(folder, "rev-parse", "--show-toplevel")
    return Path(top) if top else None


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git prints; None where it fails, is absent or takes too long."""
    try:
        done = subprocess.run(
            [*_GIT, *arguments],
            cwd=folder,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_WAIT,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else None
