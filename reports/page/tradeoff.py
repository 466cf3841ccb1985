"""Utility against residue: what each repair, at each budget, costs and leaves behind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from poison_audit.records import Cell, Finding, Kind
from poison_audit.reports.page.charts import RESIDUE, axis, band, scale
from poison_audit.reports.page.drawing import (
    COLOURS,
    INK,
    MARKS,
    MUTED,
    RULE,
    as_svg,
    new_axes,
    page_style,
    short,
)
from poison_audit.reports.view.figure import TONES
from poison_audit.reports.view.rows import worst
from poison_audit.reports.view.words import drawable
from poison_audit.verdict.readings import reading_of
from poison_audit.verdict.record import AuditRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One candidate; of several seeds its worst figures."""

    name: str
    kind: Kind
    accuracy: float
    """Percent of the clean test samples."""
    residue: float
    """On the axis of the probe."""
    harm: float
    """Distance from what a model that never saw the poison has; 0 on the harmless side."""
    tone: str


def residue_probe(record: AuditRecord) -> str | None:
    """Return the probe that the trade-off is drawn by: the first that measured anything."""
    measured = {f.probe for f in record.findings if f.interval is not None and not f.way}
    return next((probe for probe in RESIDUE if probe in measured), None)


def points(record: AuditRecord) -> tuple[Point, ...]:
    """Return the candidates of which both accuracy and residue are known, in their order."""
    probe, found = residue_probe(record), []
    measured = [f for f in record.findings if f.interval is not None and not f.way]
    for candidate in record.verdict.candidates:
        here = [f for f in measured if f.candidate == candidate.candidate]
        residue = worst(f for f in here if f.probe == probe)
        utility = worst(f for f in here if reading_of(f.probe).damage and "accuracy" in f.details)
        if residue is None or utility is None or not drawable(residue.statistic, residue.null):
            continue
        times = scale(residue.probe)
        effect = times * ((residue.statistic or 0.0) - (residue.null or 0.0))
        found.append(
            Point(
                name=candidate.candidate,
                kind=candidate.kind,
                accuracy=100 * utility.details["accuracy"],
                residue=times * (residue.statistic or 0.0),
                harm=abs(effect) if reading_of(residue.probe).two_sided else max(0.0, effect),
                tone=TONES[candidate.outcome],
            )
        )
    return tuple(found)


def best(shown: Iterable[Point]) -> tuple[Point, ...]:
    """Return the Pareto-optimal points: none has both more accuracy and less residue.

    References are no repairs: they are left out, and beat nobody.
    """
    repairs = [p for p in shown if p.kind != "reference"]
    return tuple(p for p in repairs if not any(_beats(other, p) for other in repairs))


def _beats(one: Point, other: Point) -> bool:
    no_worse = one.accuracy >= other.accuracy and one.harm <= other.harm
    return no_worse and (one.accuracy > other.accuracy or one.harm < other.harm)


def sweeps(shown: Iterable[Point], cells: Iterable[Cell]) -> list[list[Point]]:
    """Return the points of each method that ran at several budgets, the smallest budget first."""
    by_name = {p.name: p for p in shown}
    budgets: dict[str, dict[float, Point]] = {}
    for cell in cells:
        if cell.method is not None and cell.budget is not None and cell.candidate in by_name:
            of_method = budgets.setdefault(cell.method.name, {})
            of_method[cell.budget] = by_name[cell.candidate]
    return [
        [of_budget[budget] for budget in sorted(of_budget)]
        for of_budget in budgets.values()
        if len(of_budget) > 1
    ]


def tradeoff(record: AuditRecord, *, describe: str) -> str | None:
    """Draw each candidate's accuracy against its residue, with what is allowed of both.

    A thin line joins the budgets of one method, a ring marks what is Pareto-optimal. None if no
    candidate has both figures.
    """
    probe, shown = residue_probe(record), points(record)
    if probe is None or not shown:
        return None
    height = max(260, 70 + 16 * len(shown))
    with page_style():
        figure, axes = new_axes(height=height, left=48, right=118)
        least = _least_accuracy(record.findings)
        if least is not None:
            axes.axvline(least, color=MUTED, lw=1, ls=(0, (3, 3)))
        for line in sweeps(shown, record.cells):
            joined = ([p.accuracy for p in line], [p.residue for p in line])
            axes.plot(*joined, color=MUTED, lw=0.9, zorder=0.6)
        for p in best(shown):
            ring = (p.accuracy, p.residue)
            axes.plot(*ring, marker="o", ms=12, color=INK, mfc="none", mew=0.9, ls="none")
        for p in shown:
            at = (p.accuracy, p.residue)
            axes.plot(*at, marker=MARKS[p.tone], ms=6, color=COLOURS[p.tone], ls="none")
        axes.margins(0.08)
        band(axes, next(f for f in record.findings if f.probe == probe and f.interval), across=True)
        _name_points(axes, shown, room=height - 50)
        axes.set_xlabel("accuracy on clean test samples, %")
        axes.set_ylabel(axis(probe))
        return as_svg(figure, name="tradeoff", title="Accuracy against residue", describe=describe)


def _least_accuracy(findings: Iterable[Finding]) -> float | None:
    for finding in findings:
        deployed = finding.details.get("deployed_accuracy")
        damage = reading_of(finding.probe).damage
        if damage and deployed is not None and drawable(finding.tolerance):
            return 100 * float(deployed - (finding.tolerance or 0.0))
    return None


def _name_points(axes: Axes, shown: Sequence[Point], *, room: float) -> None:
    """Write the points' names in the right margin, apart from each other, each with a leader."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
    ordered = sorted(shown, key=lambda p: p.residue)
    gap = 14 * (high - low) / room
    places = spread([p.residue for p in ordered], gap=gap, low=low, high=high)
    step = 0.03 * (right - left)
    for p, place in zip(ordered, places, strict=True):
        x, y = [p.accuracy, right, right + step], [p.residue, place, place]
        axes.plot(x, y, color=RULE, lw=0.8, clip_on=False, zorder=0.5)
        at = right + 1.4 * step
        axes.text(at, place, short(p.name), color=INK, va="center", parse_math=False)


def spread(wanted: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Return rising places near rising ones, at least `gap` apart, below `high` if they fit.

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
