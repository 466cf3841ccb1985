"""Progress on stderr: a live line in a terminal, plain lines everywhere else."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
import rich.progress
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from poison_audit.engine.run import Progress

LINES = 10
"""Plain lines of a whole training run."""


def is_live() -> bool:
    """Return whether a line that moves can be seen: in a terminal or a notebook, not in CI."""
    # CI logs may claim to be terminals (FORCE_COLOR): a live line would fill them.
    return (sys.stderr.isatty() or Console().is_jupyter) and not os.environ.get("CI")


class Reporter:
    """Tells on stderr what a command is doing."""

    def __init__(
        self, *, quiet: bool = False, call: Callable[[Progress], object] | None = None
    ) -> None:
        self._live, self._call = is_live(), call
        self._console = Console(
            stderr=True, quiet=quiet, highlight=False, force_interactive=self._live
        )

    def say(self, text: str) -> None:
        """Print one line."""
        self._console.print(Text(text), soft_wrap=not self._live)

    def warn(self, text: str) -> None:
        """Print one line, in quiet as well."""
        click.echo(text, err=True)

    @contextmanager
    def stage(self, text: str) -> Iterator[None]:
        """Show that a step without a known length is under way."""
        if not self._live:
            self.say(f"{text} ...")
            yield
            return
        with self._console.status(Text(text)):
            yield

    @contextmanager
    def steps(
        self, total: int, *, done: int, told: Callable[[int], str]
    ) -> Iterator[Callable[[int], None]]:
        """Yield what is to be called with the number of training steps done.

        Args:
            total: of the whole run.
            done: steps done already.
            told: what is said after so many; asked seldom, since it makes the device wait.
        """
        stride, shown = math.ceil(total / LINES), time.monotonic()
        with rich.progress.Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=self._console.quiet or not self._live,
            transient=True,
        ) as bar:
            task = bar.add_task("training", total=total, completed=done)

            def show(step: int) -> None:
                nonlocal shown
                if self._console.quiet:
                    return
                if self._live and time.monotonic() - shown > 0.5:
                    shown = time.monotonic()
                    bar.update(task, completed=step, description=told(step))
                elif not self._live and step % stride == 0:
                    self.say(told(step))

            yield show

    @contextmanager
    def cells(self) -> Iterator[Callable[[Progress], None]]:
        """Show the cells of an audit as they start and end."""
        with rich.progress.Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.1f}/{task.total}"),
            TimeElapsedColumn(),
            TextColumn("about"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self._console,
            disable=not self._live,
            transient=True,
        ) as bar:
            task = bar.add_task("", total=None, visible=False)

            def report(progress: Progress) -> None:
                if self._call is not None:
                    self._call(progress)
                job = progress.job
                name = f"{job.candidate} (seed {job.seed})" if job.seed else job.candidate
                done = progress.done + progress.share
                bar.update(
                    task, description=name, completed=done, total=progress.total, visible=True
                )
                if progress.why:
                    self.warn(f"{name}: what lay in the run directory {progress.why}: redone.")
                if progress.cell is not None:
                    self._console.print(Text(_told(progress, name)))

            yield report


def _told(progress: Progress, name: str) -> str:
    cell = progress.cell
    if cell is None:
        raise ValueError("a finished job has a cell")
    place = f"[{progress.done}/{progress.total}]"
    if progress.resumed:
        return f"{place} {name}: kept from an earlier run"
    if cell.error:
        return f"{place} {name}: {cell.error}"
    further = " more" if cell.cost and cell.cost.reused else ""
    made = f"made in {cell.cost.seconds:.1f} s{further}, " if cell.cost else ""
    return f"{place} {name}: {made}probed in {cell.probe_seconds:.1f} s"
