"""The progress of a training run on stderr: a bar in a terminal, plain lines everywhere else."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from poison_audit.training.ledger import Ledger

LINES = 10
"""Plain lines of a whole run."""


@contextmanager
def stepping(
    steps: int, ledger: Ledger, *, done: int, epochs: float, quiet: bool
) -> Iterator[Callable[[int], None]]:
    """Yield what is to be called with the number of steps done.

    Args:
        steps: of the whole run.
        ledger: where the losses are found.
        done: steps done already.
        epochs: what `steps` come to.
        quiet: whether nothing is shown.
    """
    # CI logs may claim to be terminals (FORCE_COLOR): a live line would fill them.
    live = sys.stderr.isatty() and not os.environ.get("CI")
    console = Console(stderr=True, quiet=quiet, highlight=False, force_interactive=live)
    stride = math.ceil(steps / LINES)
    shown = time.monotonic()

    def told(step: int) -> str:
        # Reading a loss makes the device wait, so it is done seldom.
        return f"epoch {step / steps * epochs:.1f} of {epochs:g}, loss {ledger.losses[-1]:.4f}"

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=quiet or not live,
        transient=True,
    ) as bar:
        task = bar.add_task("training", total=steps, completed=done)

        def show(step: int) -> None:
            nonlocal shown
            if quiet:
                return
            if live and time.monotonic() - shown > 0.5:
                shown = time.monotonic()
                bar.update(task, completed=step, description=told(step))
            elif not live and step % stride == 0:
                console.print(told(step), soft_wrap=True, markup=False)

        yield show
