"""From a record to what people and machines read: terminal, and the files of a report. No torch."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from poison_audit.atomic import read_plainly, write_atomically
from poison_audit.commands.streams import send_nowhere
from poison_audit.errors import InputError, Problem, Problems
from poison_audit.reports.formats import FORMATS, envelope
from poison_audit.reports.formats.terminal import render_terminal
from poison_audit.reports.view.words import duration, memory
from poison_audit.verdict.record import AuditRecord

ALWAYS = ("html", "json")
"""What every audit writes; report.json last: where it is, the audit is complete."""


def write_reports(
    record: AuditRecord, out: Path, *, formats: Sequence[str] = ()
) -> tuple[str, ...]:
    """Write a report in the formats asked for and in `ALWAYS`; return the names of all of them."""
    names = (*(name for name in formats if name not in ALWAYS), *ALWAYS)
    for name in names:
        write_atomically(out / FORMATS[name].file, FORMATS[name].render(record))
    return names


def refuse_foreign(out: Path) -> None:
    """Refuse a folder in which somebody else's files are named as reports are, by InputError."""
    problems = Problems()
    for each in FORMATS.values():
        file = out / each.file
        if os.path.lexists(file) and not _is_report(file):
            what = "is no report of poison-audit, and would be replaced"
            problems.append(Problem(what, str(file), "Move it, or choose another folder"))
    problems.raise_any()


def _is_report(file: Path) -> bool:
    # Every format names the tool that wrote it.
    try:
        return b"poison-audit" in read_plainly(file)
    except OSError:
        return False


def clear_reports(out: Path) -> None:
    """Remove an earlier report: what is absent is seen, what is stale is not."""
    for each in FORMATS.values():
        (out / each.file).unlink(missing_ok=True)
    if _is_attested(out / envelope.FILE):
        (out / envelope.FILE).unlink(missing_ok=True)


def _is_attested(file: Path) -> bool:
    try:
        return b"poison-audit" in envelope.read_envelope(file)[1]
    except InputError:
        return False


class _Stdout(Console):
    def on_broken_pipe(self) -> None:
        """Leave the exit code to the verdict: rich would exit with 1, which means poison."""
        raise BrokenPipeError


@contextmanager
def on_stdout() -> Iterator[Console]:
    """Give a console on stdout; a closed pipe changes no exit code, nor does a full disk."""
    try:
        yield _Stdout(highlight=False)
        sys.stdout.flush()
    except OSError:
        send_nowhere(sys.stdout)


def show(record: AuditRecord) -> None:
    """Print the table and the verdict on stdout."""
    with on_stdout() as console:
        render_terminal(record, console=console)


def show_json(record: AuditRecord) -> None:
    """Print the verdict on stdout as one JSON object."""
    verdict = record.verdict
    told = {
        "outcome": verdict.outcome.value,
        "exit_code": verdict.exit_code,
        "gate": verdict.gate,
        "sentence": verdict.sentence,
        "next_step": verdict.next_step,
        "candidates": {c.candidate: c.outcome.value for c in verdict.candidates},
        "model_sha256": record.subject.get("model_sha256"),
        "report_digest": record.seal.digest if record.seal else None,
    }
    with on_stdout() as console:
        console.print(Text(json.dumps(told, indent=1)), soft_wrap=True)


def show_forecast(
    parts: Sequence[tuple[str, float]], *, peak: int, left_out: Sequence[str] = ()
) -> None:
    """Print on stdout what an audit will take: seconds by part, and bytes of memory at most."""
    table = Table(box=None, show_header=False, padding=(0, 2), pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    for name, seconds in (*parts, ("in all, about", sum(seconds for _, seconds in parts))):
        table.add_row(Text(name), Text(duration(seconds)))
    table.add_row(Text("memory at its peak, about"), Text(memory(peak)))
    with on_stdout() as console:
        console.print(table)
        for part in left_out:
            console.print(Text(f"Not looked at: {part}."), soft_wrap=True)
        text = "exit 3: A dry run. Nothing was audited, and nothing was written."
        console.print(Text(text), soft_wrap=True)


def print_whole(text: str) -> None:
    """Write a file's text to stdout, as UTF-8 whatever the terminal's encoding is.

    Raises:
        OSError: there is no room for all of it.
    """
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8"))
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # who reads it has read enough
        send_nowhere(sys.stdout)
    except OSError:
        send_nowhere(sys.stdout)
        raise
