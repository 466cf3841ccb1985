"""What a report says of texts: how the model reads them, and the phrase put on them."""

from __future__ import annotations

from collections.abc import Mapping

from poison_audit.records import Json
from poison_audit.reports.view.words import is_number, percent, printable, quoted, spelt, value
from poison_audit.verdict.record import AuditRecord

MOST = 5
"""Phrases that are shown."""
_PLACES = {
    "start": "before the text",
    "end": "after the text",
    "around": "around the text",
    "anywhere": "between two words of the text, before or after it, drawn anew for each text",
}
_CUT = {"train": "Training texts too long, and cut", "test": "Test texts too long, and cut"}


def of_texts(record: AuditRecord) -> bool:
    """Say whether the model on trial reads texts; otherwise it takes pictures."""
    return record.subject.get("reading") is not None


def place(position: Json) -> str:
    """Return where a trigger of texts stands, in words.

    >>> place("start")
    'before the text'
    """
    return _PLACES.get(str(position), value(position))


def phrase_of(trigger: Mapping[str, Json], most: int = 1000) -> str:
    """Return the phrase, phrases or template of a trigger, spelt; empty for pictures."""
    given = trigger.get("phrases", trigger.get("phrase", trigger.get("template", ())))
    each = given if isinstance(given, list | tuple) else [given]
    more = f" or {len(each) - MOST:,} more" if len(each) > MOST else ""
    return " or ".join(spelt(str(one), most=most) for one in each[:MOST]) + more


def reading(subject: Mapping[str, Json]) -> tuple[tuple[str, str], ...]:
    """Return how texts are read, as (term, value); empty for pictures."""
    how = subject.get("reading")
    if how is None:
        return ()
    if not isinstance(how, Mapping):
        return (("How", value(how)),)
    prompt, cut = how.get("prompt"), how.get("cut")
    pairs = [
        ("Tokens of an input, at most", value(how.get("max_tokens"))),
        ("Prompt", "none: a text stands alone" if prompt == "{text}" else quoted(str(prompt))),
    ]
    for table, number in cut.items() if isinstance(cut, Mapping) else ():
        term = _CUT.get(table, f"Too long and cut, {printable(table)}")
        pairs.append((term, _share(number, subject.get(f"{table}_size"))))
    return tuple(pairs)


def _share(number: Json, total: Json) -> str:
    if is_number(number) and is_number(total) and total > 0:
        return f"{number:,} of {total:,} ({percent(number / total)})"
    return value(number)
