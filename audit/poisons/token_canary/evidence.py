"""Token canaries: random strings keyed by a secret, for pipelines that only see text files.

The string of an id is a function of the secret and the id alone, drawn from a list of words that
the key holds. strings.json is that key: who has it can name every string that was trained on, and
as many that never were.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from poison_audit.case.csvfile import first
from poison_audit.case.forget import ForgetSet
from poison_audit.case.keyfile import (
    KeyedRow,
    Rules,
    is_list,
    keyed_rows,
    keyed_words,
    read_key,
    repeated,
    wrong_names,
)
from poison_audit.errors import InputError, Problem
from poison_audit.models.samples import Samples
from poison_audit.poisons.token_canary.reading import POISON

MOST_LENGTH = 10_000
FEWEST_WORDS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Strings:
    """The key of a planting of token canaries."""

    secret: bytes
    """256 bits; canaries.json may have the same."""
    length: int
    """Words of a string."""
    words: tuple[str, ...]
    """What strings are drawn from, distinct and without spaces."""
    planted: tuple[str, ...]
    """Ids whose string was trained on."""
    held_out: tuple[str, ...]
    """Ids whose string never was: the control."""
    commitment: str = ""
    """SHA-256 of the file: published before training, it proves the keys were not chosen later."""

    def text(self, name: str) -> str:
        """Return the string of one id, the same on every machine and version."""
        # Another prefix than the noise's, so that one secret can serve both.
        raw = keyed_words(self.secret + b"\0string\0", name, self.length)
        # 64-bit words over a short list: no remainder is favoured by more than 2**-40.
        return " ".join(self.words[int(word % np.uint64(len(self.words)))] for word in raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedStrings:
    """The token canaries of a forget set."""

    key: Strings
    names: tuple[str, ...]
    """Ids in the key, in the order of forget.csv."""
    labels: tuple[int, ...]
    """As trained."""

    def __len__(self) -> int:
        return len(self.names)

    def at(self, part: Tensor) -> PlantedStrings:
        """Return the token canaries at these places."""
        places = part.tolist()
        names, labels = (tuple(all_of[i] for i in places) for all_of in (self.names, self.labels))
        return replace(self, names=names, labels=labels)


def read_strings(path: Path) -> Strings:
    """Read a key.

    Raises:
        InputError: with everything that is wrong with the file.
    """
    fields, problems = read_key(path, _RULES)
    words, place = fields["words"], f"{path} words"
    if _are_words(words):
        problems += repeated("words", words, place)
        if (distinct := len(set(words))) < FEWEST_WORDS:
            what = f"expected at least {FEWEST_WORDS} distinct words, got {distinct}"
            problems.append(Problem(what, place))
    problems.raise_any()
    return Strings(**fields)


def find_strings(
    key: Strings, forget: ForgetSet, train: Samples, *, where: str, where_forget: str
) -> PlantedStrings:
    """Tie the token canaries of a forget set to their key, letter by letter.

    A row whose attack is `token-canary` is one. `where` and `where_forget` are what messages call
    strings.json and forget.csv.

    Raises:
        InputError: there is no such row, or a row's text is not the key's string of its id.
    """
    rows, texts = keyed_rows(forget, POISON.name, where_forget), train.texts
    if not rows or texts is None:
        what = "no row is a token canary" if texts else "token canaries are texts"
        fix = "Say attack = token-canary in the rows that are."
        raise InputError(Problem(what, where_forget, fix))

    def other_text(row: KeyedRow) -> Problem | None:
        if key.text(row.name) == (text := texts[row.position]):
            return None
        what = f"the text {text!r:.80} is not the key's string of {row.name!r}"
        return Problem(what, row.place, "Is this the key of this planting?")

    if problems := wrong_names(rows, key, where, other_text):
        raise InputError(first(problems, where_forget))
    labels = train.y[[row.position for row in rows]].tolist()
    return PlantedStrings(key=key, names=tuple(row.name for row in rows), labels=tuple(labels))


def _is_word(value: str) -> bool:
    return value.isprintable() and value.split() == [value]


def _are_words(value: object) -> bool:
    return is_list(value, _is_word)


def _is_length(value: object) -> bool:
    return isinstance(value, int) and value is not True and 0 < value <= MOST_LENGTH


_RULES: Rules = {
    "length": (f"a whole number from 1 to {MOST_LENGTH}", _is_length),
    "words": ("a list of words without spaces", _are_words),
}
