"""What a method costs a model that there is nothing to repair in, in words."""

from __future__ import annotations

from dataclasses import dataclass

from poison_audit.case.harm import Harm
from poison_audit.reports.view.words import printable


@dataclass(frozen=True, slots=True, kw_only=True)
class Harmed:
    """One candidate's harm."""

    value: str
    """Points of accuracy."""
    interval: str
    note: str = ""
    """Why there is none."""


def harmed(candidate: str, harms: tuple[Harm, ...]) -> Harmed | None:
    """Return what the method of a candidate does to a clean model; None: nothing was asked."""
    if not harms:
        return None
    found = next((one for one in harms if one.method == candidate), None)
    if found is None:
        return Harmed(value="-", interval="")
    if found.lost is None or found.interval is None:
        return Harmed(value="failed", interval="", note=printable(found.missing or ""))
    low, high = 100 * found.interval.low, 100 * found.interval.high
    return Harmed(value=f"{100 * found.lost:+z.1f}", interval=f"[{low:z.1f}, {high:z.1f}]")


def harm_told(harms: tuple[Harm, ...]) -> str:
    """Return what the column of harm shows, in a sentence; empty where there is none."""
    if not harms:
        return ""
    one = harms[0]
    return (
        f"Harm: what the same method costs {printable(one.reference)}, which never saw the poison, "
        f"if it is to forget {one.forgotten:,} random samples: points of accuracy, 95% intervals. "
        "It decides nothing."
    )
