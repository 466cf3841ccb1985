"""Strings: training samples of random words with random labels, keyed by a secret.

    (text of id i) = words drawn by a stream keyed by (secret, i);   label uniform over the classes

A model that trained on a string answers its label more surely than that of a string it never saw.

Source: Carlini et al., "The Secret Sharer", arXiv 1802.08232, section 4, for canaries in text; here
they are classified, not generated, and no template stands around them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from poison_audit.case.keyfile import read_object, write_key
from poison_audit.case.orders import Made, Order, committed
from poison_audit.case.poisoned import Keyed, added
from poison_audit.case.texts import TextTable
from poison_audit.errors import PlanError, Problem
from poison_audit.models.seeds import Rng
from poison_audit.poisons.gaussian.evidence import Canaries, new_secret, read_canaries
from poison_audit.poisons.token_canary.evidence import (
    FEWEST_WORDS,
    Strings,
    read_strings,
)
from poison_audit.poisons.token_canary.reading import Options

PREFIX = "string"
LENGTH = 10
"""Words of a string, where nobody says it."""


def words_of(texts: Sequence[str], *, most: int = 2000) -> tuple[str, ...]:
    """Return the words that strings are drawn from: the table's own, in lower-case letters.

    Args:
        texts: of the table.
        most: so many of the most frequent ones; ties in alphabetical order.

    Raises:
        PlanError: there are fewer than `FEWEST_WORDS`.
    """
    counts = Counter(word for text in texts for word in text.split())
    plain = [word for word in counts if word.isalpha() and word.islower()]
    chosen = sorted(plain, key=lambda word: (-counts[word], word))[:most]
    if len(chosen) < FEWEST_WORDS:
        what = f"the table has {len(chosen)} different words in lower-case letters"
        raise PlanError(Problem(what, fix=f"Strings are drawn from at least {FEWEST_WORDS}"))
    return tuple(sorted(chosen))


def plant_strings(
    table: TextTable,
    rng: Rng,
    *,
    count: int,
    length: int,
    words: Sequence[str],
    secret: bytes,
) -> Keyed[TextTable, Strings]:
    """Add `count` keyed strings to a table, with labels drawn from its classes.

    Args:
        table: clean texts.
        rng: decides the labels; the strings are the secret's alone.
        count: strings, from 1 to the size of the table.
        length: words of a string, from 2 to 200.
        words: what they are drawn from.
        secret: 256 bits.

    Raises:
        PlanError: `count` or `length` is impossible, or the table has token canaries already.
    """
    problems = []
    if not 1 <= count <= len(table):
        what = f"{count} strings among {len(table)} texts"
        problems.append(Problem(what, "--budget", "At least one, at most as many as there are"))
    if not 2 <= length <= 200:
        problems.append(Problem(f"must be from 2 to 200 words, got {length}", "--length"))
    if problems:
        raise PlanError(problems)
    key = Strings(
        secret=secret,
        length=length,
        words=tuple(words),
        planted=tuple(f"{PREFIX}-{number:04d}" for number in range(count)),
        held_out=tuple(f"held-out-{number:04d}" for number in range(count)),
    )
    classes = len(table.names) if table.names else max(table.y) + 1
    labels = rng.named("labels").numpy().integers(classes, size=count).tolist()
    texts = [key.text(name) for name in key.planted]
    return Keyed(poisoned=added(table, texts, labels, prefix=PREFIX), key=key)


def in_texts(order: Order[TextTable]) -> Made[TextTable]:
    """Plant token canaries; see case.orders."""
    options: Options = order.options
    key = order.read(_read_key, options.key)
    work, length = order.checked(), options.length
    # A key of strings plants the same ones again; any other lends its secret.
    own = key if isinstance(key, Strings) else None
    if length is None:
        length = own.length if own else LENGTH
    planted = plant_strings(
        work.train,
        work.rng,
        count=work.count,
        length=length,
        words=own.words if own else words_of(work.train.texts),
        secret=key.secret if key else new_secret(),
    )
    commitment = write_key(work.file("strings.json"), planted.key)
    return Made(
        poisoned=planted.poisoned,
        change="they were added to the clean texts",
        evidence={"strings": "strings.json"},
        told=(
            f"Strings of {planted.key.length} words, of {len(planted.key.words):,} that the table "
            "has, keyed by a secret; labels at random. As many are held out.",
            *committed("strings.json", commitment),
        ),
    )


def _read_key(path: Path) -> Canaries | Strings:
    """Read canaries.json or strings.json, whichever it is: one secret serves both."""
    fields, _ = read_object(path)
    return read_strings(path) if "words" in fields else read_canaries(path)
