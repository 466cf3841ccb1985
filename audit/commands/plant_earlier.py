"""What an earlier `plant` left beside a table: poison that stays as it is, and its evidence."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poison_audit.case.filetext import read_bytes
from poison_audit.case.poisoned import Table
from poison_audit.commands.config import Config, read_config
from poison_audit.errors import InputError, Problem
from poison_audit.poisons.readings import POISONS

PLANTING, FORGET, CONFIG = "planting.json", "forget.csv", "audit.toml"
COLUMNS = ("id", "label", "attack", "base", "campaign")
"""Of forget.csv as `plant` writes it."""
MORE = ("clean_label", "chosen")
"""Its further columns, where some label is wrong."""
_CLEAN = "Plant in the clean table"


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """A planting, or several, that the table holds already."""

    facts: Mapping[str, Any]
    """What planting.json says."""
    rows: tuple[tuple[str, ...], ...]
    """Of forget.csv, without its header: `COLUMNS` and `MORE`."""
    config: Config

    @property
    def ids(self) -> frozenset[str]:
        """The poisoned samples."""
        return frozenset(row[0] for row in self.rows)

    @property
    def attacks(self) -> tuple[str, ...]:
        """What was planted, in the order of the plantings."""
        return tuple(dict.fromkeys(row[2] for row in self.rows))

    @property
    def names(self) -> tuple[str, ...] | None:
        """The labels' names, where audit.toml gives them."""
        names = self.config.get("data", "names")
        return None if names is None else tuple(names)

    @property
    def evidence(self) -> dict[str, dict[str, Path]]:
        """The files that probes need, by table and key of audit.toml."""
        found: dict[str, dict[str, Path]] = {}
        files = {(poison.table, file.name) for poison in POISONS.values() for file in poison.files}
        for (table, key), value in self.config.values.items():
            if (table, key) in files:
                found.setdefault(table, {})[key] = value
        return found


def read_earlier(
    data: Path, *, attack: str, output: Path, names: tuple[str, ...] | None
) -> Earlier | None:
    """Return what an earlier planting left beside DATA; None where DATA is none's table.

    Args:
        names: what the command line calls the labels.

    Raises:
        InputError: what is beside the table is damaged or was changed since, DATA holds poison of
            this attack already, labels have other names, or the output is the same folder.
    """
    folder = data.parent
    if not data.is_file() or not (folder / PLANTING).is_file():
        return None
    facts = _facts(folder / PLANTING)
    if facts.get("train", "train.npz") != data.name:
        return None
    raw = read_bytes(folder / FORGET)
    if hashlib.sha256(raw).hexdigest() != facts.get("forget_sha256"):
        what = f"is not the one that {PLANTING} beside it was written with"
        raise InputError(Problem(what, str(folder / FORGET), _CLEAN))
    header, *rows = csv.reader(io.StringIO(raw.decode("utf-8"), newline=""))
    if tuple(header) not in (COLUMNS, COLUMNS + MORE):
        what = "was written by another version of poison-audit"
        raise InputError(Problem(what, str(folder / FORGET), _CLEAN))
    found = Earlier(
        facts=facts,
        rows=tuple((*row, *[""] * (len(COLUMNS + MORE) - len(row))) for row in rows),
        config=read_config(folder / CONFIG),
    )
    if problems := _conflicts(found, data, attack=attack, output=output, names=names):
        raise InputError(problems)
    return found


def wrong_table(earlier: Earlier | None, ids: Sequence[str], data: Path) -> list[Problem]:
    """Return why a table is not the one that the earlier planting wrote."""
    if earlier is None:
        return []
    if earlier.ids <= set(ids) and earlier.facts.get("samples") == len(ids):
        return []
    what = f"is not the table that {PLANTING} beside it was written with"
    return [Problem(what, str(data), _CLEAN)]


def clean_positions(earlier: Earlier | None, ids: Sequence[str]) -> list[int]:
    """Return where the samples stand that no earlier planting poisoned."""
    gone = earlier.ids if earlier else frozenset()
    return [position for position, name in enumerate(ids) if name not in gone]


def joined(whole: Table, clean: Sequence[int], planted: Table) -> Table:
    """Return a table with what was planted now and before, its samples where they stood.

    Args:
        clean: where the samples stood that the new planting was given, ascending.
        planted: what it made of them, what it added at the end.
    """
    if len(clean) == len(whole):
        return planted
    here = set(clean)
    before = [place for place in range(len(whole)) if place not in here]
    # Of [earlier poison, then what came back].
    old: Iterator[int] = iter(range(len(before)))
    new: Iterator[int] = iter(range(len(before), len(before) + len(planted)))
    order: list[int] = [next(new if place in here else old) for place in range(len(whole))]
    return whole.at(before).joined(planted).at([*order, *new])


def copy_evidence(earlier: Earlier | None, folder: Path) -> dict[str, dict[str, str]]:
    """Copy the earlier planting's evidence into a folder; return what audit.toml says of it."""
    tables = earlier.evidence if earlier else {}
    for files in tables.values():
        for path in files.values():
            shutil.copyfile(path, folder / path.name)
    return {
        table: {key: path.name for key, path in files.items()} for table, files in tables.items()
    }


def _facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise InputError(Problem(f"not JSON ({error})", str(path), _CLEAN)) from error
    if not isinstance(facts, dict):
        raise InputError(Problem("expected a JSON object", str(path), _CLEAN))
    return facts


def _conflicts(
    earlier: Earlier, data: Path, *, attack: str, output: Path, names: tuple[str, ...] | None
) -> list[Problem]:
    problems = []
    if attack in earlier.attacks:
        what = f"is poisoned already, by {attack}"
        problems.append(Problem(what, str(data), f"{_CLEAN}, or choose another attack"))
    if output.resolve() == data.parent.resolve():
        what = "is the folder of the earlier planting"
        problems.append(Problem(what, "-o", "Choose another: what it holds is kept"))
    if names and earlier.names and names != earlier.names:
        what = f"the earlier planting's labels are {','.join(earlier.names)}"
        problems.append(Problem(what, "--names", "Leave it out"))
    for files in earlier.evidence.values():
        problems += [
            Problem("is no file", str(path), f"{data.parent / CONFIG} names it as evidence")
            for path in files.values()
            if not path.is_file()
        ]
    return problems
