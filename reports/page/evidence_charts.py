"""The charts of evidence: a trigger among its controls, token canaries among fresh strings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist

from poison_audit.records import Json
from poison_audit.reports.page.drawing import (
    COLOURS,
    INK,
    MARKS,
    MUTED,
    RULE,
    as_svg,
    legend,
    new_axes,
    page_style,
)

LOWEST = 0.001
"""Lowest false positive rate that is drawn."""


def backdoor_chart(evidence: Mapping[str, Json], *, tone: str, describe: str) -> str:
    """Draw the success rates of the control triggers and of the true one.

    Args:
        evidence: what the backdoor probe saw in a model.
        tone: how its finding is coloured, one of `reports.view.figure.TONES`.
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
        axes.axvline(clean, color=INK, lw=1, ls=(0, (3, 3)), label="no trigger")
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
        legend(axes, left=-0.1, ncols=3)
        return as_svg(
            figure, name="backdoor", title="The trigger among its controls", describe=describe
        )


def rank_chart(evidence: Mapping[str, Json], *, tone: str, describe: str) -> str:
    """Draw where the true strings rank among fresh ones, beside the held-out strings' ranks.

    Args:
        evidence: what the token canary probe saw in a model.
        tone: how its finding is coloured, one of `reports.view.figure.TONES`.
        describe: what a reader who cannot see the chart is told.

    Returns:
        An `<svg>` element. By chance, the density is 1 everywhere.
    """
    return _ranks(
        evidence,
        tone=tone,
        name="ranks",
        title="Ranks of the token canaries",
        true="true strings",
        axis="share of fresh strings that are given its label less surely",
        describe=describe,
    )


def exposure_chart(evidence: Mapping[str, Json], *, tone: str, describe: str) -> str:
    """Draw where the true noise of each canary ranks among fresh draws; as `rank_chart`."""
    return _ranks(
        evidence,
        tone=tone,
        name="exposure",
        title="Ranks of the canaries' noise",
        true="true noise",
        axis="share of fresh noise that the model prefers less",
        describe=describe,
    )


def roc_chart(evidence: Mapping[str, Json], *, tone: str, describe: str) -> str:
    """Draw the share of canaries recognised at low false positive rates.

    The rate of a threshold is exact: the score of noise that was never planted is N(0, 1).

    Args:
        evidence: what the gaussian probe saw in a model.
        tone: how its finding is coloured, one of `reports.view.figure.TONES`.
        describe: what a reader who cannot see the chart is told.
    """
    rates, found = roc(evidence["scores"])
    chance = [10 ** (-3 + 3 * i / 60) for i in range(61)]
    with page_style():
        figure, axes = new_axes(height=250, left=62, top=30, right=22)
        axes.plot(chance, chance, color=INK, lw=1, ls=(0, (3, 3)), label="chance")
        axes.step(rates, found, where="post", color=COLOURS[tone], lw=1.8, label="canaries")
        axes.axvline(0.01, color=RULE, lw=0.8)
        axes.set_xscale("log")
        axes.set_xticks([0.001, 0.01, 0.1, 1], ["0.1%", "1%", "10%", "100%"])
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])
        axes.set_xlim(LOWEST, 1)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("false positive rate")
        axes.set_ylabel("canaries recognised")
        legend(axes, left=-0.1, ncols=2)
        return as_svg(figure, name="roc", title="Canaries recognised by rate", describe=describe)


def roc(scores: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return the steps (false positive rate, share of scores found), from `LOWEST` to 1.

    The rate of a threshold t is exact, P(N(0, 1) > t); thresholds are the scores themselves.

    >>> roc([0.0])
    ([0.001, 0.5, 1.0], [0.0, 1.0, 1.0])
    """
    null, n = NormalDist(), len(scores)
    rates = sorted(null.cdf(-score) for score in scores)
    below = sum(rate <= LOWEST for rate in rates)
    x = [LOWEST, *rates[below:], 1.0]
    return x, [below / n, *((i + 1) / n for i in range(below, n)), 1.0]


def _ranks(
    evidence: Mapping[str, Json],
    *,
    tone: str,
    name: str,
    title: str,
    true: str,
    axis: str,
    describe: str,
) -> str:
    ranks = evidence["draws"] + 1
    wins, held_out = (
        [(win + 0.5) / ranks for win in evidence.get(key) or ()] for key in ("wins", "held_out")
    )
    bars = min(ranks, 20 if len(wins) >= 200 else 10)
    # Each bar holds whole ranks, so that chance alone fills none more than another.
    edges = [round(i * ranks / bars) / ranks for i in range(bars + 1)]
    with page_style():
        figure, axes = new_axes(height=250, left=44, top=46)
        axes.hist(wins, edges, density=True, color=COLOURS[tone], alpha=0.45, label=true)
        if held_out:
            axes.hist(held_out, edges, density=True, histtype="step", color=MUTED, label="held-out")
        axes.axhline(1, color=INK, lw=1.4, label="chance")
        axes.set_xlim(0, 1)
        axes.set_xlabel(axis)
        axes.set_ylabel("density")
        legend(axes, left=-0.1, ncols=3)
        return as_svg(figure, name=name, title=title, describe=describe)
