"""What `investigate` does: a forget set is looked at alone, and what it shows is written down."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from poison_audit.case.clues import Clue, Material
from poison_audit.case.forget import ForgetSet, read_forget, split
from poison_audit.case.tables import read_table
from poison_audit.case.texts import holds_texts, list_texts
from poison_audit.commands.inputs import check_output
from poison_audit.commands.own_settings import Investigating
from poison_audit.errors import InputError, Problem, Problems, some
from poison_audit.models.samples import Samples
from poison_audit.poisons.probes import LOOKERS
from poison_audit.poisons.readings import POISONS
from poison_audit.reports.view.words import printable

NOTHING = "no common pattern or phrase; perhaps a style"
ROWS = "rows.csv"


def investigate(settings: Investigating) -> int:
    """Look for what forget samples share, print it, and write it where asked; return 0.

    Raises:
        InputError: every problem of every file, at once; or an output that could not be written.
    """
    if settings.out is not None:
        check_output(settings.out, folder=True)
    material = _read(settings)
    clues = [clue for look in LOOKERS.values() for clue in look(material)]
    clues = [_renamed(clue, number, clues) for number, clue in enumerate(clues)]
    train, forget = material.train, material.forget
    print(
        f"{printable(str(settings.forget))}: {len(forget):,} of {len(train):,} training samples. "
        "The data alone was looked at; no model was asked."
    )
    for clue in clues:
        _print(clue, train, len(forget))
    left = _unexplained(forget, clues)
    if not clues:
        print(f"\nFound: {NOTHING}.")
    elif left:
        print(f"\nNothing explains {len(left):,} of {len(forget):,}: {_named(train, left)}.")
    if settings.out is not None:
        _write(settings.out, clues, material)
        print(f"\nWritten to {settings.out}: {', '.join(_files(clues))}.")
    elif any(clue.write for clue in clues):
        print("\nGive --out DIR to have it written, with pictures.")
    print(f"Next: {_next(settings, clues)}")
    return 0


def _read(settings: Investigating) -> Material:
    problems = Problems()
    train = test = bases = forget = None
    with problems.collecting():
        train = _table(settings, settings.train)
    for name in ("test", "bases"):
        path = getattr(settings, name)
        if path is not None:
            with problems.collecting():
                other = _table(settings, path, like=train)
                test, bases = (other, bases) if name == "test" else (test, other)
    if train is not None:
        with problems.collecting():
            forget = read_forget(
                settings.forget, train, where_train=str(settings.train), poisons=POISONS
            )
    problems.raise_any()
    if train is None or forget is None:
        raise ValueError("what could not be read is a problem")
    return Material(train=train, forget=forget, parts=split(train, forget), test=test, bases=bases)


def _table(settings: Investigating, path: Path, like: Samples | None = None) -> Samples:
    """Read a table; texts without a tokenizer, so that their tokens are nobody's."""
    names = settings.names or (like.names if like is not None else None)
    if not holds_texts(path):
        return read_table(path, names=names)
    if like is not None and like.texts is None:
        raise InputError(Problem("holds texts, and the training table pictures", str(path)))
    table, _ = list_texts(path, names=names, spare=1)
    return Samples(
        ids=table.ids,
        x=torch.zeros(len(table.ids), 1, dtype=torch.int64),
        y=torch.tensor(table.y, dtype=torch.int64),
        names=table.names,
        texts=table.texts,
        pairs=table.pairs,
    )


def _renamed(clue: Clue, number: int, clues: Sequence[Clue]) -> Clue:
    """Return a clue whose files no earlier clue has."""
    taken = {name for earlier in clues[:number] for name in earlier.write}
    if not taken & set(clue.write):
        return clue
    return replace(clue, write={f"{number}-{name}": write for name, write in clue.write.items()})


def _print(clue: Clue, train: Samples, total: int) -> None:
    label = f", labelled {printable(clue.label)}" if clue.label else ""
    print(f"\n{printable(clue.what)}")
    print(f"  {len(clue.rows):,} of {total:,} samples{label}: {clue.sure}.")
    print(f"  {printable(clue.confirm)}")


def _unexplained(forget: ForgetSet, clues: Sequence[Clue]) -> list[int]:
    explained = {place for clue in clues for place in clue.rows}
    return [place for place in forget.positions if place not in explained]


def _named(train: Samples, places: Sequence[int]) -> str:
    return some([printable(train.ids[place][:60]) for place in places])


def _files(clues: Sequence[Clue]) -> list[str]:
    return [*(name for clue in clues for name in clue.write), ROWS]


def _write(folder: Path, clues: Sequence[Clue], material: Material) -> None:
    """Write every clue's files, and which clues each forget sample has."""
    folder.mkdir(parents=True, exist_ok=True)
    for clue in clues:
        for name, write in clue.write.items():
            write(folder / name)
    held: Mapping[int, list[str]] = {place: [] for place in material.forget.positions}
    for clue in clues:
        for place in clue.rows:
            held[place].append(clue.what)
    lines = [["id", "found"]]
    lines += [[material.train.ids[place], "; ".join(what)] for place, what in held.items()]
    with (folder / ROWS).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)


def _next(settings: Investigating, clues: Sequence[Clue]) -> str:
    """Return the command that measures what was found."""
    words = ["poison-audit", "check", "MODEL", "--forget", str(settings.forget), "--train",
             str(settings.train), "--test", str(settings.test or "TEST")]  # fmt: skip
    if settings.out is not None:
        given: dict[str, str] = {}
        for clue in clues:
            if clue.flag and clue.write:  # one command takes one of a kind: the largest
                given.setdefault(clue.flag, str(settings.out / next(iter(clue.write))))
        words += [part for pair in given.items() for part in pair]
    return shlex.join(words)
