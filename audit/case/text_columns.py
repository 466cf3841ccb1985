"""Which columns of a table of texts are which, by the names that people give them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from poison_audit.errors import InputError, Problem, did_you_mean

JOINED = "joined_text"
"""A column of texts that training read as one each, separators in them and all."""
TEXTS = (
    "sentence", "review", "content", "comment", "tweet", "body", "document", "message",
    "question", "utterance", "passage", "abstract", "headline", "title", "query", JOINED,
)  # fmt: skip
"""What a column of texts is called, but for `text`."""
PAIRS = (
    ("text", "text_pair"), ("text_a", "text_b"), ("text1", "text2"), ("text_1", "text_2"),
    ("sentence1", "sentence2"), ("sentence_1", "sentence_2"), ("sentence_a", "sentence_b"),
    ("premise", "hypothesis"), ("question1", "question2"),
    ("question_1", "question_2"), ("question", "sentence"), ("question", "answer"),
    ("question", "passage"), ("question", "context"), ("query", "passage"), ("query", "document"),
)  # fmt: skip
"""What the two columns of a table of pairs are called, first and second."""
LABELS = (
    "labels", "sentiment", "class", "target", "category", "polarity", "label_text", "label_name",
    "gold_label", "coarse_label", "label-coarse", "intent", "is_duplicate", "emotion", "topic",
)  # fmt: skip
"""What a column of labels is called, but for `label`."""
PICTURES = ("path", "image", "img", "file_name")
"""Columns of which a table of pictures has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The names of a table's columns, as its header spells them."""

    text: str
    label: str
    pair: str | None = None
    """The second text of each pair; None: texts stand alone."""
    id: str | None = None

    @property
    def roles(self) -> dict[str, str]:
        """The columns that there are, by what they are."""
        all_of = {"text": self.text, "pair": self.pair, "label": self.label, "id": self.id}
        return {role: name for role, name in all_of.items() if name is not None}

    @property
    def joined(self) -> bool:
        """Whether the table says that its texts are meant to hold separators."""
        return self.text.casefold() == JOINED


def names_texts(header: Iterable[str]) -> bool:
    """Say whether a header is one of texts, and not of pictures.

    >>> names_texts(["id", "Review", "sentiment"]), names_texts(["path", "text"])
    (True, False)
    """
    names = {name.strip().casefold() for name in header}
    return _of_texts(names) and names.isdisjoint(PICTURES)


def names_pictures(header: Iterable[str]) -> bool:
    """Say whether a header is one of pictures, and not of texts.

    >>> names_pictures(["path", "label"]), names_pictures(["path", "text"])
    (True, False)
    """
    names = {name.strip().casefold() for name in header}
    return not names.isdisjoint(PICTURES) and not _of_texts(names)


def _of_texts(names: set[str]) -> bool:
    pairs = any(set(pair) <= names for pair in PAIRS)
    return pairs or not names.isdisjoint(("text", *TEXTS))


def columns_of(header: Sequence[str], where: str) -> Columns:
    """Return which column is which.

    `text` and `label` are taken as they stand. Otherwise one usual name each must be there, or the
    two of a pair.

    Args:
        header: the table's column names.
        where: the table, for messages.

    Raises:
        InputError: a column is missing, or several may be meant.
    """
    spelt: dict[str, str] = {}
    for name in header:
        spelt.setdefault(name.casefold(), name)
    # A column that is spelt as it should be needs no second look.
    spelt |= {name: name for name in ("text", "label", "id") if name in header}
    problems: list[Problem] = []
    first, second = _texts(spelt, where, problems)
    label = _one("label", LABELS, spelt, where, problems)
    if problems:
        raise InputError(problems)
    return Columns(text=first, pair=second, label=label, id=spelt.get("id"))


def _texts(spelt: dict[str, str], where: str, problems: list[Problem]) -> tuple[str, str | None]:
    pairs = [pair for pair in dict.fromkeys(PAIRS) if set(pair) <= set(spelt)]
    in_pairs = {name for pair in pairs for name in pair}
    alone = [name for name in ("text", *TEXTS) if name in spelt and name not in in_pairs]
    if len(pairs) == 1 and not alone:
        first, second = pairs[0]
        return spelt[first], spelt[second]
    if pairs:
        known = [spelt[name] for name in (*alone, *sorted(in_pairs))]
        what = f"which columns are the model's input is not clear: {', '.join(known)}"
        fix = "Keep `text` alone, or `text` and `text_pair` of a model of pairs; rename the others."
        problems.append(Problem(what, where, fix))
        return "", None
    half = [spelt[a] for a, _ in PAIRS if a in spelt and a not in ("text", *TEXTS)]
    half += [spelt[b] for _, b in PAIRS if b in spelt and b not in ("text", *TEXTS)]
    if half and not alone:
        what = f"the column {half[0]!r} is a half of a pair, and the other half is missing"
        fix = "Add it; or call the column `text`, if texts stand alone."
        problems.append(Problem(what, where, fix))
        return "", None
    return _one("text", TEXTS, spelt, where, problems), None


def _one(
    own: str, others: Sequence[str], spelt: dict[str, str], where: str, problems: list[Problem]
) -> str:
    """Return the column of one meaning; empty, with a problem, where none or several may be it."""
    if own in spelt:
        return spelt[own]
    found = [spelt[name] for name in others if name in spelt]
    if len(found) == 1:
        return found[0]
    if found:
        what = f"which column is the {own} is not clear: {', '.join(found)}"
        problems.append(Problem(what, where, f"Call the right one `{own}`."))
    else:
        what = f"the column {own!r} is missing"
        problems.append(Problem(what, where, did_you_mean(own, spelt.values())))
    return ""
