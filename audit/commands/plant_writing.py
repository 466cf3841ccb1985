"""What `plant` leaves in its folder beside the table and the evidence, and what it says."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from poison_audit.atomic import write_atomically
from poison_audit.commands.config import write_config
from poison_audit.commands.plant_earlier import (
    COLUMNS,
    CONFIG,
    FORGET,
    PLANTING,
    Earlier,
    copy_evidence,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A poisoned sample, as forget.csv names it."""

    name: str
    label: str
    """As the table spells it."""
    base: str = ""
    """The clean sample whose place it took."""
    campaign: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What an attack made, once the table and its evidence are written."""

    table: str
    """The table's file name."""
    total: int
    """Samples in it."""
    rows: Sequence[Row]
    names: tuple[str, ...] | None
    evidence: Mapping[str, str]
    """The [evidence.ATTACK] table of audit.toml."""
    change: str
    """What was done to the samples, half a sentence."""
    told: tuple[str, ...]
    """What it did, in sentences."""
    train: str
    """The command that trains on the table."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """More for planting.json."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """The [model] table of audit.toml."""


def write_planting(
    written: Written, given: Mapping[str, Any], earlier: Earlier | None, *, test: Path | None
) -> None:
    """Write forget.csv, audit.toml and planting.json, with the earlier planting's, and say so.

    Args:
        written: what was planted now.
        given: the command line's values.
        earlier: what the table was poisoned with before.
        test: the clean test table.
    """
    folder, attack = given["output"], given["attack"]
    forget = _forget_csv(written.rows, attack, earlier)
    write_atomically(folder / FORGET, forget)
    data: dict[str, Any] = {"train": written.table}
    if test is not None:
        data["test"] = Path(os.path.relpath(test, folder)).as_posix()
    if written.names:
        data["names"] = list(written.names)
    tables: dict[str, Mapping[str, Any]] = {"model": written.model, "data": data}
    tables.update(copy_evidence(earlier, folder))
    tables[f"evidence.{attack}"] = written.evidence
    left = write_config(folder / CONFIG, {name: table for name, table in tables.items() if table})
    facts = {
        "attack": attack,
        "poisons": len(written.rows),
        "samples": written.total,
        "seed": given["seed"],
        **written.facts,
        "train": written.table,
        "forget_sha256": hashlib.sha256(forget.encode()).hexdigest(),
        "told": list(written.told),
        **({"earlier": earlier.facts} if earlier else {}),
    }
    write_atomically(folder / PLANTING, json.dumps(facts, indent=1) + "\n")
    _say(written, given, earlier, left)


def _say(written: Written, given: Mapping[str, Any], earlier: Earlier | None, left: str) -> None:
    folder, count, total = given["output"], len(written.rows), written.total
    print(
        f"{folder}: {count:,} of {total:,} training samples ({count / total:.1%}) are poison "
        f"({given['attack']}, seed {given['seed']}); {written.change}."
    )
    for line in written.told:
        print(line)
    if earlier:
        print(
            f"Kept: {len(earlier.rows):,} samples poisoned before ({', '.join(earlier.attacks)})."
        )
    if left:
        print(f"{folder / CONFIG} was written by hand; add to it:\n{left}")
    print(f"Next: {written.train}")


def _forget_csv(found: Sequence[Row], attack: str, earlier: Earlier | None) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    rows.writerows(earlier.rows if earlier else ())
    rows.writerows((row.name, row.label, attack, row.base, row.campaign) for row in found)
    return text.getvalue()
