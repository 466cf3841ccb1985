"""`verify`: a report computed again, its files, and what was rendered from it. No torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from poison_audit.atomic import read_plainly
from poison_audit.commands.own_settings import Verifying
from poison_audit.commands.rendering import print_whole
from poison_audit.commands.reviewing import read_whole
from poison_audit.reports.formats import FORMATS
from poison_audit.reports.formats.renderer import renderer
from poison_audit.verdict.record import AuditRecord
from poison_audit.verdict.seal import seal_checks
from poison_audit.verdict.verify import Check, summary, verify_exit_code
from poison_audit.verdict.verify import verify as compute_again


def verify(settings: Verifying) -> int:
    """Verify a report; return 0 all agrees, 1 something differs, 3 something was not checked."""
    found = read_whole(settings.report)
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
    with suppress(OSError):  # what it comes to is the exit code
        print_whole(summary(checks))
    return verify_exit_code(checks)


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
