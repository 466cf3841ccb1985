"""Reports of one model over time, as one HTML file: a strip a probe."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from poison_audit.records import Finding
from poison_audit.reports.page.charts import axis, band, scale
from poison_audit.reports.page.drawing import COLOURS, MARKS, as_svg, new_axes, page_style
from poison_audit.reports.page.html import template
from poison_audit.reports.view.figure import TONES
from poison_audit.reports.view.history import Group, History
from poison_audit.reports.view.words import drawable

MOST_LABELS = 6
"""Days that a strip has room for."""


def render_history(history: History, *, folder: str) -> str:
    """Return the page; `folder`: where the reports lie."""
    strips = [
        [
            (title, axis(probe), Markup(svg))  # noqa: S704 - charts escape what they draw
            for title, probe, svg in zip(
                group.titles, group.probes, _strips(group, number), strict=True
            )
            if svg is not None
        ]
        for number, group in enumerate(history.groups)
    ]
    return template("history.html.j2").render(history=history, strips=strips, folder=folder)


def _strips(group: Group, number: int) -> list[str | None]:
    days = [entry.when[:10] for entry in group.entries]
    return [
        strip(
            [entry.found[place] for entry in group.entries],
            days,
            name=f"strip-{number}-{place}",
            title=f"{group.titles[place]} over time",
            describe="; ".join(f"{entry.when} {entry.figures[place]}" for entry in group.entries),
        )
        for place in range(len(group.probes))
    ]


def strip(
    found: Sequence[Finding | None], days: Sequence[str], *, name: str, title: str, describe: str
) -> str | None:
    """Draw one probe's figures from report to report; None where none can be drawn.

    Args:
        found: a finding a report; None: not measured.
        days: of the reports.
        name: of the chart, unique on the page.
        title: what it shows.
        describe: for who cannot see it.
    """
    seen = [(x, f) for x, f in enumerate(found) if f is not None and _drawable(f)]
    if not seen:
        return None
    with page_style():
        figure, axes = new_axes(height=170, left=46, bottom=28)
        for x, each in seen:
            tone, times, at = TONES[each.outcome], scale(each.probe), each.interval
            if at is None or each.statistic is None:
                continue
            axes.vlines(x, times * at.low, times * at.high, colors=COLOURS[tone], lw=1.6)
            axes.plot(x, times * each.statistic, marker=MARKS[tone], ms=5, color=COLOURS[tone])
        axes.set_xlim(-0.5, len(found) - 0.5)
        every = math.ceil(len(days) / MOST_LABELS)
        axes.set_xticks(range(0, len(days), every), days[::every], fontsize=8, parse_math=False)
        band(axes, seen[0][1], across=True)
        return as_svg(figure, name=name, title=title, describe=describe)


def _drawable(finding: Finding) -> bool:
    at = finding.interval
    return at is not None and drawable(finding.statistic, at.low, at.high)
