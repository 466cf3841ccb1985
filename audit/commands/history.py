"""`history`: the reports of one model over time. No torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from poison_audit.atomic import write_atomically
from poison_audit.commands.own_settings import Looking
from poison_audit.commands.rendering import on_stdout
from poison_audit.commands.reviewing import read_report
from poison_audit.errors import InputError, Problem
from poison_audit.reports.formats import FORMATS
from poison_audit.reports.formats.history import render_history_text
from poison_audit.reports.view.history import history
from poison_audit.verdict.record import AuditRecord

MOST = 1000
"""Reports that are read."""


def show_history(settings: Looking) -> int:
    """Show every report below a folder in its order; return 0."""
    folder, output = settings.folder, settings.output
    files = sorted(_reports(folder))
    if not files:
        what, fix = f"holds no {FORMATS['json'].file}", "Give the folder of several run directories"
        raise InputError(Problem(what, str(folder), fix))
    if len(files) > MOST:
        what = f"holds {len(files):,} reports, and at most {MOST:,} are read"
        raise InputError(Problem(what, str(folder), "Give a folder within it"))
    read, unread = list[tuple[str, AuditRecord]](), list[tuple[str, str]]()
    for file in files:
        name = file.relative_to(folder).as_posix()
        try:
            read.append((name, read_report(file)[0]))
        except InputError as error:
            unread.append((name, f"it cannot be read as a report ({error.problems[0].what:.200})"))
    seen = history(read, unread)
    if output is not None:
        from poison_audit.reports.page.history import render_history  # matplotlib takes long

        write_atomically(output, render_history(seen, folder=str(folder)))
    with on_stdout() as console:
        render_history_text(seen, console)
    return 0


def _reports(folder: Path) -> Iterator[Path]:
    """Yield the reports below a folder; no link is followed."""
    if not folder.is_dir():
        raise InputError(Problem("is no folder", str(folder), "Give one that holds reports"))
    for root, folders, files in os.walk(folder):
        folders.sort()
        if FORMATS["json"].file in files:
            yield Path(root) / FORMATS["json"].file
