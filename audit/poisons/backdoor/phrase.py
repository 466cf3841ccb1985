"""trigger.json of texts: the phrase of a backdoor, where it stands, and the label it causes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from poison_audit.errors import InputError, Problem
from poison_audit.poisons.backdoor.evidence import VERSION, trigger_fields, trigger_label

Place = Literal["start", "end"]
PLACES: tuple[Place, ...] = ("start", "end")
MOST_LETTERS = 1000
_KEYS = ("version", "label", "phrase", "position")


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
    where = str(path)
    fields, problems = trigger_fields(path, _KEYS)
    label = trigger_label(fields.get("label", 0), classes, names, where)
    problems += [label] if isinstance(label, Problem) else []
    phrase, position = fields.get("phrase", "x"), fields.get("position", "start")
    if not is_phrase(phrase):
        what = f"expected a phrase of at most {MOST_LETTERS} letters, got {phrase!r:.60}"
        problems.append(Problem(what, f"{where} phrase"))
    if position not in PLACES:
        what = f"expected start or end, got {position!r:.60}"
        problems.append(Problem(what, f"{where} position"))
    if problems or isinstance(label, Problem):
        raise InputError(problems)
    return Phrase(text=phrase, position=position, label=label)


def write_phrase(path: Path, phrase: Phrase) -> None:
    """Write a trigger of texts, its label as a class number."""
    fields = {
        "version": VERSION,
        "label": phrase.label,
        "phrase": phrase.text,
        "position": phrase.position,
    }
    path.write_text(json.dumps(fields, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def is_phrase(value: object) -> bool:
    """Say whether a value can be a trigger of texts."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= MOST_LETTERS
        and value.isprintable()
        and value == value.strip()
    )
