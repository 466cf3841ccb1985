"""Which code renders: the same code makes the same bytes of a report in every format."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import poison_audit

_DRAWING = ("jinja2", "matplotlib")


@cache
def renderer() -> str:
    """Return the SHA-256 of this package's source and templates, and of what they draw with."""
    root = Path(poison_audit.__file__).parent
    digest = hashlib.sha256()
    found = {
        Path(at, name).relative_to(root).as_posix(): Path(at, name)
        for at, _, names in os.walk(root, followlinks=True)
        for name in names
        if name.endswith((".py", ".j2", ".css"))
    }
    for name, path in sorted(found.items()):
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    for package in _DRAWING:
        try:
            told = version(package)
        except PackageNotFoundError:
            told = "none"
        digest.update(f"{package}=={told}\n".encode())
    return digest.hexdigest()
