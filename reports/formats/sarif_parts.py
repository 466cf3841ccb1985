"""The parts of a SARIF log, made of strings that nobody vouches for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import quote

from poison_audit.case.shown import InputFile, Place
from poison_audit.reports.view.words import printable
from poison_audit.verdict.record import AuditRecord

ROOT = "%SRCROOT%"
FOLDER = "%WORKINGFOLDER%"


def message(text: str) -> dict[str, str]:
    """Return a plain text message, in which nothing is a placeholder or a link (3.11.5, 3.11.6).

    SARIF has no escape for what looks like a link outside of one, so a space takes it apart.
    """
    return {"text": text.replace("{", "{{").replace("}", "}}").replace("](", "] (")}


def location(record: AuditRecord, *names: str) -> dict[str, Any]:
    """Return the first place that is on record, else the top of the forget table.

    GitHub refuses a result without one, so without a forget table it is the report itself.
    """
    found = next((record.places[name] for name in names if name in record.places), None)
    if found is None:
        path = record.subject.get("forget")
        name = PureWindowsPath(path).name if isinstance(path, str) else ""
        found = Place(uri=name or "report.json", line=1)
    return at(found)


def at(place: Place) -> dict[str, Any]:
    """Return a line of a text file below the root."""
    where = {"uri": _relative(place.uri), "uriBaseId": ROOT}
    line = {"startLine": min(max(1, place.line), 2**31 - 1)}
    return {"physicalLocation": {"artifactLocation": where, "region": line}}


def _relative(path: str) -> str:
    """Return a path below the root as a relative reference (RFC 3986), else its last part."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or path.startswith("/"):
        parts = [part for part in parts[-1:] if part != ".."]
    return _quoted("/".join(parts)) or "report.json"


def _quoted(path: str) -> str:
    # A colon is quoted, too: before the first slash it would end a scheme.
    return quote(path, safe="/", errors="backslashreplace")


def artifact(file: InputFile) -> dict[str, Any]:
    """Return a file that the audit read, with its digest."""
    path = file.path.replace("\\", "/")
    if PurePosixPath(path).is_absolute() or PureWindowsPath(path).is_absolute():
        where = {"uri": f"file:///{_quoted(path.lstrip('/'))}"}
    else:
        where = {"uri": _quoted(path) or ".", "uriBaseId": FOLDER}
    told: dict[str, Any] = {
        "location": where,
        "description": message(printable(file.role)),
        "hashes": {"sha-256": printable(file.sha256)},
    }
    if file.size >= 0:
        told["length"] = file.size
    roles = ["analysisTarget"] * (file.role == "model") + ["directory"] * file.folder
    return told | ({"roles": roles} if roles else {})


def unique(items: Iterable[Mapping[str, Any]]) -> list[Any]:
    """Return items without repetition, which the schema forbids."""
    return list({json.dumps(item, sort_keys=True): item for item in items}.values())
