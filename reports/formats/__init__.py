"""The formats that a report can be rendered in, and the files they are written to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from poison_audit.atomic import to_json
from poison_audit.reports.formats.attestation import render_attestation
from poison_audit.reports.formats.bom import render_bom
from poison_audit.reports.formats.junit import render_junit
from poison_audit.reports.formats.markdown import render_markdown
from poison_audit.reports.formats.model_card import render_model_card
from poison_audit.reports.formats.sarif import render_sarif
from poison_audit.verdict.record import AuditRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One way to write a report down."""

    file: str
    """Its name in the run directory."""
    render: Callable[[AuditRecord], str]
    what: str
    """Whom it is for, in a few words."""


def _html(record: AuditRecord) -> str:
    # Only the page needs matplotlib, which takes long to import and may be missing elsewhere.
    from poison_audit.reports.page.html import render_html

    return render_html(record)


FORMATS: Mapping[str, Format] = {
    "json": Format(file="report.json", render=to_json, what="everything, by report.schema.json"),
    "html": Format(file="report.html", render=_html, what="one page, for people"),
    "junit": Format(file="report.junit.xml", render=render_junit, what="a case a probe, for CI"),
    "sarif": Format(file="report.sarif", render=render_sarif, what="results, for code scanning"),
    "markdown": Format(file="report.md", render=render_markdown, what="a pull request's comment"),
    "in-toto": Format(
        file="report.intoto.json", render=render_attestation, what="a test-result attestation"
    ),
    "cyclonedx": Format(file="report.cdx.json", render=render_bom, what="an ML-BOM"),
    "model-card": Format(
        file="report.card.md", render=render_model_card, what="a card on the Hugging Face Hub"
    ),
}
