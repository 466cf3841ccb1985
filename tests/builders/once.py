"""What takes long to make and several files of tests begin with, made once a run."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Callable
from pathlib import Path


def made(folder: Path, make: Callable[[Path], object]) -> Path:
    """Return the folder; whoever comes first fills it, in whatever process, and others wait.

    Args:
        folder: in a folder that all processes of a run share.
        make: writes what belongs there into the empty folder that it is given.
    """
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            partial = Path(tempfile.mkdtemp(dir=folder.parent))
            make(partial)
            partial.rename(folder)
    return folder
