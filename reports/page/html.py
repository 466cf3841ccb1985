"""The report as one HTML file: nothing is fetched, nothing is run, and every name is escaped."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from poison_audit.reports.page.charts import RESIDUE, forest, loss_curve
from poison_audit.reports.page.evidence_charts import CHARTS
from poison_audit.reports.page.tradeoff import best, points, residue_probe, tradeoff
from poison_audit.reports.page.why_charts import orthogonality_chart, shift_chart
from poison_audit.reports.view.clauses import cited
from poison_audit.reports.view.evidence import deployed_tone, evidence_of
from poison_audit.reports.view.view import View, view
from poison_audit.reports.view.words import about, printable
from poison_audit.verdict.readings import READINGS, reading_of
from poison_audit.verdict.record import AuditRecord


@cache
def template(name: str) -> Template:
    """Return a template, which escapes whatever is put into it."""
    environment = Environment(
        loader=PackageLoader("poison_audit", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def render_html(record: AuditRecord) -> str:
    """Return the whole report as one HTML page, to be stored as UTF-8."""
    seen = view(record)
    return template("report.html.j2").render(
        view=seen,
        forests=_forests(record, seen),
        charts=_evidence_charts(record, seen),
        tradeoff=_drawn(tradeoff(record, describe=_tradeoff_text(record, seen))),
        swept=bool(record.plan.sweep),
        curves=_curves(record, seen),
        why_charts=_why(record, seen),
        clauses=cited(record),
    )


def _drawn(svg: str | None) -> Markup | None:
    # The one place that trusts markup: charts escape every name they draw.
    return None if svg is None else Markup(svg)  # noqa: S704


def _forests(record: AuditRecord, seen: View) -> list[tuple[str, str, Markup]]:
    """Return (title, unit, chart) of each residue probe that measured something."""
    found = []
    for probe in RESIDUE:
        words = about(probe)
        svg = _drawn(forest(record, probe, describe=_probe_text(seen, probe)))
        if svg is not None:
            found.append((words.title, words.unit, svg))
    return found


def _evidence_charts(record: AuditRecord, seen: View) -> list[dict[str, Any]]:
    """Return the charts of what each probe saw in the deployed model, where it saw anything."""
    deployed = next((cell for cell in record.cells if cell.kind == "deployed"), None)
    found = []
    for reading in READINGS.values():
        own = evidence_of(deployed, reading)
        if deployed is None or own is None:
            continue
        tone = deployed_tone(record, reading.name)
        told = _probe_text(seen, reading.name, only=printable(deployed.candidate))
        for name in reading.charts:
            chart = CHARTS[name]
            svg = _drawn(chart.draw(own, tone=tone, describe=f"Deployed model: {told}"))
            found.append({"name": name, "title": chart.title, "text": chart.text, "svg": svg})
    return found


def _why(record: AuditRecord, seen: View) -> dict[str, Markup | None]:
    """Return the chart of each hypothesis, by its name."""
    told = {h.name: f"{h.sentence} {h.figures}" for h in seen.why.hypotheses} if seen.why else {}
    draw = {"shift": shift_chart, "orthogonality": orthogonality_chart}
    found = {f.probe: f for f in record.findings if f.probe in told}
    return {name: _drawn(draw[name](found[name], describe=text)) for name, text in told.items()}


def _curves(record: AuditRecord, seen: View) -> list[tuple[str, str, Markup | None]]:
    """Return (method, what it spent, chart) of each method that ran."""
    shown = []
    for number, (row, verdict) in enumerate(zip(seen.rows, record.verdict.candidates, strict=True)):
        cells = [cell for cell in record.cells if cell.candidate == verdict.candidate]
        if any(cell.kind == "method" or cell.cost for cell in cells):
            text = f"Objective of {row.name}; budget spent / allowed: {row.budget}."
            svg = loss_curve(cells, name=f"loss{number}", describe=text)
            shown.append((row.name, row.budget, _drawn(svg)))
    return shown


def _probe_text(seen: View, probe: str, *, only: str | None = None) -> str:
    parts = [
        f"{row.name} {figure.text} {figure.outcome}"
        for row in seen.rows
        for figure in row.figures
        if figure.probe == probe and only in (None, row.name)
    ]
    return "; ".join(parts) + "."


def _tradeoff_text(record: AuditRecord, seen: View) -> str:
    probe = residue_probe(record)
    if probe is None:
        return ""
    parts = []
    for row in seen.rows:
        of = {figure.probe: figure.text for figure in row.figures}
        accuracy = next((of[name] for name in of if reading_of(name).damage), "not measured")
        parts.append(f"{row.name}: accuracy {accuracy}, {about(probe).unit} {of[probe]}")
    names = ", ".join(printable(p.name) for p in best(points(record)))
    return f"{'; '.join(parts)}. Beaten by no other in both: {names or 'none'}."
