"""The charts of the candidates and their residue."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from audit.records import AuditRecord, Cell, Finding
from reports.about import POINTS
from reports.drawing import (
    BAND,
    COLOURS,
    INK,
    MARKS,
    MUTED,
    RULE,
    as_svg,
    legend,
    new_axes,
    page_style,
    short,
)
from reports.figure import TONES
from reports.rows import worst


def forest(record: AuditRecord, probe: str, *, describe: str) -> str | None:
    """Draw one probe's estimates and intervals, a line a candidate, on its tolerance band.

    Args:
        record: what to draw.
        probe: one of `RESIDUE`.
        describe: what a reader who cannot see the chart is told.

    Returns:
        An `<svg>` element; None if the probe measured nothing.
    """
    found = [f for f in record.findings if f.probe == probe]
    measured = [f for f in found if f.interval is not None]
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
            if not any(f.interval for f in here):
                _absent(axes, line)
        axes.set_yticks(range(len(names)), [short(n) for n in names], parse_math=False)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        _band(axes, measured[0], across=False)
        axes.set_xlabel(_AXES.get(probe, probe), parse_math=False)
        return as_svg(
            figure, name=f"forest-{probe}", title=f"{probe} by candidate", describe=describe
        )


_AXES = {
    "gaussian": "mean leak score",
    "exposure": "chance to beat fresh noise",
    "token-canary": "chance to beat a fresh string",
    "targeted": "targets hit, points above controls",
    "backdoor": "trigger's rate, points above controls",
    "indiscriminate": "accuracy, points below the reference",
}
FAR = 30.0
"""Farthest leak score that a histogram shows apart from others."""
RESIDUE = tuple(_AXES)
"""The probes that have a chart, the one that stands for the residue first."""


def residue_probe(record: AuditRecord) -> str | None:
    """Return the probe that the trade-off is drawn by: the first that measured anything."""
    measured = {f.probe for f in record.findings if f.interval is not None}
    return next((probe for probe in RESIDUE if probe in measured), None)


def _scale(probe: str) -> float:
    return 100.0 if probe in POINTS else 1.0


def _interval(axes: Axes, finding: Finding, line: float) -> None:
    if finding.statistic is None or finding.interval is None:
        return
    tone, scale = TONES[finding.outcome], _scale(finding.probe)
    low, high = scale * finding.interval.low, scale * finding.interval.high
    axes.hlines(line, low, high, colors=COLOURS[tone], lw=1.6)
    axes.plot(scale * finding.statistic, line, marker=MARKS[tone], ms=5, color=COLOURS[tone])


def _absent(axes: Axes, line: float) -> None:
    edge_and_line = axes.get_yaxis_transform()  # x in shares of the width, y in lines
    axes.text(
        0.02, line, "not measured", transform=edge_and_line, color=MUTED, va="center", fontsize=9
    )


def histogram(cell: Cell, *, tone: str, describe: str) -> str | None:
    """Draw one model's leak scores against the exact null N(0, 1) and the held-out keys' scores.

    Args:
        cell: the model's measurements.
        tone: how its finding is coloured, one of `reports.figure.TONES`.
        describe: what a reader who cannot see the chart is told.

    Returns:
        An `<svg>` element; None if the gaussian probe measured nothing.
    """
    evidence = next((m.evidence for m in cell.measurements if m.probe == "gaussian"), None)
    if not evidence:
        return None
    scores, held_out = evidence["scores"], evidence["held_out"]
    # What lies beyond any score that chance could give stands at the edge.
    scores, held_out = ([min(FAR, max(-FAR, s)) for s in part] for part in (scores, held_out))
    low = min(-4.0, math.floor(min([*scores, *held_out])))
    high = max(4.0, math.ceil(max([*scores, *held_out])))
    width = 0.25 if len(scores) >= 200 else 0.5
    edges = [low + width * i for i in range(round((high - low) / width) + 1)]
    with page_style():
        figure, axes = new_axes(height=250, left=40, top=40)
        axes.hist(scores, edges, density=True, color=COLOURS[tone], alpha=0.45, label="canaries")
        if held_out:
            axes.hist(held_out, edges, density=True, histtype="step", color=MUTED, label="held-out")
        x = [low + (high - low) * i / 240 for i in range(241)]
        null = [math.exp(-v * v / 2) / math.sqrt(2 * math.pi) for v in x]
        axes.plot(x, null, color=INK, lw=1.4, label="N(0, 1)")
        axes.set_xlim(low, high)
        axes.set_xlabel("leak score of one canary")
        axes.set_ylabel("density")
        legend(axes, left=-0.02, ncols=3)
        return as_svg(figure, name="scores", title="Leak scores of the canaries", describe=describe)


@dataclass(frozen=True, slots=True)
class _Point:
    name: str
    x: float
    y: float
    tone: str


def tradeoff(record: AuditRecord, *, describe: str) -> str | None:
    """Draw each candidate's accuracy against its residue, with what is allowed of both.

    Args:
        record: what to draw.
        describe: what a reader who cannot see the chart is told.

    Returns:
        An `<svg>` element; None if no candidate has both.
    """
    measured = [f for f in record.findings if f.interval is not None]
    probe = residue_probe(record)
    points = []
    for candidate in record.verdict.candidates:
        here = [f for f in measured if f.candidate == candidate.candidate]
        residue = worst(f for f in here if f.probe == probe)
        utility = worst(f for f in here if f.probe == "utility" and "accuracy" in f.details)
        if residue and utility and residue.statistic is not None:
            accuracy, tone = 100 * utility.details["accuracy"], TONES[candidate.outcome]
            height = _scale(residue.probe) * residue.statistic
            points.append(_Point(candidate.candidate, accuracy, height, tone))
    if probe is None or not points:
        return None
    height = max(260, 70 + 16 * len(points))
    with page_style():
        figure, axes = new_axes(height=height, left=48, right=118)
        least = _least_accuracy(measured)
        if least is not None:
            axes.axvline(least, color=MUTED, lw=1, ls=(0, (3, 3)))
        for line in _sweeps(points):
            axes.plot([p.x for p in line], [p.y for p in line], color=MUTED, lw=0.9, zorder=0.6)
        for p in points:
            axes.plot(p.x, p.y, marker=MARKS[p.tone], ms=6, color=COLOURS[p.tone], ls="none")
        axes.margins(0.08)
        _band(axes, next(f for f in measured if f.probe == probe), across=True)
        _name_points(axes, points, room=height - 50)
        axes.set_xlabel("accuracy on clean test samples, %")
        axes.set_ylabel(_AXES[probe])
        return as_svg(figure, name="tradeoff", title="Accuracy against residue", describe=describe)


def _sweeps(points: Sequence[_Point]) -> list[list[_Point]]:
    """Return the points of each method that was run at several budgets, largest budget first."""
    by_method: dict[str, list[_Point]] = {}
    for point in points:
        by_method.setdefault(point.name.partition("@")[0], []).append(point)
    return [line for line in by_method.values() if len(line) > 1]


def _least_accuracy(findings: Iterable[Finding]) -> float | None:
    for finding in findings:
        deployed = finding.details.get("deployed_accuracy")
        if finding.probe == "utility" and deployed is not None and finding.tolerance is not None:
            return 100 * float(deployed - finding.tolerance)
    return None


def _name_points(axes: Axes, points: Sequence[_Point], *, room: float) -> None:
    """Write the points' names in the right margin, apart from each other, each with a leader."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
    ordered = sorted(points, key=lambda p: p.y)
    gap = 14 * (high - low) / room
    places = spread([p.y for p in ordered], gap=gap, low=low, high=high)
    step = 0.03 * (right - left)
    for p, place in zip(ordered, places, strict=True):
        x, y = [p.x, right, right + step], [p.y, place, place]
        axes.plot(x, y, color=RULE, lw=0.8, clip_on=False, zorder=0.5)
        at = right + 1.4 * step
        axes.text(at, place, short(p.name), color=INK, va="center", parse_math=False)


def spread(wanted: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Return places near the wanted ones, rising, at least `gap` apart, below `high` if they fit.

    Args:
        wanted: rising.

    >>> spread([0.0, 0.0, 5.0, 10.0, 10.0], gap=1.0, low=0.0, high=10.0)
    [0.0, 1.0, 5.0, 9.0, 10.0]
    """
    places = list(wanted)
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    ceiling = max(high, low + gap * (len(places) - 1))
    for i in reversed(range(len(places))):
        places[i] = min(places[i], ceiling)
        ceiling = places[i] - gap
    return places


def loss_curve(cells: Sequence[Cell], *, name: str, describe: str) -> str | None:
    """Draw the objective of a method along its steps, a line a seed.

    Args:
        cells: one method's runs.
        name: unique on the page, letters and digits.
        describe: what a reader who cannot see the chart is told.

    Returns:
        An `<svg>` element; None if no run has two points.
    """
    curves = [cell.cost.losses for cell in cells if cell.cost and len(cell.cost.losses) > 1]
    if not curves:
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


def _band(axes: Axes, finding: Finding, *, across: bool) -> None:
    if finding.null is None or finding.tolerance is None:
        return
    span, line = (axes.axhspan, axes.axhline) if across else (axes.axvspan, axes.axvline)
    limits, limit = (axes.get_ylim, axes.set_ylim) if across else (axes.get_xlim, axes.set_xlim)
    null, tolerance = (_scale(finding.probe) * v for v in (finding.null, finding.tolerance))
    band = span(2 * null - tolerance, tolerance, color=BAND, lw=0, zorder=0)
    line(null, color=MUTED, lw=1, zorder=0.4)
    if finding.probe in POINTS:  # what lies on the harmless side is within it, however far
        low, high = limits()
        band.remove()
        span(low, tolerance, color=BAND, lw=0, zorder=0)
        limit(low, high)
