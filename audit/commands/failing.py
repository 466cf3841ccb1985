"""What is said on stderr when a command fails: of its input, the disk, the memory, or the tool."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Sequence

import click

from poison_audit.errors import Problem

_NO_MEMORY = (
    "can't allocate memory", "cannot allocate memory", "not enough memory", "bad_alloc",
    "out of memory", "failed to map segment", "can't start new thread",
)  # fmt: skip
"""How errors without a class of their own say that the memory gave out, in small letters."""


def failed(error: BaseException) -> int:
    """Say that the tool itself failed; return the exit code of that."""
    if of_memory(error):
        _complain_of_memory()
        return 4
    traceback.print_exception(error)
    click.echo("poison-audit itself failed; this says nothing about the model.", err=True)
    return 4


def of_memory(error: BaseException | None) -> bool:
    """Return whether the machine's memory gave out, as Python, torch, or a library's loading says.

    A limit (`ulimit -v`) ends an allocation of torch by RuntimeError, and an import by ImportError.
    """
    while error is not None:
        # By name: this file works without torch.
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return True
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            return True
        kinds = (RuntimeError, ImportError, OSError, SystemError)
        if isinstance(error, kinds) and any(word in str(error).lower() for word in _NO_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


def of_a_name(error: BaseException) -> Problem | None:
    """Return what is wrong with the name of a file that none can have; None: it is something else.

    Names stand in flags, and in JSON, where half of a character and a NUL can be written.
    """
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        return Problem("no file can have this name", error.object)
    if isinstance(error, ValueError) and str(error).startswith("embedded null"):
        return Problem("a file is named whose name holds a NUL, which none can have")
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return Problem("no file's name may be as long", str(error.filename))
    return None


def complain_of_disk(error: OSError) -> None:
    """Say what of the disk gave out."""
    where = f" ({error.filename})" if error.filename else ""
    reason = error.strerror or str(error)
    text = (
        f"poison-audit: {reason}{where}. This says nothing about the model. What is complete is "
        "kept: put it right, and run the same command again."
    )
    click.echo(_printable(text), err=True)


def _complain_of_memory() -> None:
    text = (
        "poison-audit: out of memory, with one sample at a time as well. This says nothing about "
        "the model. What is complete is kept: free some, or try --device cpu, and run the same "
        "command again."
    )
    click.echo(text, err=True)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def complain(problems: Sequence[Problem]) -> None:
    """Say everything that is wrong with what was asked for."""
    many = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
    click.echo(f"poison-audit: {many}; nothing was done.", err=True)
    for problem in problems:
        click.echo(f"  - {_printable(str(problem))}", err=True)
