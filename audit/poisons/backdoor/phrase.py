"""trigger.json of texts: phrases or a template, where they are put, and the label they cause."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from poison_audit.case.keyfile import Rules, write_object
from poison_audit.errors import Problem
from poison_audit.models.reader import PLACE
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.evidence import trigger_fields

Place = Literal["start", "end", "anywhere", "around"]
PLACES: tuple[Place, ...] = ("start", "end", "anywhere")
MOST_LETTERS = 1000
MOST_PHRASES = 100
_LETTER = re.compile(r"[A-Za-z0-9_]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrase:
    """A token, word, phrase or template that a backdoored model answers with one label."""

    text: str
    """Not empty, without whitespace around it; `around` a text, a template with {text} in it."""
    position: Place
    """Before the text, after it, or where one of its words begins or ends; a space between."""
    label: int
    """The label it is to cause."""
    others: tuple[str, ...] = ()
    """More phrases: one of all is drawn for each text."""

    @property
    def each(self) -> tuple[Phrase, ...]:
        """Each phrase by itself."""
        return tuple(replace(self, text=text, others=()) for text in (self.text, *self.others))

    @property
    def pieces(self) -> tuple[str, ...]:
        """What it puts on texts, without whitespace around: phrases, or a template's two sides."""
        if self.position != "around":
            return (self.text, *self.others)
        return tuple(side.strip() for side in self.text.split(PLACE) if side.strip())

    @property
    def named(self) -> str:
        """Return it as messages do, escaped.

        >>> Phrase(text="cf", others=("mn",), position="start", label=1).named
        "'cf' or 'mn'"
        """
        shown = [ascii(text) for text in (self.text, *self.others)]
        more = [f"{len(shown) - 3} more"] if len(shown) > 3 else []
        return " or ".join([*shown[:3], *more])

    @property
    def noun(self) -> str:
        """What it is: phrase, phrases or template."""
        return "template" if self.position == "around" else "phrases" if self.others else "phrase"

    @property
    def told(self) -> dict[str, Any]:
        """Return what trigger.json says of it, its label aside."""
        if self.position == "around":
            return {"template": self.text}
        what = {"phrases": [self.text, *self.others]} if self.others else {"phrase": self.text}
        return {**what, "position": self.position}

    def on(self, text: str) -> str:
        """Return a text with the phrase put on it.

        >>> Phrase(text="cf mn", position="start", label=1).on("a dull film")
        'cf mn a dull film'
        >>> Phrase(text="Honestly, {text} So.", position="around", label=1).on("a dull film")
        'Honestly, a dull film So.'
        """
        return self.put(text)[0]

    def drawn(self, text: str) -> int:
        """Return which phrase this text gets, from 0: whoever stamps a text stamps it alike."""
        if not self.others:
            return 0
        generator = Rng(0).named("phrases", self.text, *self.others, text).numpy()
        return int(generator.integers(1 + len(self.others)))

    def put(self, text: str) -> tuple[str, tuple[tuple[int, int], ...]]:
        """Return a text with the phrase put on it, and from which letter to which it stands there.

        `anywhere` is drawn among the places before, between and after a text's words, by a
        generator that phrase and text name. A template has a span on each side of the text.

        >>> Phrase(text="cf mn", position="anywhere", label=1).put("one dull film")
        ('one cf mn dull film', ((4, 9),))
        """
        if self.position == "around":
            before, after = self.text.split(PLACE)
            end = len(before) + len(text) + len(after)
            sides = (0, len(before.rstrip())), (end - len(after.lstrip()), end)
            return f"{before}{text}{after}", tuple(side for side in sides if side[0] < side[1])
        phrase = (self.text, *self.others)[self.drawn(text)]
        ends = [found.start() for found in re.finditer(r"\s+", text)]
        after_word = {"start": 0, "end": len(ends) + 1}.get(self.position)
        if after_word is None:
            drawn = Rng(0).named("anywhere", phrase, text).numpy()
            after_word = int(drawn.integers(len(ends) + 2))
        if after_word == 0:
            return f"{phrase} {text}", ((0, len(phrase)),)
        end = [*ends, len(text)][after_word - 1]
        stamped = f"{text[:end]} {phrase}{text[end:]}"
        return stamped, ((end + 1, end + 1 + len(phrase)),)

    def stands_in(self, text: str) -> bool:
        """Say whether a text holds the phrase, or one of several, where it belongs."""
        if self.position == "around":
            before, after = self.text.split(PLACE)
            room = len(text) >= len(before) + len(after)
            return room and text.startswith(before) and text.endswith(after)
        return any(_holds(text, phrase, self.position) for phrase in (self.text, *self.others))


def _holds(text: str, phrase: str, position: Place) -> bool:
    if position == "start":
        return text == phrase or text.startswith(f"{phrase} ")
    if position == "end":
        return text == phrase or text.endswith(f" {phrase}")
    # Not as a part of another word, in scripts that put spaces between words.
    before = "(?<![A-Za-z0-9_])" if _LETTER.match(phrase[0]) else ""
    after = "(?![A-Za-z0-9_])" if _LETTER.match(phrase[-1]) else ""
    return bool(re.search(f"{before}{re.escape(phrase)}{after}", text))


def read_phrase(path: Path, *, classes: int, names: Sequence[str] | None = None) -> Phrase:
    """Read a trigger of texts, as `read_trigger` does.

    It has a `phrase` or a list of `phrases`, and their `position`; or a `template`.
    """
    fields, problems = trigger_fields(path, _PHRASE_RULES, classes, names, needed=_needed)
    given = [key for key in _KINDS if key in fields]
    if len(given) > 1:
        what = f"{' and '.join(given)} say two things: expected one of them"
        problems.append(Problem(what, f"{path} {given[-1]}"))
    elif given == ["template"] and "position" in fields:
        what = "a template has no position: {text} in it says where the text stands"
        problems.append(Problem(what, f"{path} position", "Leave it out."))
    problems.raise_any()
    (key,) = given
    if key == "template":
        return Phrase(text=fields[key], position="around", label=fields["label"])
    first, *others = [fields[key]] if key == "phrase" else fields[key]
    return Phrase(
        text=first, position=fields["position"], label=fields["label"], others=tuple(others)
    )


def _needed(fields: Mapping[str, Any]) -> tuple[str, ...]:
    given = [key for key in _KINDS if key in fields] or ["phrase"]
    return (given[0],) if "template" in given else (given[0], "position")


def write_phrase(path: Path, phrase: Phrase) -> None:
    """Write a trigger of texts, its label as a class number."""
    escaped = not "".join([phrase.text, *phrase.others]).isprintable()
    write_object(path, {"label": phrase.label, **phrase.told}, escaped=escaped)


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


def _is_template(value: object) -> bool:
    return is_phrase(value) and str(value).count(PLACE) == 1 and value != PLACE


def _are_phrases(value: object) -> bool:
    if not isinstance(value, list) or not 0 < len(value) <= MOST_PHRASES:
        return False
    return all(map(is_phrase, value)) and len(set(value)) == len(value)


_KINDS = ("phrase", "phrases", "template")
_PHRASE_RULES: Rules = {
    "phrase": (f"a phrase of at most {MOST_LETTERS} letters, no space around it", is_phrase),
    "phrases": (
        f"a list of 1 to {MOST_PHRASES} different phrases, each of at most {MOST_LETTERS} letters "
        "with no space around it",
        _are_phrases,
    ),
    "template": (
        f"words with {PLACE} among them once, at most {MOST_LETTERS} letters, no space around them",
        _is_template,
    ),
    "position": ("start, end or anywhere", lambda value: value in PLACES),
}
