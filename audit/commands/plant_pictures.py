"""Planting in pictures: each attack, and the table that it ends in."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from poison_audit.case.poisoned import Poisoned
from poison_audit.case.samples import Samples
from poison_audit.commands.plant_earlier import in_order
from poison_audit.commands.plant_picture_order import PictureOrder, read_pictures_order
from poison_audit.commands.plant_writing import Row, Written, write_planting
from poison_audit.poisons.backdoor.evidence import write_trigger
from poison_audit.poisons.backdoor.plant import plant_trigger
from poison_audit.poisons.gaussian.evidence import new_secret, write_canaries
from poison_audit.poisons.gaussian.plant import plant_gaussian
from poison_audit.poisons.indiscriminate.plant import plant_canceling, plant_flips
from poison_audit.poisons.targeted.evidence import write_targets
from poison_audit.poisons.targeted.plant import choose_targets, plant_targeted

TABLE = "train.npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """What was planted."""

    poisoned: Poisoned[Samples]
    evidence: Mapping[str, str]
    """The [evidence.ATTACK] table of audit.toml."""
    told: tuple[str, ...]
    """What it did, in sentences."""
    campaigns: tuple[str, ...] = ()


def plant_pictures(given: Mapping[str, Any]) -> None:
    """Plant one attack in a table of pictures.

    Raises:
        InputError: every problem of every file and option, at once.
        PlanError: what was asked for cannot be planted in this table.
    """
    order = read_pictures_order(given)
    folder: Path = given["output"]
    made = _ATTACKS[given["attack"]](order, folder)
    table = _joined(order, made.poisoned.table)
    write_table(folder / TABLE, table)
    largest, rms = made.poisoned.largest, made.poisoned.rms
    change = "they were added to the clean samples"
    if largest is not None:
        change = f"pixels change by up to {largest:.3f}, {rms:.3f} rms"
    written = Written(
        table=TABLE,
        total=len(table),
        rows=_rows(made),
        names=table.names,
        evidence=made.evidence,
        change=change,
        told=made.told,
        train=f"poison-audit train {folder / TABLE} -o {folder / 'model.safetensors'}",
        facts={"largest_change": largest, "rms_change": rms},
    )
    write_planting(written, given, order.earlier, test=order.test_path)


def _gaussian(order: PictureOrder, folder: Path) -> _Made:
    given, key = order.given, order.key
    sigma = given["sigma"] if given["sigma"] is not None else (key.sigma if key else 0.2)
    planted = plant_gaussian(
        order.train,
        order.rng,
        count=order.count,
        secret=key.secret if key else new_secret(),
        sigma=sigma,
        storage=order.storage,
    )
    folder.mkdir(parents=True, exist_ok=True)
    commitment = write_canaries(folder / "canaries.json", planted.key)
    write_table(folder / "bases.npz", planted.bases)
    return _Made(
        poisoned=planted.poisoned,
        evidence={"canaries": "canaries.json", "bases": "bases.npz"},
        told=(
            f"Noise of sd {sigma:g} keyed by a secret; {planted.attenuation:.0%} of it is left "
            f"after {order.storage} storage. As many keys are held out.",
            f"Commitment (SHA-256 of canaries.json): {commitment}",
            "Publish the commitment before training; keep canaries.json secret until the audit.",
        ),
    )


def _backdoor(order: PictureOrder, folder: Path) -> _Made:
    given, trigger = order.given, order.trigger
    if trigger is None:
        raise ValueError("a backdoor has a trigger")
    poisoned = plant_trigger(
        order.train,
        trigger,
        order.rng,
        count=order.count,
        clean_label=given["clean_label"],
        surrogate=next(iter(order.surrogates), None),
        epsilon=given["epsilon"] or 16 / 255,
        storage=order.storage,
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_trigger(folder / "trigger.json", trigger)
    height, width = trigger.pixels.shape[1:]
    labels = "kept (clean labels)" if given["clean_label"] else "changed to it (dirty labels)"
    return _Made(
        poisoned=poisoned,
        evidence={"trigger": "trigger.json"},
        told=(
            f"A patch of {height}x{width} at row {trigger.top}, column {trigger.left} is to cause "
            f"the label {trigger.label}; labels are {labels}.",
        ),
    )


def _targeted(order: PictureOrder, folder: Path) -> _Made:
    given, train, test, targets = order.given, order.train, order.test, order.targets
    if test is None:
        raise ValueError("a targeted attack has a test table")
    if targets is None:
        aims = 8 if given["aims"] is None else given["aims"]
        targets = choose_targets(order.surrogates[0], test, count=aims)
    made = plant_targeted(
        order.surrogates,
        train,
        targets,
        order.rng,
        count=order.count,
        storage=order.storage,
        **{k: given[k] for k in ("epsilon", "steps", "restarts") if given[k] is not None},
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_targets(folder / "targets.csv", targets, train.names)
    return _Made(
        poisoned=made.poisoned,
        campaigns=made.campaigns,
        evidence={"targets": "targets.csv"},
        told=(
            f"{len(targets)} targets, {order.count} poisons each; gradient matched to a loss of "
            f"{np.mean(made.losses):.2f} on average (0 = matched, 1 = no better than chance).",
        ),
    )


def _indiscriminate(order: PictureOrder, folder: Path) -> _Made:
    steps, flip, storage = order.given["steps"], order.flip, order.storage
    if steps == 0 and flip is not None:
        made = plant_flips(order.train, order.rng, count=order.count, flip=flip, storage=storage)
    else:
        made = plant_canceling(
            order.surrogates[0],
            order.train,
            order.rng,
            count=order.count,
            flip=flip,
            storage=storage,
            **({} if steps is None else {"steps": steps}),
        )
    folder.mkdir(parents=True, exist_ok=True)
    return _Made(poisoned=made.poisoned, evidence={}, told=made.told)


_ATTACKS: dict[str, Callable[[PictureOrder, Path], _Made]] = {
    "gaussian": _gaussian,
    "targeted": _targeted,
    "backdoor": _backdoor,
    "indiscriminate": _indiscriminate,
}


def write_table(path: Path, samples: Samples) -> None:
    """Write samples as an npz table, through a temporary neighbour."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.npz")
    try:
        np.savez_compressed(
            partial, id=np.array(samples.ids), x=samples.x.numpy(), y=samples.y.numpy()
        )
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _joined(order: PictureOrder, planted: Samples) -> Samples:
    """Return the table with what was planted now and before, its samples where they stood."""
    clean, total = set(order.clean), len(order.whole)
    if len(clean) == total:
        return planted
    before = order.whole.at([place for place in range(total) if place not in clean])
    places = in_order(order.clean, total=total, planted=len(planted))
    return before.joined(planted).at(places)


def _rows(made: _Made) -> list[Row]:
    train = made.poisoned.table
    where = {name: position for position, name in enumerate(train.ids)}
    campaigns = made.campaigns or ("",) * len(made.poisoned.ids)
    return [
        Row(
            name=name,
            label=_spelt(int(train.y[where[name]]), train.names),
            base=base or "",
            campaign=campaign,
        )
        for name, base, campaign in zip(
            made.poisoned.ids, made.poisoned.bases, campaigns, strict=True
        )
    ]


def _spelt(label: int, names: tuple[str, ...] | None) -> str:
    return names[label] if names else str(label)
