"""The report as GitHub's Markdown, for a pull request or a job's summary; always below 50 KB.

Everything that came from a user's files is written with backslashes before whatever Markdown could
read in it, and with breaks of no width in what GitHub would link: addresses, @names, #numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from poison_audit.records import WORST_FIRST
from poison_audit.reports.view.accepted import accepted
from poison_audit.reports.view.answer import answer, how_sure
from poison_audit.reports.view.own import OWN_TITLE
from poison_audit.reports.view.rows import Row
from poison_audit.reports.view.view import View, view
from poison_audit.verdict.record import AuditRecord

MOST_BYTES = 50_000
_LONGEST = 300
"""Letters of one piece of text; names are cut to fewer."""
_NAME = 60
_ROWS = 40
_LINES = 12


def render_markdown(record: AuditRecord) -> str:
    """Return the report as Markdown."""
    seen = view(record)
    parts = [
        f"## {_safe(answer(record))}",
        f"`{_code(seen.exit_line)}`",
        f"**Tested:** {_safe(seen.judged)}: {_safe(seen.tested)}."
        + f" **Not tested:** {_safe(seen.untested)}." * bool(seen.untested),
        f"**How sure:** {_safe(how_sure(record))}",
        f"**What to do:** {_safe(seen.next_step)}",
        f"Model: {_safe(seen.model, most=_NAME)}. Accuracy as loaded: {_safe(seen.sanity)} "
        f"Gate: {_safe(seen.gate, most=_NAME)}.",
        *_table(seen),
        *_accepted(record),
        *_list(OWN_TITLE, (f"**{_safe(own.name, most=_NAME)}** {_safe(line)}"
                           for own in seen.own for line in own.lines)),
        *_list("Not decided", (f"**{_safe(g.title)}** ({_safe(g.who, most=_NAME)}): "
                               f"{_safe(g.reason)} {_safe(g.remedy)}" for g in seen.gaps)),
        *_list("What this does not show", map(_safe, seen.limits)),
        *_identity(record),
        f"<sub>{_safe(seen.tool)}. Every figure can be computed again: "
        "`poison-audit verify report.json`.</sub>",
    ]  # fmt: skip
    text = "\n\n".join(part for part in parts if part) + "\n"
    if len(text.encode("utf-8")) <= MOST_BYTES:
        return text
    # Only names of absurd lengths, in great numbers, come here.
    kept = [*parts[:6], "The tables are left out: they would be too long. See report.html."]
    return "\n\n".join(kept) + "\n"


def _table(seen: View) -> list[str]:
    if not seen.rows:
        return ["No candidate was measured."]
    order = [outcome.value for outcome in WORST_FIRST]
    rows = sorted(seen.rows, key=lambda row: order.index(row.outcome))
    titles = ["Candidate", "Verdict", *(_safe(probe.title) for probe in seen.probes)]
    lines = [_row(titles), _row(["---"] * len(titles))]
    lines += [_row(_cells(row)) for row in rows[:_ROWS]]
    told = ["\n".join(lines)]
    if len(rows) > _ROWS:
        told.append(f"{len(rows) - _ROWS} more candidates: see report.html.")
    return told


def _cells(row: Row) -> Sequence[str]:
    figures = [_safe(f"{figure.text} {figure.note}".rstrip(), most=80) for figure in row.figures]
    return [_safe(f"{row.name} ({row.kind})", most=_NAME), f"**{row.outcome}**", *figures]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _accepted(record: AuditRecord) -> list[str]:
    return _list(
        "Accepted risks",
        (
            f"{_safe(each.what, most=_NAME * 2)}: **{_safe(each.state)}**. Until "
            f"{_safe(each.expires, most=20)}, by {_safe(each.owner, most=_NAME)}: "
            f"{_safe(each.reason)}"
            for each in accepted(record)
        ),
    )


def _list(title: str, lines: Iterable[str]) -> list[str]:
    every = list(lines)
    if not every:
        return []
    shown = [f"- {line}" for line in every[:_LINES]]
    if len(every) > _LINES:
        shown.append(f"- {len(every) - _LINES} more: see report.html.")
    return [f"### {title}", "\n".join(shown)]


def _identity(record: AuditRecord) -> list[str]:
    subject = record.subject
    pairs = [
        ("Model", subject.get("model_sha256")),
        ("Forget table", subject.get("forget_sha256")),
        ("Test samples", subject.get("test_sha256")),
        ("Comparability", record.comparability),
    ]
    told = [f"| {name} | `{_code(str(digest))[:64]}` |" for name, digest in pairs if digest]
    return ["\n".join(["| SHA-256 | |", "| --- | --- |", *told])] if told else []


_SPECIAL = re.compile(r"[\\`*_{}\[\]()<>#!|~&@$]")
_BREAK = "\u200b"
"""A space of no width, where GitHub would make a link of what is no Markdown."""
_LINKED = (
    (re.compile(r"(?i)\b(www)\."), r"\1" + _BREAK + "."),
    (re.compile(r"://"), ":" + _BREAK + "//"),
    (re.compile(r"@"), "@" + _BREAK),
    (re.compile(r"#(?=\d)"), "#" + _BREAK),
    (re.compile(r"(?i)\b(gh)-(?=\d)"), r"\1-" + _BREAK),
    (re.compile(r":(?=[\w+-]+:)"), ":" + _BREAK),
)


def _safe(text: str, most: int = _LONGEST) -> str:
    """Return text that Markdown shows as it is, and GitHub links nowhere; cut where it is long."""
    cut = text if len(text) <= most else f"{text[: most - 1]}\u2026"
    for pattern, instead in _LINKED:
        cut = pattern.sub(instead, cut)
    return _SPECIAL.sub(lambda match: f"\\{match[0]}", cut.replace("\n", " "))


def _code(text: str) -> str:
    """Return text for a code span of one backtick."""
    cut = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}\u2026"
    return cut.replace("`", "'").replace("|", "\u00a6").replace("\n", " ")
