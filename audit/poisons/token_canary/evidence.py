"""Token canaries: random strings keyed by a secret, for pipelines that only see text files.

The string of an id is a function of the secret and the id alone, drawn from a list of words that
the key holds. strings.json is that key: who has it can name every string that was trained on, and
as many that never were.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from poison_audit.case.csvfile import first
from poison_audit.case.forget import ForgetSet
from poison_audit.case.keyfile import (
    read_object,
    wrong_ids,
    wrong_keys,
    wrong_name,
    wrong_secret,
)
from poison_audit.errors import InputError, Problem
from poison_audit.models.samples import Samples
from poison_audit.poisons.token_canary.reading import POISON

VERSION = 1
MOST_LENGTH = 10_000
FEWEST_WORDS = 16
_KEYS = ("version", "secret", "length", "words", "planted", "held_out")


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
        digest = hashlib.sha256(self.secret + b"\0string\0" + name.encode()).digest()
        generator = np.random.Philox(
            key=int.from_bytes(digest[:16], "little"), counter=int.from_bytes(digest[16:], "little")
        )
        raw = generator.random_raw(self.length)
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


def write_strings(path: Path, strings: Strings) -> str:
    """Write the key to `path` and return its commitment."""
    fields = {
        "version": VERSION,
        "secret": strings.secret.hex(),
        "length": strings.length,
        "words": list(strings.words),
        "planted": list(strings.planted),
        "held_out": list(strings.held_out),
    }
    text = json.dumps(fields, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


def read_strings(path: Path) -> Strings:
    """Read a key.

    Raises:
        InputError: with everything that is wrong with the file.
    """
    fields, digest = read_object(path)
    problems = wrong_keys(fields, _KEYS, str(path)) or _wrong_values(fields, str(path))
    if problems:
        raise InputError(problems)
    return Strings(
        secret=bytes.fromhex(fields["secret"]),
        length=fields["length"],
        words=tuple(fields["words"]),
        planted=tuple(fields["planted"]),
        held_out=tuple(fields["held_out"]),
        commitment=digest,
    )


def find_strings(
    key: Strings, forget: ForgetSet, train: Samples, *, where: str, where_forget: str
) -> PlantedStrings:
    """Tie the token canaries of a forget set to their key, letter by letter.

    A row whose attack is `token-canary` is one; its id in the key stands in the `canary` column,
    else it is its id in the training table.

    Args:
        key: what strings.json says.
        forget: the forget set.
        train: the training table that `forget` was read against.
        where: what messages call strings.json.
        where_forget: what messages call forget.csv.

    Raises:
        InputError: there is no such row, or a row's text is not the key's string of its id.
    """
    chosen = [row for row, attack in enumerate(forget.attacks) if attack == POISON.name]
    if not chosen or train.texts is None:
        what = "no row is a token canary" if train.texts else "token canaries are texts"
        fix = "Say attack = token-canary in the rows that are."
        raise InputError(Problem(what, where_forget, fix))
    planted, held_out = set(key.planted), set(key.held_out)
    names, problems = [], []
    for row in chosen:
        position = forget.positions[row]
        name = forget.canaries[row] or train.ids[position]
        place = f"{where_forget} row {forget.rows[row]}"
        names.append(name)
        if wrong := wrong_name(name, planted, held_out, place=place, where=where):
            problems += wrong
        elif key.text(name) != train.texts[position]:
            what = f"the text {train.texts[position]!r:.80} is not the key's string of {name!r}"
            problems.append(Problem(what, place, "Is this the key of this planting?"))
    if problems:
        raise InputError(first(problems, where_forget))
    labels = train.y[[forget.positions[row] for row in chosen]].tolist()
    return PlantedStrings(key=key, names=tuple(names), labels=tuple(labels))


def _wrong_values(fields: dict[str, Any], where: str) -> list[Problem]:
    problems = wrong_secret(fields["secret"], where)
    if fields["version"] != VERSION or fields["version"] is True:
        what = f"expected {VERSION}, got {fields['version']!r:.60}"
        problems.append(Problem(what, f"{where} version"))
    length, words = fields["length"], fields["words"]
    if not isinstance(length, int) or isinstance(length, bool) or not 0 < length <= MOST_LENGTH:
        what = f"expected a whole number from 1 to {MOST_LENGTH}, got {length!r:.60}"
        problems.append(Problem(what, f"{where} length"))
    if not isinstance(words, list) or not all(map(_is_word, words)):
        problems.append(Problem("expected a list of words without spaces", f"{where} words"))
    else:
        if twice := sorted(word for word, times in Counter(words).items() if times > 1):
            more = f" and {len(twice) - 5} more" if len(twice) > 5 else ""
            what = f"words appear twice: {', '.join(twice[:5])}{more}"
            problems.append(Problem(what, f"{where} words"))
        if len(set(words)) < FEWEST_WORDS:
            what = f"expected at least {FEWEST_WORDS} distinct words, got {len(set(words))}"
            problems.append(Problem(what, f"{where} words"))
    return problems + wrong_ids(fields["planted"], fields["held_out"], where)


def _is_word(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and value.split() == [value]
