"""What `render`, `decide`, `diff` and `verify` do with reports that exist already. No torch."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from poison_audit.atomic import from_json, to_json, write_atomically
from poison_audit.commands.policy import read_policy, read_tolerances
from poison_audit.commands.rendering import on_stdout, print_whole, show, write_reports
from poison_audit.errors import InputError, Problem
from poison_audit.records import AuditRecord
from poison_audit.reports.formats import FORMATS
from poison_audit.reports.formats.difference import render_difference
from poison_audit.verdict.compare import comparability, compare
from poison_audit.verdict.evidence import wrong_evidence
from poison_audit.verdict.forms import wrong_forms
from poison_audit.verdict.redecide import redecide
from poison_audit.verdict.verify import summary, verify, verify_exit_code


def read_report(path: Path) -> tuple[AuditRecord, str]:
    """Read a report.json, or that of a run directory; return the record and the text's SHA-256.

    Raises:
        InputError: there is none, it is not one, or what it holds has not the form that this tool
            gives it: whatever is read here can be judged, compared and rendered in every format.
    """
    file = path / FORMATS["json"].file if path.is_dir() else path
    try:
        raw = file.read_bytes()
        text = raw.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Problem(f"cannot be read ({error})", str(file))) from error
    record = from_json(AuditRecord, text, where=str(file))
    if problems := [*wrong_evidence(record), *wrong_forms(record)]:
        raise InputError([replace(each, where=f"{file}: {each.where}") for each in problems[:20]])
    return record, hashlib.sha256(raw).hexdigest()


def render(path: Path, *, formats: Sequence[str], output: Path | None) -> int:
    """Render a report again; return the exit code it holds.

    Args:
        path: report.json, or a run directory.
        formats: names of `FORMATS`; none: the terminal's table.
        output: one format's file, or the folder of several; None: one format goes to stdout.
    """
    record, _ = read_report(path)
    if not formats:
        if output is not None:
            raise InputError(Problem("says where, but not what", "-o", "Add --format"))
        show(record)
    elif output is None:
        if len(formats) > 1:
            what = f"are {len(formats)} formats, and stdout takes one"
            raise InputError(Problem(what, "--format", "Give a folder by -o"))
        print_whole(FORMATS[formats[0]].render(record))
    elif len(formats) == 1 and not output.is_dir():
        write_atomically(output, FORMATS[formats[0]].render(record))
    else:
        for name in formats:
            write_atomically(output / FORMATS[name].file, FORMATS[name].render(record))
    return record.verdict.exit_code


def decide(path: Path, given: Mapping[str, Any]) -> int:
    """Decide a report again, under another policy; return the new exit code."""
    earlier, digest = read_report(path)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    policy = read_policy(
        given["policy"],
        earlier,
        gate=given["gate"],
        alpha=given["alpha"],
        tolerances=read_tolerances(given["tolerance"]),
        exit_zero=given["exit_zero"],
        today=today,
    )
    record = redecide(earlier, policy)
    environment = {**record.environment, "decided_again": today, "decided_from": digest}
    record = replace(record, environment=environment, comparability=comparability(record))
    record = from_json(AuditRecord, to_json(record))
    out: Path | None = given["output"]
    if out is not None:
        if (out / FORMATS["json"].file).exists():
            what = "holds a report already, and an earlier decision is never overwritten"
            raise InputError(Problem(what, str(out), "Choose another -o"))
        write_reports(record, out, formats=given["formats"])
    show(record)
    return record.verdict.exit_code


def diff(before: Path, after: Path) -> int:
    """Show what changed between two audits; return 0 no worse, 1 worse, 3 no longer measured."""
    comparison = compare(read_report(before)[0], read_report(after)[0])
    with on_stdout() as console:
        render_difference(comparison, console)
    return comparison.exit_code


def check(path: Path, *, root: Path | None, look_at_files: bool) -> int:
    """Verify a report; return 0 all agrees, 1 something differs, 3 something was not found."""
    record, _ = read_report(path)
    folder = path if path.is_dir() else path.parent
    checks = verify(record, root=root, folder=folder, look_at_files=look_at_files)
    print_whole(summary(checks))
    return verify_exit_code(checks)
