"""SIGTERM and SIGHUP: what a job's runner and a closed terminal send. They end as Ctrl-C does.

Else a process dies at once: children and half-written files stay. A signal that whoever started it
had switched off (`nohup`) stays off, and one more of the same ends the process on the spot.
"""

from __future__ import annotations

import signal
from types import FrameType

NAMES = ("SIGTERM", "SIGHUP")


def end_tidily() -> None:
    """Let this process be interrupted by these signals; call it in the main thread."""
    for name in NAMES:
        number = getattr(signal, name, None)  # no system has all of them
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _interrupt)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    raise KeyboardInterrupt
