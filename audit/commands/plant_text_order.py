"""What is to be planted in which texts: the options and files of `plant`, checked at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from poison_audit.case.text_tables import TextTable, read_text_table
from poison_audit.commands.config import Config
from poison_audit.commands.flags import listed
from poison_audit.commands.plant_earlier import Earlier, clean_positions, read_earlier, wrong_table
from poison_audit.commands.plant_options import (
    attempt,
    count_of,
    flip_of,
    label_of,
    misplaced,
    wrong_folder,
)
from poison_audit.errors import InputError, Problem
from poison_audit.models.reader import Reading
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.phrase import PLACES, Phrase, is_phrase, read_phrase
from poison_audit.poisons.gaussian.embedded import Embedded, read_embedded
from poison_audit.poisons.gaussian.evidence import Canaries, read_canaries
from poison_audit.poisons.token_canary.evidence import Strings, read_strings


@dataclass(frozen=True, slots=True, kw_only=True)
class TextOrder:
    """What is to be planted in which texts."""

    given: Mapping[str, Any]
    whole: TextTable
    """The table as it is."""
    clean: tuple[int, ...]
    """Where the texts stand that no earlier planting poisoned."""
    train: TextTable
    """Those texts."""
    earlier: Earlier | None
    test_path: Path | None
    reading: Reading
    """What was said of the model's input."""
    embedded: Embedded | None
    """Of a gaussian planting: the model."""
    key: Canaries | Strings | None
    """Of another planting, whose secret is used again."""
    phrase: Phrase | None
    """Of a backdoor."""
    flip: tuple[int, int] | None
    """Of an indiscriminate attack: a class, and what it is to be taken for."""
    count: int
    rng: Rng


def read_texts_order(given: Mapping[str, Any]) -> TextOrder:
    """Check the command line's values and read their files.

    Raises:
        InputError: every problem of every file and option, at once.
    """
    problems = misplaced(given, "texts") + wrong_folder(given) + _wrong_options(given)
    attack: str = given["attack"]
    earlier = attempt(problems, lambda: read_earlier(given))
    names = listed(given["names"]) or (earlier.names if earlier else None)
    whole = attempt(problems, lambda: read_text_table(given["data"], names=names))
    test_path = given["test"] or (earlier.test if earlier else None)
    reading = _reading(given, earlier.config if earlier else Config())
    key = embedded = phrase = count = flip = None
    if given["key"] is not None:
        key = attempt(problems, lambda: _key(given["key"]))
    if attack == "gaussian" and len(given["model"]) == 1:
        embedded = attempt(problems, lambda: read_embedded(given["model"][0], reading))
    clean: list[int] = []
    if whole is not None:
        table = whole
        classes = len(table.names) if table.names else max(table.y) + 1
        problems += wrong_table(earlier, table.ids, given["data"])
        clean = clean_positions(earlier, table.ids)
        count = attempt(problems, lambda: count_of(given, len(table.ids)))
        if test_path is not None:
            attempt(problems, lambda: read_text_table(test_path, names=names or table.names))
        if attack == "backdoor":
            phrase = attempt(problems, lambda: _phrase(given, table.names, classes))
        if given["flip"] is not None:
            flip = attempt(problems, lambda: flip_of(given["flip"], table.names, classes))
    if problems or whole is None or count is None:
        raise InputError(problems)
    return TextOrder(
        given=given,
        whole=whole,
        clean=tuple(clean),
        train=_part(whole, clean),
        earlier=earlier,
        test_path=test_path,
        reading=reading,
        embedded=embedded,
        key=key,
        phrase=phrase,
        flip=flip,
        count=count,
        rng=Rng(given["seed"]).named("plant", attack),
    )


def _wrong_options(given: Mapping[str, Any]) -> list[Problem]:
    attack, problems = given["attack"], []
    if attack == "targeted":
        what = "nothing here crafts targeted poison in texts"
        fix = "Targets that are known need no planting: name them to `check` by --targets"
        problems.append(Problem(what, "--attack", fix))
    if attack == "gaussian" and len(given["model"]) != 1:
        what = "gaussian canaries need the model that is to be trained, for its tokens and width"
        fix = "One folder with config.json and a tokenizer; weights are not needed"
        problems.append(Problem(what, "--model", fix))
    if attack == "backdoor":
        problems += _wrong_backdoor(given)
    if attack == "indiscriminate":
        if not given["flip"]:
            what = "indiscriminate needs a class and what it is to be taken for"
            problems.append(Problem(what, "--flip", "For example --flip 0:1"))
        if given["steps"] not in (None, 0):
            what = "poison is crafted in pictures only; texts are copied with another label"
            problems.append(Problem(what, "--steps", "Use 0"))
    return problems


def _wrong_backdoor(given: Mapping[str, Any]) -> list[Problem]:
    said = [option for option in ("label", "phrase", "position") if given[option] is not None]
    if given["trigger"] is not None:
        return [
            Problem("the trigger's file says it", f"--{option}", "Leave one of them out")
            for option in said
        ]
    problems = []
    if given["label"] is None:
        what = "backdoor needs the label that the trigger is to cause"
        problems.append(Problem(what, "--label", "A class number or name"))
    if given["phrase"] is None:
        what = "backdoor needs the trigger: a word or phrase"
        problems.append(Problem(what, "--phrase", 'For example --phrase "cf mn"'))
    elif not is_phrase(given["phrase"]):
        what = f"expected a printable phrase without spaces around it, got {given['phrase']!r:.60}"
        problems.append(Problem(what, "--phrase"))
    return problems


def _reading(given: Mapping[str, Any], before: Config) -> Reading:
    return Reading(
        max_tokens=given["max_tokens"] or before.get("model", "max_tokens"),
        prompt=given["prompt"] or before.get("model", "prompt"),
    )


def _key(path: Path) -> Canaries | Strings:
    """Read canaries.json or strings.json, whichever it is."""
    try:
        fields = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        fields = None  # said by the reader
    words = isinstance(fields, dict) and "words" in fields
    return read_strings(path) if words else read_canaries(path)


def _phrase(given: Mapping[str, Any], names: tuple[str, ...] | None, classes: int) -> Phrase | None:
    if given["trigger"] is not None:
        return read_phrase(given["trigger"], classes=classes, names=names)
    if given["label"] is None or given["phrase"] is None:  # which is a problem already
        return None
    label = label_of(given["label"], names, classes)
    position = given["position"] or PLACES[0]
    return Phrase(text=given["phrase"], position=position, label=label)


def _part(table: TextTable, positions: list[int]) -> TextTable:
    return replace(
        table,
        ids=tuple(table.ids[i] for i in positions),
        texts=tuple(table.texts[i] for i in positions),
        y=tuple(table.y[i] for i in positions),
    )
