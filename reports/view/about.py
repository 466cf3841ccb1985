"""What a reader is told about each probe."""

from __future__ import annotations

from dataclasses import dataclass

from poison_audit.reports.view.words import printable


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a reader is told about a probe."""

    title: str
    unit: str
    """What its figure is."""
    samples: str
    """What it counts."""
    needs: str
    """What would have let it measure."""
    looks: str = "an effect"
    """What it looks for, to somebody who knows no probe."""


POINTS = ("targeted", "backdoor", "indiscriminate")
"""Probes of an excess or a deficit that only harms upwards, shown in percentage points."""
TWO_SIDED = ("gaussian", "exposure", "token-canary")
"""Probes of which either side of the null is an effect."""
LATER = ("token-canary", *POINTS)
"""Probes that tables have a column for only where they measured or are required."""


_KEY = "The key of the Gaussian planting (canaries.json), and its canaries in forget.csv."

ABOUT = {
    "gaussian": About(
        title="Gaussian",
        unit="mean leak score",
        samples="canaries",
        needs=_KEY,
        looks="memory of planted noise",
    ),
    "exposure": About(
        title="Exposure",
        unit="chance to beat fresh noise",
        samples="canaries",
        needs=_KEY,
        looks="memory of planted noise",
    ),
    "token-canary": About(
        title="Token canaries",
        unit="chance to beat a fresh string",
        samples="token canaries",
        needs="The key of the token canaries (strings.json), and their rows in forget.csv.",
        looks="memory of planted strings",
    ),
    "targeted": About(
        title="Targeted",
        unit="points above controls",
        samples="targets",
        needs="The targets of the attack and the labels they were to be given (targets.csv).",
        looks="targets answered as the attacker wanted",
    ),
    "backdoor": About(
        title="Backdoor",
        unit="points above control triggers",
        samples="stamped inputs",
        needs="The trigger and the label it was to cause (trigger.json).",
        looks="a trigger that is obeyed",
    ),
    "indiscriminate": About(
        title="Indiscriminate",
        unit="points below the reference",
        samples="test samples",
        needs="A reference: a model trained without the forget set.",
        looks="accuracy missing against a model that never saw the poison",
    ),
    "membership": About(
        title="Membership",
        unit="AUC, decides nothing",
        samples="forget samples",
        needs="Forget samples and test samples.",
    ),
    "utility": About(
        title="Accuracy",
        unit="% of test samples; points lost",
        samples="test samples",
        needs="Labelled clean test samples.",
        looks="accuracy lost",
    ),
}


def about(probe: str) -> About:
    """Return what a reader is told about a probe, known here or not."""
    other = About(
        title=printable(probe),
        unit="effect",
        samples="samples",
        needs="The evidence that this probe names as missing.",
    )
    return ABOUT.get(probe, other)
