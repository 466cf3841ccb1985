"""Reports of one model over time, on a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from poison_audit.reports.view.history import History
from poison_audit.reports.view.words import about


def render_history_text(history: History, console: Console) -> None:
    """Print a table a group, and what stands apart."""

    def say(words: str, style: str = "") -> Text:
        encoding = console.encoding
        return Text(words.encode(encoding, "backslashreplace").decode(encoding), style)

    for group in history.groups:
        head = f"{len(group.entries)} reports that can be compared ({group.hash[:12]})"
        console.print(say(head, "bold"))
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
        for title in ("began", "weights", "verdict"):
            table.add_column(say(title), no_wrap=True)
        for probe in group.probes:
            words = about(probe)
            table.add_column(say(words.column or words.title.lower()), overflow="fold")
        for entry in group.entries:
            told = (entry.when, entry.digest, entry.outcome, *entry.figures)
            table.add_row(*map(say, told))
        console.print(table)
        console.print()
    if history.apart:
        console.print(say("Apart:", "bold"))
        for file, why in history.apart:
            console.print(say(f"- {file}: {why}."))
