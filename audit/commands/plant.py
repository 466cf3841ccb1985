"""What `plant` does: a clean table -> a poisoned copy, its forget.csv and the evidence it needs.

The attack's own planter crafts the poison and writes its evidence; all the rest happens here.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

import click
import torch

from poison_audit.atomic import write_atomically
from poison_audit.case.forget import CHANCE
from poison_audit.case.labels import are_other_numbers
from poison_audit.case.orders import Made, Order, Work
from poison_audit.case.planting import Storage
from poison_audit.case.tables import read_table, write_table
from poison_audit.case.texts import TextTable, read_text_table, spelling, write_text_table
from poison_audit.commands.config import write_config
from poison_audit.commands.inputs import device_named
from poison_audit.commands.plant_earlier import (
    COLUMNS,
    CONFIG,
    FORGET,
    MORE,
    PLANTING,
    clean_positions,
    copy_evidence,
    joined,
    wrong_table,
)
from poison_audit.commands.plant_options import PlantSettings
from poison_audit.commands.plant_settings import begun, count_of, read_settings
from poison_audit.errors import InputError, PlanError, Problem, Problems
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.probes import WORKINGS
from poison_audit.poisons.readings import POISONS

SMALL = "cifar-resnet:1-1-1-1:w16"
"""What `train` is proposed to make where nothing is said: minutes on two cores."""
PRETRAINED = " --recipe epochs=3 --recipe optimizer=adamw --recipe lr=5e-5"
"""How it is proposed to train a language model on."""


def plant(given: Mapping[str, Any]) -> int:
    """Plant one attack from the command line's values; return the exit code.

    Raises:
        InputError: every problem of every file and option, at once.
        PlanError: what was asked for cannot be planted in this table.
    """
    problems = Problems()
    settings = read_settings(given, problems)
    whole: Any = None
    test: Any = None
    work = None
    with problems.collecting():
        whole = _read(settings, settings.data)
    clean: list[int] = []
    if whole is not None:
        problems += wrong_table(settings.earlier, whole.ids, settings.data)
        clean = clean_positions(settings.earlier, whole.ids)
        with problems.collecting():
            storage = _storage(settings, whole)
        with problems.collecting():
            count, told = count_of(settings, len(whole))
            if told:
                click.echo(told, err=True)
        if settings.test is not None:
            with problems.collecting():
                test = _read(settings, settings.test, like=whole)
    if not problems and whole is not None:
        train, rng = whole.at(clean) if settings.earlier else whole, Rng(settings.seed)
        rng, folder = rng.named("plant", settings.attack), settings.output
        work = Work(train=train, count=count, storage=storage, rng=rng, folder=folder)
    device = torch.device("cpu")
    with problems.collecting():
        device = device_named(settings.device)
    order = Order(
        options=settings.options, problems=problems, work=work, table=whole, test=test,
        where_test=str(settings.test), arch=settings.arch, factory=settings.factory,
        normalize=settings.normalize, device=device,
    )  # fmt: skip
    planter = WORKINGS[settings.attack].planters.get(settings.kind)
    if planter is None:
        raise InputError(problems)
    # Without work there are problems, which the planter adds its own to, and raises.
    with begun(settings.output, given) if work else nullcontext():
        made = planter(order)
        _write(settings, made, joined(whole, clean, made.poisoned.table))
    return 0


def _read(
    settings: PlantSettings, path: Path, like: Samples | TextTable | None = None
) -> Samples | TextTable:
    """Read a table, with the labels and of the size of another."""
    names = like.names if like is not None and settings.names is None else settings.names
    if settings.kind == "texts":
        return read_text_table(path, names=names)
    if not isinstance(like, Samples):
        table = read_table(path, names=names)
        # Folders 0, 1, 10, 2 are classes 0, 1, 2, 3, and the planted table holds these numbers.
        misled = names is None and table.names is not None and are_other_numbers(table.names)
        return replace(table, names=None) if misled else table
    channels, height, width = like.x.shape[1:]
    return read_table(path, names=names, size=(channels, height, width))


def _storage(settings: PlantSettings, table: Samples | TextTable) -> Storage:
    if settings.earlier is None or isinstance(table, TextTable):
        return settings.storage or "unclipped"
    stored: Storage = "uint8" if table.x.dtype == torch.uint8 else "unclipped"
    if settings.storage not in (None, stored):
        what = f"the earlier poison is stored as {stored}, and stays as it is"
        raise PlanError(Problem(what, "--storage", "Leave it out"))
    return stored


def _write(settings: PlantSettings, made: Made[Any], table: Samples | TextTable) -> None:
    """Write the table, forget.csv, audit.toml and planting.json, and say what was planted."""
    folder, attack, earlier = settings.output, settings.attack, settings.earlier
    poisoned, changes = made.poisoned, dict[str, float | None]()
    if isinstance(table, TextTable):
        name, start = "train.csv", "MODEL_FOLDER" if made.start is None else made.start
        write_text_table(folder / name, table)
        change, model, network = made.change, "model", f" --start {quote(str(start))}{PRETRAINED}"
    else:
        name, model, network = "train.npz", "model.safetensors", _network(settings)
        write_table(folder / name, table)
        changes = {"largest_change": poisoned.largest, "rms_change": poisoned.rms}
        change = made.change or (
            f"pixels change by up to {poisoned.largest:.3f}, {poisoned.rms:.3f} rms"
        )
    forget = _forget_csv(settings, made)
    write_atomically(folder / FORGET, forget)
    _write_config(settings, made, name, table.names)
    planted = len(poisoned.ids)
    facts = {
        "attack": attack,
        "poisons": planted,
        "samples": len(table),
        "seed": settings.seed,
        **changes,
        "train": name,
        "forget_sha256": hashlib.sha256(forget.encode()).hexdigest(),
        "told": list(made.told),
        **({"earlier": earlier.facts} if earlier else {}),
    }
    write_atomically(folder / PLANTING, json.dumps(facts, indent=1) + "\n")
    print(
        f"{folder}: {planted:,} of {len(table):,} training samples ({planted / len(table):.1%}) "
        f"are poison ({attack}, seed {settings.seed}); {change}."
    )
    for line in made.told:
        print(line)
    if earlier:
        before = f"{len(earlier.rows):,} samples poisoned before"
        print(f"Kept: {before} ({', '.join(earlier.attacks)}).")
    if settings.test is None and not (earlier and earlier.config.get("data", "test")):
        print("The audit will need a clean test table: give --test here, or to `check`.")
    data, trained = (quote(str(folder / each)) for each in (name, model))
    print(f"Next: poison-audit train {data} -o {trained}{network}")


def _network(settings: PlantSettings) -> str:
    """Return what is to be said of a network that `train` makes, where nothing says it yet."""
    lacking = {"arch": SMALL, "normalize": "none"}
    if settings.model.get("factory"):
        del lacking["arch"]
    said = "".join(f" --{k} {v}" for k, v in lacking.items() if not settings.model.get(k))
    return f"{said} --recipe epochs=30"


def _write_config(
    settings: PlantSettings, made: Made[Any], train: str, names: tuple[str, ...] | None
) -> None:
    folder, data = settings.output, dict[str, Any](train=train)
    if settings.test is not None:
        data["test"] = Path(os.path.relpath(settings.test, folder)).as_posix()
    if names:
        data["names"] = list(names)
    tables: dict[str, Mapping[str, Any]] = {
        "model": settings.model,
        "data": data,
        **copy_evidence(settings.earlier, folder),
        POISONS[settings.attack].table: made.evidence,
    }
    write_config(folder / CONFIG, {name: table for name, table in tables.items() if table})


def _forget_csv(settings: PlantSettings, made: Made[Any]) -> str:
    poisoned, table = made.poisoned, made.poisoned.table
    where = {name: place for place, name in enumerate(table.ids)}
    count, none = len(poisoned.ids), ("",) * len(poisoned.ids)
    rows = list(settings.earlier.rows) if settings.earlier else []
    rows += zip(
        poisoned.ids,
        (spelling(int(table.y[where[name]]), table.names) for name in poisoned.ids),
        (settings.attack,) * count,
        (base or "" for base in poisoned.bases),
        made.campaigns or none,
        [spelling(label, table.names) for label in made.clean] or none,
        (CHANCE if made.chance else "",) * count,
        strict=True,
    )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    used = len(COLUMNS + MORE) if any(any(row[len(COLUMNS) :]) for row in rows) else len(COLUMNS)
    writer.writerow((COLUMNS + MORE)[:used])
    writer.writerows(row[:used] for row in rows)
    return text.getvalue()
