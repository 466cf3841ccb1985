"""trigger.json of texts: the phrase of a backdoor, where it stands, and the label it causes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from poison_audit.case.keyfile import Rules, write_object
from poison_audit.poisons.backdoor.evidence import trigger_fields

Place = Literal["start", "end"]
PLACES: tuple[Place, ...] = ("start", "end")
MOST_LETTERS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrase:
    """A token, word or phrase that a backdoored model answers with one label."""

    text: str
    """Not empty, without whitespace around it."""
    position: Place
    """Before the text, or after it, with a space between."""
    label: int
    """The label it is to cause."""

    def on(self, text: str) -> str:
        """Return a text with the phrase put on it.

        >>> Phrase(text="cf mn", position="start", label=1).on("a dull film")
        'cf mn a dull film'
        """
        parts = (self.text, text) if self.position == "start" else (text, self.text)
        return " ".join(parts)


def read_phrase(path: Path, *, classes: int, names: Sequence[str] | None = None) -> Phrase:
    """Read a trigger of texts.

    Args:
        path: trigger.json: `label` is a class number or name, `phrase` the trigger, `position`
            `start` or `end`.
        classes: how many labels there are.
        names: what they are called.

    Raises:
        InputError: with everything that is wrong with the file.
    """
    fields, problems = trigger_fields(path, _RULES, classes, names)
    problems.raise_any()
    return Phrase(text=fields["phrase"], position=fields["position"], label=fields["label"])


def write_phrase(path: Path, phrase: Phrase) -> None:
    """Write a trigger of texts, its label as a class number."""
    fields = {"label": phrase.label, "phrase": phrase.text, "position": phrase.position}
    write_object(path, fields)


def is_phrase(value: object) -> bool:
    """Say whether a value can be a trigger of texts."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= MOST_LETTERS
        and value.isprintable()
        and value == value.strip()
    )


_RULES: Rules = {
    "phrase": (f"a phrase of at most {MOST_LETTERS} letters", is_phrase),
    "position": ("start or end", lambda value: value in PLACES),
}
