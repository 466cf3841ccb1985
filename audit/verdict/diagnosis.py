"""Diagnosis: what the figures of the hypotheses say about what could help, in plain words.

A method is judged by the part of the needed shift it covered and the cosine of its movement with
it; where references lie far apart, what is called needed is mostly the luck of a start. The whole
is judged by shift (H1) and orthogonality (H2), each found where its p-value is at most 0.05 and its
ratio lies on the side that the hypothesis says.

The bounds 0.5 and 0.1 are conventions. Nothing here changes a verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from poison_audit.records import Cell, Finding, Json

ALPHA = 0.05
"""A hypothesis is found at a p-value of at most this."""
MOSTLY = 0.5
"""From here on, a part is most of the whole."""
PARTLY = 0.1
"""Up to here, a cosine is hardly any."""


def method_diagnosis(moved: Mapping[str, Json]) -> str:
    """Say in words what `movement` found for one method."""
    covered, aligned, apart = moved["covered"], moved["aligned"], moved["apart"]
    if covered is None:
        return f"Not measured: {moved['missing']['covered']}."
    if aligned is None:
        return "It did not move the weights at all."
    figures = f"It covered {100 * covered:z.1f}% of the needed shift (cosine {aligned:z.2f})"
    if apart is not None and apart >= MOSTLY:
        return f"{figures}: no conclusion, the needed shift is mostly the luck of a start."
    told = f"{figures}: {_way(covered, aligned)}."
    if apart is None:
        told += " With one reference it is not known how much of this is the luck of its start."
    return told


def worded(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """Return measured cells with the `sentence` of each movement."""
    return tuple(
        cell
        if (moved := cell.movement) is None
        else replace(cell, movement={**moved, "sentence": method_diagnosis(moved)})
        for cell in cells
    )


def _way(covered: float, aligned: float) -> str:
    if covered >= MOSTLY:
        return "most of the way. More budget of the same may finish it"
    if aligned >= MOSTLY:
        return "the right way, too short. More budget may help"
    if aligned >= PARTLY:
        return "only partly the right way. More budget alone is unlikely to suffice"
    if aligned > -PARTLY:
        return (
            "most of its movement went elsewhere. More budget is unlikely to help; another method "
            "or retraining might"
        )
    return "it moved away. More budget of the same may make it worse"


def diagnosis(shift: Finding, orthogonality: Finding) -> str:
    """Say in words what both hypotheses come to."""
    further, beyond = _holds(shift, above=True), _holds(orthogonality, above=False)
    if further is None and beyond is None:
        return "Neither hypothesis could be measured, so why methods fail here is not known."
    return f"{_TOLD[further, beyond]} {_CAVEAT}"


_CAVEAT = "This is seen in the last layer on frozen features, not in the whole network."
_TOLD = {
    (True, True): (
        "The forget set moves the last layer further than ordinary samples do, and where gradients "
        "of clean samples hardly reach. A small budget on clean samples is unlikely to undo it; "
        "retraining is the safe answer."
    ),
    (True, False): (
        "The forget set moves the last layer further than ordinary samples do, but not surely in a "
        "direction that clean gradients lack. More budget may help."
    ),
    (False, True): (
        "The forget set does not surely move the last layer further than ordinary samples do, but "
        "where gradients of clean samples hardly reach. More budget on clean samples is unlikely "
        "to help; a method that uses the forget set might, and retraining does."
    ),
    (False, False): (
        "In the last layer the forget set cannot be told from ordinary samples, neither in "
        "distance nor in direction. Where methods fail, these figures do not say why: the cause "
        "may lie in earlier layers or in the budget, so a larger budget and other methods have to "
        "be tried."
    ),
    (True, None): (
        "The forget set moves the last layer further than ordinary samples do: a larger budget may "
        "be needed. In which direction was not measured."
    ),
    (False, None): (
        "The forget set does not surely move the last layer further than ordinary samples do. In "
        "which direction was not measured."
    ),
    (None, True): (
        "The forget set moves the last layer where gradients of clean samples hardly reach: more "
        "budget on clean samples is unlikely to help. How far was not measured."
    ),
    (None, False): (
        "Clean gradients reach the shift that the last layer needs about as well as that of "
        "ordinary samples. How far it has to move was not measured."
    ),
}
"""By whether H1 and H2 were found; None: not measured."""


def _holds(finding: Finding, *, above: bool) -> bool | None:
    """Say whether a hypothesis is found; None where it was not measured."""
    if finding.statistic is None or finding.p_value is None or finding.null is None:
        return None
    side = finding.statistic > finding.null if above else finding.statistic < finding.null
    return finding.p_value <= ALPHA and side
