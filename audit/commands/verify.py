"""`verify`: a report computed again, its files, and what was rendered from it. No torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from poison_audit.atomic import read_plainly
from poison_audit.commands.own_settings import Verifying
from poison_audit.commands.rendering import print_whole
from poison_audit.commands.reviewing import Report, read_whole
from poison_audit.errors import Problems
from poison_audit.reports.formats import FORMATS
from poison_audit.reports.formats.renderer import renderer
from poison_audit.reports.view.words import printable
from poison_audit.verdict.record import AuditRecord
from poison_audit.verdict.seal import seal_checks
from poison_audit.verdict.verify import Check, summary, verify_exit_code
from poison_audit.verdict.verify import verify as compute_again


def verify(settings: Verifying) -> int:
    """Verify reports; return 0 all agrees, 1 something differs, 3 something was not checked."""
    problems, reports = Problems(), []
    for path in settings.reports:
        with problems.collecting():
            reports.append(read_whole(path))
    problems.raise_any()
    codes = []
    for found in reports:
        checks = _checked(found, settings)
        codes.append(verify_exit_code(checks))
        head = f"{printable(str(found.file))}:\n" if len(reports) > 1 else ""
        with suppress(OSError):  # what it comes to is the exit code
            print_whole(head + summary(checks))
    worst = next(code for code in (1, 3, 0) if code in codes)
    if len(reports) > 1:
        with suppress(OSError):
            print_whole(f"exit {worst}: the worst of {len(reports)} reports.\n")
    return worst


def _checked(found: Report, settings: Verifying) -> list[Check]:
    record, folder, files = found.record, found.file.parent, not settings.no_files
    checks = [
        *seal_checks(record, found.tree),
        *compute_again(record, root=settings.root, folder=folder, look_at_files=files),
    ]
    if files and found.file.name == FORMATS["json"].file:
        checks += _rendered(record, folder)
    if settings.key is not None:
        # Only this needs the library.
        from poison_audit.commands.attest import signed_checks

        checks += signed_checks(found, settings.key)
    return checks


def _rendered(record: AuditRecord, folder: Path) -> Iterator[Check]:
    """Render what lies beside a report again, and compare every byte."""
    for name, each in FORMATS.items():
        if name != "json" and os.path.lexists(folder / each.file):
            yield _compared(record, name, folder / each.file)


def _compared(record: AuditRecord, name: str, file: Path) -> Check:
    what = f"rendered: {FORMATS[name].file}"
    try:
        there = read_plainly(file)
    except OSError as error:
        return Check(what=what, state="not checked", told=f"Not looked at: {error.strerror}.")
    try:
        again = FORMATS[name].render(record).encode("utf-8")
    except ImportError as error:
        told = f"Not looked at: {error.name or error} is not installed, which draws it."
        return Check(what=what, state="not checked", told=told)
    if there == again:
        return Check(what=what, state="agrees", told="Rendered again, it is the same.")
    if record.environment.get("renderer") == renderer():
        return Check(what=what, state="differs", told="It does not say what the report says.")
    told = "It is not what this version renders, and another version wrote it: `render` it again."
    return Check(what=what, state="not checked", told=told)
