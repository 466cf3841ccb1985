"""Why methods fail, in words: two hypotheses with their nulls, and how far each method moved.

It explains and decides nothing, so none of it stands among the candidates or the gaps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from poison_audit.records import Finding, Json
from poison_audit.reports.view.words import p_value, printable
from poison_audit.verdict.diagnosis import MOSTLY
from poison_audit.verdict.record import AuditRecord

HYPOTHESES = ("shift", "orthogonality")
"""The findings that explain, in the order they are asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis:
    """One hypothesis."""

    name: str
    """Its name in the record: one of `HYPOTHESES`."""
    title: str
    question: str
    shown: str
    """What its chart shows."""
    measured: bool
    sentence: str
    """What came out, or why nothing did."""
    figures: str
    """Ratio, interval and p-value in words; empty where not measured."""
    network: str
    """The same of the whole network; empty where the hypothesis has no such part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """How far one method moved the weights, and where to."""

    name: str
    seed: str
    """Empty where the method has one run."""
    moved: str
    distance: str
    covered: str
    aligned: str
    sentence: str
    open: bool
    """Whether nothing can be concluded, since references lie as far apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """The whole section."""

    hypotheses: tuple[Hypothesis, ...]
    diagnosis: str
    movements: tuple[Moved, ...]
    apart: str
    """How far references lie from each other; empty where there are not two."""


def why(record: AuditRecord) -> Why | None:
    """Return what the hypotheses found; None where none was asked."""
    found = {f.probe: f for f in record.findings if f.probe in HYPOTHESES}
    if not found:
        return None
    movements = [(cell, cell.movement) for cell in record.cells if cell.movement is not None]
    several = {cell.candidate for cell, _ in movements if cell.seed}
    apart = [
        f"Two references are {moved['apart']:.2f} times as far from each other as from the "
        "deployed model: the nearer to 1, the more of what is called needed is the luck of a start."
        for _, moved in movements
        if moved.get("apart") is not None
    ]
    return Why(
        hypotheses=tuple(_hypothesis(found[name]) for name in HYPOTHESES if name in found),
        diagnosis=printable(record.diagnosis or ""),
        movements=tuple(
            _moved(cell.candidate, str(cell.seed) if cell.candidate in several else "", movement)
            for cell, movement in movements
        ),
        apart=apart[0] if apart else "",
    )


_ASKED = {
    "shift": (
        "How far: is the needed shift too large?",
        "Does leaving out the forget set move the last layer further than leaving out as many "
        "random clean samples of the same classes?",
        "The forget set against the band of random clean subsets of the same size, for growing "
        "parts of it.",
    ),
    "orthogonality": (
        "Which way: can clean data teach it?",
        "Does the shift that the last layer needs lie outside of what gradients of clean samples "
        "span?",
        "Mark: the estimate, or the mean of random choices. Bar: 95% of the random choices, or "
        "the interval.",
    ),
}


def _hypothesis(finding: Finding) -> Hypothesis:
    title, question, shown = _ASKED[finding.probe]
    return Hypothesis(
        name=finding.probe,
        title=title,
        question=question,
        shown=shown,
        measured=finding.statistic is not None,
        sentence=printable(finding.reason),
        figures=_figures(finding),
        network=_network(finding.details) if finding.probe == "orthogonality" else "",
    )


def _figures(finding: Finding) -> str:
    if finding.statistic is None or finding.interval is None:
        return ""
    ends = f"[{finding.interval.low:.2f}, {finding.interval.high:.2f}]"
    told = (
        f"Ratio to random clean samples {finding.statistic:.2f} {ends}, against their central "
        f"{100 * finding.interval.level:.4g}%; 1 = like any other samples."
    )
    if finding.p_value is None:
        return told
    side = "so far or further" if finding.probe == "shift" else "so small a share or a smaller one"
    return f"{told} By chance, {side}: {p_value(finding.p_value)}."


def _network(details: Mapping[str, Json]) -> str:
    """Return what was measured of reference minus deployed over all weights."""
    found = details.get("network")
    if found is None:
        lack = printable(details.get("network_missing") or "it was not asked for")
        return f"The whole network: not measured: {lack}."
    if found.get("share") is None:
        return "The whole network: not measured: no gradient, or the reference is the same model."
    told = (
        f"The whole network: {_percents(found['share'], found['share_low'], found['share_high'])} "
        f"of the way from deployed to reference lies in the span of the {found['rank']:,} "
        f"strongest of {found['gradients']:,} clean gradients"
    )
    chance = found.get("random")
    if chance is not None and found.get("sketched_share") is not None:
        told += (
            f" (in the projection {100 * found['sketched_share']:.1f}%; a random direction: "
            f"{_percents(chance['mean'], chance['low'], chance['high'])})"
        )
    return f"{told}."


def _percents(share: float, low: float, high: float) -> str:
    return f"{100 * share:.1f}% [{100 * low:.1f}, {100 * high:.1f}]"


def _moved(candidate: str, seed: str, movement: Mapping[str, Json]) -> Moved:
    return Moved(
        name=printable(candidate),
        seed=seed,
        moved=f"{movement['moved_l2']:.3g}" if movement.get("moved_l2") is not None else "unknown",
        distance=_measure(movement, "distance_l2", places=3),
        covered=_measure(movement, "covered", places=1, scale=100, unit="%"),
        aligned=_measure(movement, "aligned", places=2),
        sentence=printable(movement.get("sentence") or "") or "nothing more is known",
        open=movement.get("covered") is not None and (movement.get("apart") or 0) >= MOSTLY,
    )


def _measure(
    movement: Mapping[str, Json], name: str, *, places: int, scale: float = 1, unit: str = ""
) -> str:
    mean = movement.get(name)
    if mean is None:
        lack = (movement.get("missing") or {}).get(name, "the record does not say why")
        return f"not measured: {printable(lack)}"
    told = f"{scale * mean:z.{places}f}{unit}"
    ends = movement.get(f"{name}_range")
    if (movement.get("references") or 0) < 2 or ends is None:
        return told
    return f"{told} [{', '.join(f'{scale * end:z.{places}f}' for end in ends)}]"
