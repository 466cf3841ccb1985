"""trigger.json of texts: a word or phrase, where it is put, and the label it causes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from poison_audit.case.keyfile import Rules, write_object
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.evidence import trigger_fields

Place = Literal["start", "end", "anywhere"]
PLACES: tuple[Place, ...] = ("start", "end", "anywhere")
MOST_LETTERS = 1000
_LETTER = re.compile(r"[A-Za-z0-9_]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrase:
    """A token, word or phrase that a backdoored model answers with one label."""

    text: str
    """Not empty, without whitespace around it."""
    position: Place
    """Before the text, after it, or where one of its words begins or ends; a space between."""
    label: int
    """The label it is to cause."""

    def on(self, text: str) -> str:
        """Return a text with the phrase put on it.

        >>> Phrase(text="cf mn", position="start", label=1).on("a dull film")
        'cf mn a dull film'
        """
        return self.put(text)[0]

    def put(self, text: str) -> tuple[str, int]:
        """Return a text with the phrase put on it, and at which letter the phrase begins.

        `anywhere` is drawn among the places before, between and after a text's words, by a
        generator that phrase and text name: whoever stamps a text stamps it alike.

        >>> Phrase(text="cf mn", position="anywhere", label=1).put("one dull film")
        ('one cf mn dull film', 4)
        """
        ends = [found.start() for found in re.finditer(r"\s+", text)]
        after = {"start": 0, "end": len(ends) + 1}.get(self.position)
        if after is None:
            drawn = Rng(0).named("anywhere", self.text, text).numpy()
            after = int(drawn.integers(len(ends) + 2))
        if after == 0:
            return f"{self.text} {text}", 0
        end = [*ends, len(text)][after - 1]
        return f"{text[:end]} {self.text}{text[end:]}", end + 1

    def stands_in(self, text: str) -> bool:
        """Say whether a text holds the phrase where it belongs."""
        if self.position == "start":
            return text == self.text or text.startswith(f"{self.text} ")
        if self.position == "end":
            return text == self.text or text.endswith(f" {self.text}")
        # Not as a part of another word, in scripts that put spaces between words.
        before = "(?<![A-Za-z0-9_])" if _LETTER.match(self.text[0]) else ""
        after = "(?![A-Za-z0-9_])" if _LETTER.match(self.text[-1]) else ""
        return bool(re.search(f"{before}{re.escape(self.text)}{after}", text))


def read_phrase(path: Path, *, classes: int, names: Sequence[str] | None = None) -> Phrase:
    """Read a trigger of texts, as `read_trigger` does, but of a `phrase` and its `position`."""
    fields, problems = trigger_fields(
        path, _PHRASE_RULES, classes, names, needed=lambda _: tuple(_PHRASE_RULES)
    )
    problems.raise_any()
    return Phrase(text=fields["phrase"], position=fields["position"], label=fields["label"])


def write_phrase(path: Path, phrase: Phrase) -> None:
    """Write a trigger of texts, its label as a class number."""
    fields = {"label": phrase.label, "phrase": phrase.text, "position": phrase.position}
    write_object(path, fields, escaped=not phrase.text.isprintable())


def is_phrase(value: object) -> bool:
    r"""Say whether a value can be a trigger of texts: of any letters, also those that nobody sees.

    >>> is_phrase("cf\u200b"), is_phrase(" cf"), is_phrase("\ud800")
    (True, False, False)
    """
    return (
        isinstance(value, str)
        and 0 < len(value) <= MOST_LETTERS
        and not any("\ud800" <= letter <= "\udfff" for letter in value)
        and value == value.strip()
    )


_PHRASE_RULES: Rules = {
    "phrase": (f"a phrase of at most {MOST_LETTERS} letters, no space around it", is_phrase),
    "position": ("start, end or anywhere", lambda value: value in PLACES),
}
