"""A report that exists already, read and checked. No torch."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from poison_audit.atomic import from_json
from poison_audit.errors import InputError, Problem
from poison_audit.reports.formats import FORMATS
from poison_audit.verdict.forms import wrong_evidence, wrong_forms
from poison_audit.verdict.record import AuditRecord


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
