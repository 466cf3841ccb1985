"""The charts of evidence: what one probe saw in the deployed model, and what is said beside it.

Each takes what the probe saw, its finding's tone (of `reports.view.figure.TONES`) and what a reader
who cannot see the chart is told, and returns an `<svg>` element.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist
from typing import Any

from poison_audit.poisons.backdoor.reading import TriggerHits
from poison_audit.poisons.gaussian.reading import Ranks, Scores
from poison_audit.poisons.token_canary.reading import StringRanks
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

FAR = 30.0
"""Farthest leak score that is shown apart from others."""
LOWEST = 0.001
"""Lowest false positive rate that is drawn."""


def scores_chart(seen: Scores, *, tone: str, describe: str) -> str:
    """Draw one model's leak scores against the exact null N(0, 1) and the held-out keys' scores."""
    # What lies beyond any score that chance could give stands at the edge.
    scores, held_out = (
        [min(FAR, max(-FAR, s)) for s in part] for part in (seen.scores, seen.held_out)
    )
    low = min(-4.0, math.floor(min([*scores, *held_out])))
    high = max(4.0, math.ceil(max([*scores, *held_out])))
    width = 0.25 if len(scores) >= 200 else 0.5
    edges = [low + width * i for i in range(round((high - low) / width) + 1)]
    with page_style():
        figure, axes = new_axes(height=250, left=46, top=40)
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


def trigger_chart(seen: TriggerHits, *, tone: str, describe: str) -> str:
    """Draw the success rates of the control triggers and of the true one."""
    controls = [100 * rate for rate in seen.control_rates]
    rate, clean = 100 * seen.total / seen.n, 100 * seen.clean_hits / seen.n
    mark: dict[str, Any] = {"marker": MARKS[tone], "ms": 7, "color": COLOURS[tone], "ls": "none"}
    with page_style():
        figure, axes = new_axes(height=250, left=58, top=46)
        counts, _, _ = axes.hist(
            controls, range(0, 102, 2), color=MUTED, alpha=0.5, label="control triggers"
        )
        top = max(counts)
        axes.axvline(clean, color=INK, lw=1, ls=(0, (3, 3)), label="no trigger")
        axes.vlines(rate, 0, 0.92 * top, colors=COLOURS[tone], lw=2)
        axes.plot(rate, 0.92 * top, label="the trigger", clip_on=False, **mark)
        axes.set_xlim(0, 100)
        axes.locator_params(axis="y", integer=True, nbins=6)
        axes.set_xlabel("inputs given the trigger's label, %")
        axes.set_ylabel("control triggers")
        legend(axes, left=-0.1, ncols=3)
        return as_svg(
            figure, name="backdoor", title="The trigger among its controls", describe=describe
        )


def recognised_chart(seen: Scores, *, tone: str, describe: str) -> str:
    """Draw the share of canaries recognised at low false positive rates.

    The rate of a threshold is exact: the score of noise that was never planted is N(0, 1).
    """
    rates, found = roc(seen.scores)
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
    seen: Ranks | StringRanks, *, tone: str, describe: str, name: str, title: str, true: str, x: str
) -> str:
    """Draw where each `true` one ranks among fresh ones; by chance, the density is 1 everywhere."""
    ranks, held_out = seen.draws + 1, seen.held_out if isinstance(seen, StringRanks) else ()
    true_places, others = ([(win + 0.5) / ranks for win in part] for part in (seen.wins, held_out))
    bars = min(ranks, 20 if len(seen.wins) >= 200 else 10)
    # Each bar holds whole ranks, so that chance alone fills none more than another.
    edges = [round(i * ranks / bars) / ranks for i in range(bars + 1)]
    with page_style():
        figure, axes = new_axes(height=250, left=44, top=46)
        axes.hist(true_places, edges, density=True, color=COLOURS[tone], alpha=0.45, label=true)
        if others:
            axes.hist(others, edges, density=True, histtype="step", color=MUTED, label="held-out")
        axes.axhline(1, color=INK, lw=1.4, label="chance")
        axes.set_xlim(0, 1)
        axes.set_xlabel(x)
        axes.set_ylabel("density")
        legend(axes, left=-0.1, ncols=3)
        return as_svg(figure, name=name, title=title, describe=describe)


strings_chart = partial(
    _ranks,
    name="ranks",
    title="Ranks of the token canaries",
    true="true strings",
    x="share of fresh strings that are given its label less surely",
)
noise_chart = partial(
    _ranks,
    name="exposure",
    title="Ranks of the canaries' noise",
    true="true noise",
    x="share of fresh noise that the model prefers less",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart of evidence."""

    draw: Callable[..., str]

    title: str
    text: str
    """What is said below it, right after the title."""


CHARTS: Mapping[str, Chart] = {
    "scores": Chart(
        draw=scores_chart,
        title="Leak scores of the deployed model",
        text=", one a canary, against what a model that never saw them would show: exactly "
        "N(0, 1). Held-out keys, never planted, must follow the curve.",
    ),
    "recognised": Chart(
        draw=recognised_chart,
        title="Canaries told from chance",
        text=": the share of the deployed model\u2019s canaries that a threshold recognises, by "
        "how often it would wrongly recognise noise that was never planted. The dashed line is "
        "chance.",
    ),
    "ranks of noise": Chart(
        draw=noise_chart,
        title="Canaries among fresh noise",
        text=": for each, the share of fresh noise of the same kind that the deployed model "
        "prefers less. In a model that never saw them every share is as likely as any other.",
    ),
    "ranks of strings": Chart(
        draw=strings_chart,
        title="Token canaries among fresh strings",
        text=": for each, the share of random strings of its kind that the deployed model gives "
        "its label less surely. In a model that never saw them every share is as likely as any "
        "other; held-out strings, never planted, must lie flat.",
    ),
    "trigger": Chart(
        draw=trigger_chart,
        title="The trigger among its controls",
        text=": how often each makes the deployed model give the trigger\u2019s label, on the same "
        "inputs. In a model that never saw it the trigger is one more control.",
    ),
}
"""By the name that a reading has for it."""
