"""A report that exists already, read and checked. No torch."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from poison_audit.atomic import from_json
from poison_audit.errors import InputError, Problem
from poison_audit.records import Json
from poison_audit.reports.formats import FORMATS
from poison_audit.verdict.forms import wrong_evidence, wrong_forms
from poison_audit.verdict.record import AuditRecord

MOST_BYTES = 64 << 20
"""Of a report that is read. Of thirteen methods it has some hundred kilobytes, and JSON of a given
size fills thirty times as much memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A report that was read."""

    record: AuditRecord
    tree: Mapping[str, Json]
    """The JSON that it was read from."""
    digest: str
    """SHA-256 of the file."""
    file: Path


def read_report(path: Path) -> tuple[AuditRecord, str]:
    """Return the record of `read_whole` and the file's SHA-256."""
    found = read_whole(path)
    return found.record, found.digest


def read_whole(path: Path) -> Report:
    """Read a report.json, or that of a run directory.

    Raises:
        InputError: there is none, it is not one, or what it holds has not the form that this tool
            gives it: whatever is read here can be judged, compared and rendered in every format.
    """
    file = path / FORMATS["json"].file if path.is_dir() else path
    try:
        if not file.is_file():  # a pipe would be waited for
            raise FileNotFoundError(errno.ENOENT, "there is no such file")
        with file.open("rb") as stream:
            raw = stream.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise OSError(errno.EFBIG, f"larger than {MOST_BYTES >> 20} MiB, as no report is")
        text = raw.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(Problem(f"cannot be read ({reason})", str(file))) from error
    record = from_json(AuditRecord, text, where=str(file))
    if problems := [*wrong_evidence(record), *wrong_forms(record)]:
        raise InputError([replace(each, where=f"{file}: {each.where}") for each in problems[:20]])
    digest = hashlib.sha256(raw).hexdigest()
    return Report(record=record, tree=json.loads(text), digest=digest, file=file)
