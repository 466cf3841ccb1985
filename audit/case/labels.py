"""Labels as tables spell them, to class numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from poison_audit.case.csvfile import first
from poison_audit.errors import InputError, Problem, did_you_mean, some

_LARGEST = 2**31 - 1
_EXACT = 10**18


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """The class number of each sample, and what the numbers are called."""

    numbers: tuple[int, ...]
    names: tuple[str, ...] | None


def read_labels(
    texts: Sequence[str],
    places: Sequence[str],
    *,
    where: str,
    names: Sequence[str] | None = None,
    always_names: bool = False,
    sort: bool = True,
) -> Labels:
    """Map labels to class numbers.

    A column of integers holds class numbers. Otherwise it holds names, numbered by their place in
    `names`, or else in sorted order.

    Args:
        texts: one label a sample.
        places: where each stands, for messages.
        where: the table.
        names: what the classes are called, in the model's order.
        always_names: whether integers are names too, as folders' are.
        sort: whether names that nobody put in order may be sorted. A model has an order of its
            own, and sorting would be a guess at it.

    Raises:
        InputError: a label is empty, negative, a fraction or unknown; or all labels are integers
            that are also names, and the two readings differ; or nobody says the names' order.
    """
    if names is not None:
        texts = as_known(texts, names)
    elif not always_names:
        texts = _without_prefix(texts)
    integers = [as_integer(text) for text in texts]
    if always_names or _are_names(texts, integers, names):
        if problem := _unordered(texts, where, names, sort=sort):
            raise InputError(problem)
        known = tuple(names) if names is not None else tuple(sorted(set(texts) - {""}))
        place_of = {name: number for number, name in enumerate(known)}
        numbers = [place_of.get(text) for text in texts]
        problems = [
            Problem(f"unknown label {text!r}", place, did_you_mean(text, known))
            if text
            else Problem("the label is empty", place)
            for text, number, place in zip(texts, numbers, places, strict=True)
            if number is None
        ]
        names = known
    else:
        # 3.0 is what pandas makes of 3 once a cell of its column was empty.
        integers = [as_whole(text) for text in texts]
        numbers = [n if n is not None and 0 <= n <= _LARGEST else None for n in integers]
        problems = [
            Problem(f"the label {text!r} is not an integer from 0", place)
            for text, number, place in zip(texts, numbers, places, strict=True)
            if number is None
        ]
        if not problems and names is not None:
            problems = _two_readings(texts, integers, where, names)
    if problems:
        raise InputError(first(problems, where))
    return Labels(
        numbers=tuple(number for number in numbers if number is not None),
        names=None if names is None else tuple(names),
    )


def as_known(texts: Sequence[str], names: Sequence[str]) -> Sequence[str]:
    """Return labels spelt as the names are, where they differ in nothing but case."""
    folded: dict[str, list[str]] = {}
    for name in names:
        folded.setdefault(name.casefold(), []).append(name)
    exact = set(names)

    def known(text: str) -> str:
        alike = folded.get(text.casefold(), [])
        return alike[0] if text not in exact and len(alike) == 1 else text

    return [known(text) for text in texts]


def _without_prefix(texts: Sequence[str]) -> Sequence[str]:
    """Return `LABEL_3` as 3, where all labels are spelt so, as transformers numbers outputs."""
    bare = [text.removeprefix("LABEL_") for text in texts]
    spelt_so = all(re.fullmatch(r"LABEL_[0-9]{1,9}", text) for text in texts)
    return bare if spelt_so else texts


def as_integer(text: str) -> int | None:
    """Return the integer that `text` spells in decimal digits, None if it spells none.

    >>> as_integer("-3"), as_integer("3.0"), as_integer("1_000")
    (-3, None, None)
    """
    # Digits beyond any class number or index are not worth int()'s quadratic time.
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else None


def as_whole(text: str) -> int | None:
    """Return the integer that `text` spells, as pandas and NumPy may: None if it spells none.

    >>> as_whole("3"), as_whole("3.0"), as_whole("1.200000000000000000e+01"), as_whole("1.5")
    (3, 3, 12, None)
    """
    if not re.fullmatch(
        r"[+-]?[0-9]{1,18}(\.[0-9]{0,30})?(e[+-]?[0-9]{1,2})?", text, re.IGNORECASE
    ):
        return None
    exact = Decimal(text)
    return int(exact) if abs(exact) < _EXACT and exact == exact.to_integral_value() else None


def are_other_numbers(names: Sequence[str]) -> bool:
    """Say whether a name is a number, and not its class's: folders are sorted as text, 10 before 2.

    >>> are_other_numbers(("0", "1", "10", "2")), are_other_numbers(("0", "1", "cat"))
    (True, False)
    """
    return any(as_integer(name) not in (None, place) for place, name in enumerate(names))


def several(names: Iterable[str]) -> str:
    """Return the first names, and how many more there are."""
    return some([name[:40] for name in names], 12)


def _unordered(
    texts: Sequence[str], where: str, names: Sequence[str] | None, *, sort: bool
) -> Problem | None:
    """Return the problem of names that nobody put in order, or that are other classes' names."""
    found = dict.fromkeys(text for text in texts if text)
    if names is None and found and not sort:
        what = (
            f"the labels are words ({several(found)}), and neither the model nor --names says "
            "which of its outputs each is"
        )
        fix = (
            "Give them by --names A,B,.. or [data] names in audit.toml, in the order of the "
            "model's outputs as training numbered them; any other order would test other labels."
        )
        return Problem(what, where, fix)
    if names is not None and len(found) > 1 and not set(found) & set(names):
        what = f"none of its labels ({several(found)}) is a class's name ({several(names)})"
        fix = (
            "Give the table's own names by --names A,B,.. in the order of the model's outputs, or "
            "write these in the table."
        )
        return Problem(what, where, fix)
    return None


def _are_names(
    texts: Sequence[str], integers: Sequence[int | None], names: Sequence[str] | None
) -> bool:
    if names is not None and None in integers and set(texts) <= set(names):
        return True
    # One number among the labels makes it a column of numbers: the words in it are the errors.
    numeric = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
    return not any(
        integer is not None or numeric.fullmatch(text)
        for text, integer in zip(texts, integers, strict=True)
    )


def _two_readings(
    texts: Sequence[str], integers: Sequence[int | None], where: str, names: Sequence[str]
) -> list[Problem]:
    place_of = {name: number for number, name in enumerate(names)}
    for text, integer in zip(texts, integers, strict=True):
        if text in place_of and place_of[text] != integer:
            what = f"the label {text!r} is class {integer} as a number, {place_of[text]} as a name"
            fix = (
                "Write the number of the model's output for each, as ImageFolder's class_to_idx "
                "gives it, and leave the names out."
            )
            return [Problem(what, where, fix)]
    return []
