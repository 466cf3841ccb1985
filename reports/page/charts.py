"""The charts of the candidates and their residue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from poison_audit.records import Cell, Finding
from poison_audit.reports.page.drawing import (
    BAND,
    COLOURS,
    INK,
    MARKS,
    MUTED,
    as_svg,
    new_axes,
    page_style,
    short,
)
from poison_audit.reports.view.figure import TONES
from poison_audit.reports.view.words import drawable
from poison_audit.verdict.readings import READINGS, reading_of
from poison_audit.verdict.record import AuditRecord


def forest(record: AuditRecord, probe: str, *, describe: str) -> str | None:
    """Draw the intervals of a probe of `RESIDUE`, a line a candidate; None if it measured none."""
    found = [f for f in record.findings if f.probe == probe and not f.way]
    measured = [f for f in found if _drawn(f)]
    if not measured:
        return None
    names = [c.candidate for c in record.verdict.candidates]
    with page_style():
        figure, axes = new_axes(height=58 + 19 * len(names), left=112)
        for line, name in enumerate(names):
            here = [f for f in found if f.candidate == name]
            gap = 0.6 / max(1, len(here))
            for place, finding in enumerate(here):
                _interval(axes, finding, line + gap * (place - (len(here) - 1) / 2))
            if not any(map(_drawn, here)):
                _absent(axes, line)
        axes.set_yticks(range(len(names)), [short(n) for n in names], parse_math=False)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        band(axes, measured[0], across=False)
        axes.set_xlabel(axis(probe), parse_math=False)
        title = f"{probe} by candidate"
        return as_svg(figure, name=f"forest-{probe}", title=title, describe=describe)


HIGHEST = 1e30
"""Highest objective that is drawn: of a method that diverges it may be very high."""
RESIDUE = tuple(name for name, reading in READINGS.items() if reading.residue)
"""The probes that have a chart, the one that stands for the residue first."""


def axis(probe: str) -> str:
    """Return what stands along a probe's axis."""
    words = reading_of(probe).words
    return words.axis or words.unit


def scale(probe: str) -> float:
    """Return what a probe's figures are multiplied by on an axis: shares become points."""
    return 100.0 if reading_of(probe).excess else 1.0


def _drawn(finding: Finding) -> bool:
    at = finding.interval
    return at is not None and drawable(finding.statistic, at.low, at.high)


def _interval(axes: Axes, finding: Finding, line: float) -> None:
    if finding.statistic is None or finding.interval is None or not _drawn(finding):
        return
    tone, times = TONES[finding.outcome], scale(finding.probe)
    low, high = times * finding.interval.low, times * finding.interval.high
    axes.hlines(line, low, high, colors=COLOURS[tone], lw=1.6)
    axes.plot(times * finding.statistic, line, marker=MARKS[tone], ms=5, color=COLOURS[tone])


def _absent(axes: Axes, line: float) -> None:
    place = axes.get_yaxis_transform()  # x in shares of the width, y in lines
    how: dict[str, Any] = {"transform": place, "color": MUTED, "va": "center", "fontsize": 9}
    axes.text(0.02, line, "not measured", **how)


def loss_curve(cells: Sequence[Cell], *, name: str, describe: str) -> str | None:
    """Draw the objective along one method's runs, a line a seed; None if none has two points."""
    curves = [cell.cost.losses for cell in cells if cell.cost and len(cell.cost.losses) > 1]
    if not curves or not all(drawable(*curve, most=HIGHEST) for curve in curves):
        return None
    with page_style():
        figure, axes = new_axes(width=220, height=110, left=46, bottom=20)
        for curve in curves:
            done = [100 * i / (len(curve) - 1) for i in range(len(curve))]
            axes.plot(done, curve, color=INK, lw=1.1)
        lowest, highest = min(map(min, curves)), max(map(max, curves))
        if lowest > 0 and highest / lowest > 100:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(numticks=4))
            axes.yaxis.set_major_formatter(lambda loss, _: f"{loss:g}")
            axes.yaxis.set_minor_formatter("")
        else:
            axes.locator_params(axis="y", nbins=3)
        axes.set_xticks([0, 50, 100], ["start", "", "end"])
        return as_svg(figure, name=name, title="Objective along the run", describe=describe)


def band(axes: Axes, finding: Finding, *, across: bool) -> None:
    """Shade what is within tolerance and draw the null, across the chart or down it."""
    if finding.null is None or finding.tolerance is None:
        return
    if not drawable(finding.null, finding.tolerance):
        return
    span, line = (axes.axhspan, axes.axhline) if across else (axes.axvspan, axes.axvline)
    limits, limit = (axes.get_ylim, axes.set_ylim) if across else (axes.get_xlim, axes.set_xlim)
    null, tolerance = (scale(finding.probe) * v for v in (finding.null, finding.tolerance))
    shaded = span(2 * null - tolerance, tolerance, color=BAND, lw=0, zorder=0)
    line(null, color=MUTED, lw=1, zorder=0.4)
    if reading_of(finding.probe).excess:  # what lies on the harmless side is within it, however far
        low, high = limits()
        shaded.remove()
        span(low, tolerance, color=BAND, lw=0, zorder=0)
        limit(low, high)
