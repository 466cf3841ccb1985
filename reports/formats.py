"""The formats that a report can be rendered in, and the files they are written to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from audit.records import AuditRecord, to_json
from reports.html import render_html


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One way to write a report down."""

    file: str
    """Its name in the run directory."""
    render: Callable[[AuditRecord], str]
    what: str
    """Whom it is for, in a few words."""


FORMATS: Mapping[str, Format] = {
    "json": Format(file="report.json", render=to_json, what="everything, by report.schema.json"),
    "html": Format(file="report.html", render=render_html, what="one page, for people"),
}
