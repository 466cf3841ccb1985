"""stdout and stderr that may be closed, full or a pipe nobody reads: no exit code changes by it.

What an audit comes to is its exit code and its report. Where the terminal cannot be written to,
both stand all the same. So a stream that is closed is replaced by one to nowhere, and one that
fails goes nowhere from then on.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TextIO


class Forgiving(io.TextIOWrapper):
    """A text stream that goes nowhere once it cannot be written to."""

    def write(self, text: str, /) -> int:
        """Write text, or drop it."""
        try:
            return super().write(text)
        except (OSError, ValueError):
            send_nowhere(self)
            return len(text)

    def flush(self) -> None:
        """Write what is held back, or drop it."""
        try:
            super().flush()
        except (OSError, ValueError):
            send_nowhere(self)


def forgive() -> None:
    """Make stdout and stderr of this process forgiving; call it before anything is opened."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # Else the next file that is opened would be taken for the stream.
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
    sys.stdout = _forgiving(sys.stdout, 1)
    sys.stderr = _forgiving(sys.stderr, 2)


def _forgiving(stream: TextIO | None, number: int) -> TextIO:
    if stream is None:
        return Forgiving(open(number, "wb", closefd=False), encoding="utf-8")
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    encoding, errors, lines = stream.encoding, stream.errors or "strict", stream.line_buffering
    return Forgiving(
        stream.detach(), encoding=encoding, errors=errors, line_buffering=lines or number == 2
    )


def send_nowhere(stream: TextIO) -> None:
    """Let a stream go nowhere: Python would complain again when it flushes at exit."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
