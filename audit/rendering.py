"""From a record to what people and machines read: terminal, report.json, report.html. No torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rich.console import Console

from audit.errors import InputError, Problem
from audit.files import write_atomically
from audit.records import AuditRecord, from_json, to_json
from reports.html import render_html
from reports.terminal import render_terminal


def write_reports(record: AuditRecord, out: Path) -> None:
    """Write report.html, then report.json: where the JSON is, the audit is complete."""
    write_atomically(out / "report.html", render_html(record))
    write_atomically(out / "report.json", to_json(record))


class _Stdout(Console):
    def on_broken_pipe(self) -> None:
        """Leave the exit code to the verdict: rich would exit with 1, which means poison."""
        raise BrokenPipeError


def show(record: AuditRecord) -> None:
    """Print the table and the verdict on stdout; a closed pipe changes no exit code."""
    try:
        render_terminal(record, console=_Stdout(highlight=False))
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def render_again(path: Path, html: Path | None) -> int:
    """Render a report.json to the terminal, or to a page; return the exit code it holds."""
    try:
        record = from_json(AuditRecord, path.read_text(encoding="utf-8"), where=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Problem(f"cannot be read ({error})", str(path))) from error
    if html is None:
        show(record)
    else:
        write_atomically(html, render_html(record))
    return record.verdict.exit_code
