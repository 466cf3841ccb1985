"""The report on a terminal: a table, the verdict, what to do, and the exit code on the last line.

Everything is printed as `rich.text.Text`, which no markup, emoji code or highlighter can reach.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from poison_audit.reports.view.own import OWN_TITLE
from poison_audit.reports.view.rehearsed import Rehearsed
from poison_audit.reports.view.rows import Row
from poison_audit.reports.view.view import view
from poison_audit.reports.view.why import Why
from poison_audit.statistics.reading import Words
from poison_audit.verdict.record import AuditRecord

WIDE = 128
"""Columns from which the figures that decide nothing are shown too."""

_STYLES = {
    "good": "bold green",
    "bad": "bold red",
    "worse": "bold reverse red",
    "unsure": "bold yellow",
    "plain": "",
}

_MOST = 3
"""Probes that a narrow terminal has room for, measured or not."""
_MOST_WIDE = 5
"""Probes that a wide one has room for with all their figures."""

_NAME = 12
"""Letters of a name that are never broken where there is room."""
_SHORT_NAME = 10
"""Letters of a name that are never broken where there is little."""

_LONGEST_WORD = 12
"""Letters of a title's word that a narrow terminal need not break."""

_Say = Callable[..., Text]


def render_terminal(record: AuditRecord, *, console: Console) -> None:
    """Print the report; the last line is `exit N: OUTCOME. Reason`, unwrapped.

    The console's width decides how many columns the table has; without a terminal rich leaves out
    the colours and takes 80 columns.
    """
    seen = view(record)

    def say(words: str, style: str = "") -> Text:
        # A pipe may not be UTF-8: what it cannot take is written out, instead of failing.
        encoding = console.encoding
        return Text(words.encode(encoding, "backslashreplace").decode(encoding), style)

    console.print(say(f"{seen.tool}: {seen.model}", "bold"), overflow="fold")
    console.print(say(f"Accuracy as loaded: {seen.sanity}"))
    if seen.settings:
        console.print(say(f"{seen.settings[0].upper()}{seen.settings[1:]}."))
    console.print()
    wide = console.width >= WIDE
    if seen.rows:
        console.print(_table(seen.rows, seen.probes, say, console=console))
        if seen.harm:
            console.print(say(seen.harm))
        if not wide:
            hint = "Membership, budgets and times are in report.html, or in a terminal of"
            console.print(say(f"{hint} {WIDE} columns.", "dim"))
        console.print()
    console.print(say(f"{seen.answer}.", _STYLES[seen.tone]))
    head = say(f"{seen.outcome}. ", _STYLES[seen.tone])
    console.print(head.append_text(say(seen.sentence)))
    console.print(say("Tested: ", "bold").append_text(say(f"{seen.judged}: {seen.tested}.")))
    if seen.untested:
        console.print(say("Not tested: ", "bold").append_text(say(f"{seen.untested}.")))
    console.print(say("How sure: ", "bold").append_text(say(seen.how_sure)))
    for sentence in (*seen.doubts, *seen.found):
        console.print(say(sentence, "bold yellow"))
    console.print(say("Next: ", "bold").append_text(say(seen.next_step)))
    if seen.why:
        _print_why(console, say, seen.why)
    if seen.rehearsed:
        _print_rehearsal(console, say, seen.rehearsed)
    risks = [f"{r.what}: {r.state}. Until {r.expires}, by {r.owner}: {r.reason}"
             for r in seen.accepted]  # fmt: skip
    _list(console, say, "Accepted risks", risks)
    for own in seen.own:
        lines = (own.asks, f"States as its null: {own.null}", *own.lines)
        _list(console, say, f"{OWN_TITLE}: {own.name}", lines)
    gaps = [f"{gap.title} ({gap.who}): {gap.reason}" for gap in seen.gaps]
    _list(console, say, "Not decided", gaps)
    _list(console, say, "What this does not show", seen.limits)
    console.print()
    console.print(say(seen.exit_line, _STYLES[seen.tone]), soft_wrap=True)


def _print_why(console: Console, say: _Say, why: Why) -> None:
    told = [f"{asked.title} {asked.sentence}" for asked in why.hypotheses]
    _list(console, say, "Why (explains, decides nothing)", [*filter(None, [why.diagnosis]), *told])
    moves = [m for m in why.movements if not m.open]
    told = [f"{m.name}{', seed ' * bool(m.seed)}{m.seed}: {m.sentence}" for m in moves]
    if open_ := ", ".join(dict.fromkeys(m.name for m in why.movements if m.open)):
        told.append(f"{open_}: no conclusion, the needed shift is mostly the luck of a start.")
    _list(console, say, "Where methods moved the weights", told)


def _print_rehearsal(console: Console, say: _Say, seen: Rehearsed) -> None:
    console.print()
    console.print(say(f"{seen.label}.", "bold yellow"))
    console.print(say(seen.sentence))
    console.print(say(seen.held, _STYLES[seen.tone]))
    console.print(_table(seen.rows, seen.probes, say, console=console))
    console.print(say(f"End of the rehearsal. {seen.label}.", "dim"))


def _table(rows: Sequence[Row], probes: Sequence[Words], say: _Say, *, console: Console) -> Table:
    """The first layout that fits: roomy, then short titles, then verdicts under names."""
    tables = [_laid_out(rows, probes, say, width=console.width, tight=tight) for tight in range(3)]
    unbounded = console.options.update(width=10 * WIDE)
    needed = [console.measure(table, options=unbounded).maximum for table in tables]
    return next((t for t, n in zip(tables, needed, strict=True) if n <= console.width), tables[-1])


def _laid_out(
    rows: Sequence[Row], probes: Sequence[Words], say: _Say, *, width: int, tight: int
) -> Table:
    wide, stacked = width >= WIDE, tight > 1
    shown = [place for place, probe in enumerate(probes) if wide or not probe.minor]
    if not wide and len(shown) > _MOST:
        # What no candidate was measured by stands under "Not decided".
        shown = [at for at in shown if any(row.figures[at].interval for row in rows)]
    padding = (0, 1 if tight else 2, 0, 0)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=padding)
    longest = _SHORT_NAME if tight else _NAME
    table.add_column(say("candidate"), overflow="fold", min_width=longest)
    if not stacked:
        table.add_column(say("verdict"), no_wrap=True)
    for place in shown:
        words = probes[place]
        long = tight or max(map(len, words.title.split()), default=0) > _LONGEST_WORD
        title = words.column if long and not wide and words.column else words.title.lower()
        table.add_column(say(title), overflow="fold")
    if any(row.harm for row in rows):
        table.add_column(say("harm"), overflow="fold")
    if wide:
        table.add_column(say("spent / allowed"), overflow="fold")
        table.add_column(say("time"), overflow="fold")
    for row in rows:
        # Where a name has to be broken, it is between its words.
        told = row.name if wide or len(row.name) <= longest else row.name.replace("_", "_\n")
        name = say(told).append_text(say(f"\n{row.kind}", "dim"))
        outcome = say(row.outcome, _STYLES[row.tone])
        first = [name.append("\n").append_text(outcome)] if stacked else [name, outcome]
        table.add_row(*first, *_figures(row, shown, say, wide=wide, tight=tight))
    return table


def _figures(row: Row, shown: Sequence[int], say: _Say, *, wide: bool, tight: int) -> list[Text]:
    room = not tight and len(shown) <= (_MOST_WIDE if wide else _MOST)
    comma = ", " if wide or room else ",\n"
    cells = []
    for place in shown:
        figure = row.figures[place]
        z = f", {figure.z}" if figure.z and room else ""
        interval = figure.interval.replace(", ", comma)
        cells.append(say(f"{figure.value}{z}\n{interval}".rstrip("\n")))
    if row.harm:
        ends = row.harm.interval if wide else row.harm.interval.replace(", ", ",\n")
        cells.append(say(f"{row.harm.value}\n{ends}".rstrip("\n")))
    return [*cells, say(row.budget), say(row.time)] if wide else cells


def _list(console: Console, say: _Say, title: str, lines: Iterable[str]) -> None:
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column()
    grid.add_column(overflow="fold")
    for line in lines:
        grid.add_row(say("-"), say(line))
    if grid.row_count:
        console.print()
        console.print(say(f"{title}:", "bold"))
        console.print(grid)
