"""What two audits differ in, on a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from poison_audit.records import Finding
from poison_audit.reports.view.figure import figure
from poison_audit.reports.view.words import about, printable
from poison_audit.verdict.compare import Change, Comparison

_STYLES = {
    "better": "bold green",
    "same": "",
    "worse": "bold red",
    "undecided": "bold yellow",
    "new": "",
    "gone": "bold yellow",
}
_WORDS = {0: "NO WORSE", 1: "WORSE", 3: "NO LONGER MEASURED"}


def render_difference(comparison: Comparison, console: Console) -> None:
    """Print what changed, the findings that got worse first; the last line is the exit code's."""

    def say(words: str, style: str = "") -> Text:
        encoding = console.encoding
        return Text(printable(words).encode(encoding, "backslashreplace").decode(encoding), style)

    order = ["worse", "gone", "undecided", "better", "new", "same"]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    for title in ("candidate", "probe", "before", "after", "change"):
        table.add_column(say(title), overflow="fold")
    for change in sorted(comparison.changes, key=lambda c: order.index(c.direction)):
        names = map(say, (_who(change), about(change.probe).title))
        sides = (Text("\n").join(map(say, _shown(each))) for each in (change.before, change.after))
        table.add_row(*names, *sides, say(change.direction, _STYLES[change.direction]))
    console.print(table)
    if comparison.apart:
        apart = ", ".join(comparison.apart)
        console.print(say(f"Only one audit has, and nothing is compared of: {apart}."))
        console.print()
    reasons = [
        f"- {_who(change)}, {about(change.probe).title.lower()}: {change.reason}"
        for change in comparison.changes
        if change.direction in ("worse", "gone")
    ]
    for line in reasons:
        console.print(say(line))
    if reasons:
        console.print()
    console.print(say(comparison.sentence))
    console.print()
    last = f"exit {comparison.exit_code}: {_WORDS[comparison.exit_code]}. {comparison.sentence}"
    console.print(say(last, "bold"), soft_wrap=True)


def _who(change: Change) -> str:
    seed = f"seed {change.seed}" if change.seed else ""
    return ", ".join(part for part in (change.candidate, seed, change.way) if part)


def _shown(finding: Finding | None) -> tuple[str, ...]:
    """Return the lines that a finding is shown in."""
    if finding is None:
        return ("absent",)
    shown = figure(finding)
    return (shown.outcome, shown.text) if shown.interval else (shown.outcome,)
