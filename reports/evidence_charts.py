"""The chart of a backdoor: the true trigger's rate among those of the control triggers."""

from __future__ import annotations

from collections.abc import Mapping

from audit.records import Json
from reports.drawing import COLOURS, INK, MARKS, MUTED, as_svg, new_axes, page_style


def backdoor_chart(evidence: Mapping[str, Json], *, tone: str, describe: str) -> str:
    """Draw the success rates of the control triggers and of the true one.

    Args:
        evidence: what the backdoor probe saw in a model.
        tone: how its finding is coloured, one of `reports.figure.TONES`.
        describe: what a reader who cannot see the chart is told.

    Returns:
        An `<svg>` element.
    """
    controls = [100 * rate for rate in evidence["control_rates"]]
    n = len(evidence["hits"])
    rate, clean = 100 * sum(evidence["hits"]) / n, 100 * evidence["clean_hits"] / n
    with page_style():
        figure, axes = new_axes(height=250, left=44, top=46)
        counts, _, _ = axes.hist(
            controls, range(0, 102, 2), color=MUTED, alpha=0.5, label="control triggers"
        )
        top = max(counts)
        axes.axvline(clean, color=INK, lw=1, ls=(0, (3, 3)), label="no patch")
        axes.vlines(rate, 0, 0.92 * top, colors=COLOURS[tone], lw=2)
        axes.plot(
            rate,
            0.92 * top,
            marker=MARKS[tone],
            ms=7,
            color=COLOURS[tone],
            ls="none",
            clip_on=False,
            label="the trigger",
        )
        axes.set_xlim(0, 100)
        axes.locator_params(axis="y", integer=True, nbins=6)
        axes.set_xlabel("inputs given the trigger's label, %")
        axes.set_ylabel("control triggers")
        legend = axes.legend(loc="lower left", bbox_to_anchor=(-0.1, 1.0), ncols=3, frameon=False)
        for text in legend.get_texts():
            text.set_color(INK)
        return as_svg(
            figure, name="backdoor", title="The trigger among its controls", describe=describe
        )
