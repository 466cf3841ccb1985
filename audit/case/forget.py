"""forget.csv: which training samples are poison, and what that leaves to retain and to test."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from poison_audit.case.csvfile import CsvFile, first
from poison_audit.case.forgetfile import read_rows
from poison_audit.case.poison import Poison
from poison_audit.case.rows import (
    find_samples,
    label_named,
    label_spelt,
    repeated,
    wrong_label,
)
from poison_audit.errors import InputError, Problem, did_you_mean
from poison_audit.models.samples import Samples

CHANCE = "chance"
"""What the column `chosen` says of a row that chance alone decided on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetSet:
    """The samples to forget, in the order of the file's rows."""

    positions: tuple[int, ...]
    """Where each stands in the training table, from 0."""
    ids: tuple[str, ...]
    """Its id in the training table."""
    attacks: tuple[str, ...]
    """The name of a poison, or empty = unknown."""
    campaigns: tuple[str, ...]
    """Empty = none named."""
    canaries: tuple[str | None, ...]
    """Its id in a key; None: no key names it."""
    keys: tuple[str, ...]
    """The poison whose key that is."""
    bases: tuple[str | None, ...]
    """The id of the clean sample it was made from, where named."""
    clean: tuple[int | None, ...] = ()
    """Its true label, never that which it was trained with; None: not said."""
    chance: tuple[bool, ...] = ()
    """Whether chance alone decided that it was poisoned."""
    rows: tuple[int, ...]
    """Its row in the file, as a spreadsheet counts."""
    digest: str
    """SHA-256 of the file."""
    most: bool
    """Whether more than half of the training table is to be forgotten."""

    def __len__(self) -> int:
        return len(self.positions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The training table, parted."""

    retain: Samples
    """What is not to be forgotten, in the training table's order."""
    forget: Samples
    """In the order of forget.csv."""


def read_forget(
    path: Path,
    train: Samples,
    *,
    where_train: str,
    poisons: Mapping[str, Poison],
    allow_pickle: bool = False,
) -> ForgetSet:
    """Read which samples of `train` are to be forgotten.

    A row names its sample as `find_samples` says. A row of an attack whose samples a key names may
    leave out `canary`: the sample's own id is its id in the key. A `canary` of another attack, or
    of none, is an id in the key of the first of those.

    Args:
        path: forget.csv, or what `read_rows` takes beside it.
        train: the training table.
        where_train: what messages call the training table.
        poisons: what a row's `attack` may name.
        allow_pickle: whether it may be a pickle, plain values and arrays only.

    Raises:
        InputError: with everything that is wrong with the file.
    """
    table = read_rows(path, train, where_train=where_train, allow_pickle=allow_pickle)
    found = find_samples(table, train, where=where_train)
    positions = [position for position in found if isinstance(position, int)]
    problems = first([p for p in found if isinstance(p, Problem)], table.where)
    attacks = [row.get("attack", "") for row in table.rows]
    unknown = [
        Problem(f"unknown attack {attack!r}", place, did_you_mean(attack, poisons))
        for attack, place in zip(attacks, table.places(), strict=True)
        if attack and attack not in poisons
    ]
    problems += first(unknown, table.where)
    problems += repeated("sample", [p if isinstance(p, int) else None for p in found], table)
    cleaned = list(_clean_labels(table, train, found))
    problems += first([c for c in cleaned if isinstance(c, Problem)], table.where)
    chosen = [row.get("chosen", "") for row in table.rows]
    odd = [
        Problem(f"unknown chosen {how!r:.60}", place, f"Write {CHANCE}, or leave it empty.")
        for how, place in zip(chosen, table.places(), strict=True)
        if how not in ("", CHANCE)
    ]
    problems += first(odd, table.where)
    for check in (wrong_label, _wrong_content):
        wrong = [
            Problem(what, place)
            for row, place, position in zip(table.rows, table.places(), found, strict=True)
            if isinstance(position, int) and (what := check(row, train, position, where_train))
        ]
        problems += first(wrong, table.where)
    with_key = [name for name, poison in poisons.items() if poison.keyed]
    keys = [attack if attack in with_key else with_key[0] for attack in attacks]
    canaries = [
        row.get("canary")
        or (train.ids[place] if attack in with_key and isinstance(place, int) else None)
        for row, attack, place in zip(table.rows, attacks, found, strict=True)
    ]
    keyed = [name and (key, name) for name, key in zip(canaries, keys, strict=True)]
    problems += repeated("canary", keyed, table)
    if problems:
        raise InputError(problems)
    return ForgetSet(
        positions=tuple(positions),
        ids=tuple(train.ids[position] for position in positions),
        attacks=tuple(attacks),
        campaigns=tuple(row.get("campaign", "") for row in table.rows),
        canaries=tuple(canaries),
        keys=tuple(keys),
        bases=tuple(row.get("base") or None for row in table.rows),
        clean=tuple(None if isinstance(c, Problem) else c for c in cleaned),
        chance=tuple(how == CHANCE for how in chosen),
        rows=table.numbers,
        digest=table.digest,
        most=2 * len(positions) > len(train),
    )


def split(train: Samples, forget: ForgetSet) -> Split:
    """Part the training table into what is retained and what is to be forgotten."""
    gone = set(forget.positions)
    retain = [position for position in range(len(train)) if position not in gone]
    return Split(retain=train.at(retain), forget=train.at(forget.positions))


def content_digest(samples: Samples, position: int) -> str:
    """Return the SHA-256 of one sample's contents, the `sha256` of forget.csv.

    Over a text's UTF-8, of a pair with a zero byte between; over the raw bytes of a picture as
    `Samples` holds it, channels first: uint8, or little-endian floating point.
    """
    if samples.texts is not None:
        return hashlib.sha256(samples.written(position)).hexdigest()
    array = samples.x[position].cpu().contiguous().numpy()
    return hashlib.sha256(array.astype(array.dtype.newbyteorder("<")).tobytes()).hexdigest()


def _clean_labels(
    table: CsvFile, train: Samples, found: Sequence[int | Problem]
) -> Iterator[int | Problem | None]:
    """Yield each row's true label, None where it is not said, or what is wrong with it."""
    for row, place, position in zip(table.rows, table.places(), found, strict=True):
        text = row.get("clean_label", "")
        clean = label_named(text, place, train, "clean label") if text else None
        if isinstance(position, int) and clean == int(train.y[position]):
            what = f"the clean label is the one it was trained with, {label_spelt(train, clean)}"
            yield Problem(what, place, "Leave it out where the label was right.")
        else:
            yield clean


def _wrong_content(row: dict[str, str], train: Samples, position: int, where_train: str) -> str:
    stated = row.get("sha256", "").lower()
    if not stated or stated == content_digest(train, position):
        return ""
    return f"the sample {train.ids[position]!r} of {where_train} does not have this sha256"
