"""What `plant` does: a clean table -> a poisoned copy, its forget.csv and the evidence it needs."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audit.attacks.gaussian import plant_gaussian
from audit.attacks.indiscriminate import plant_canceling, plant_flips
from audit.attacks.poisoned import Poisoned
from audit.attacks.targeted import choose_targets, plant_targeted
from audit.attacks.trigger import plant_trigger
from audit.config import write_config
from audit.data.canaries import new_secret, write_canaries
from audit.data.samples import Samples
from audit.data.targets import write_targets
from audit.data.trigger import write_trigger
from audit.files import write_atomically
from audit.planter.order import Order, read_order


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """What was planted."""

    poisoned: Poisoned
    evidence: Mapping[str, Any]
    """The [evidence.ATTACK] table of audit.toml."""
    told: tuple[str, ...]
    """What it did, in sentences."""
    campaigns: tuple[str, ...] = ()


def plant(given: Mapping[str, Any]) -> int:
    """Plant one attack from the command line's values; return the exit code.

    Raises:
        InputError: every problem of every file and option, at once.
        PlanError: what was asked for cannot be planted in this table.
    """
    order = read_order(given)
    folder: Path = given["output"]
    crafted = _ATTACKS[given["attack"]](order, folder)
    _write(order, crafted, folder)
    return 0


def _gaussian(order: Order, folder: Path) -> _Made:
    given, key = order.given, order.key
    sigma = given["sigma"] if given["sigma"] is not None else (key.sigma if key else 0.2)
    planted = plant_gaussian(
        order.train,
        order.rng,
        count=order.count,
        secret=key.secret if key else new_secret(),
        sigma=sigma,
        storage=given["storage"],
    )
    folder.mkdir(parents=True, exist_ok=True)
    commitment = write_canaries(folder / "canaries.json", planted.key)
    write_table(folder / "bases.npz", planted.bases)
    return _Made(
        poisoned=planted.poisoned,
        evidence={"canaries": "canaries.json", "bases": "bases.npz"},
        told=(
            f"Noise of sd {sigma:g} keyed by a secret; {planted.attenuation:.0%} of it is left "
            f"after {given['storage']} storage. As many keys are held out.",
            f"Commitment (SHA-256 of canaries.json): {commitment}",
            "Publish the commitment before training; keep canaries.json secret until the audit.",
        ),
    )


def _backdoor(order: Order, folder: Path) -> _Made:
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
        storage=given["storage"],
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


def _targeted(order: Order, folder: Path) -> _Made:
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
        storage=given["storage"],
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


def _indiscriminate(order: Order, folder: Path) -> _Made:
    steps, flip, storage = order.given["steps"], order.flip, order.given["storage"]
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


_ATTACKS: dict[str, Callable[[Order, Path], _Made]] = {
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


def _write(order: Order, made: _Made, folder: Path) -> None:
    given, poisoned = order.given, made.poisoned
    write_table(folder / "train.npz", poisoned.train)
    forget = _forget_csv(poisoned, given["attack"], made.campaigns)
    write_atomically(folder / "forget.csv", forget)
    data: dict[str, Any] = {"train": "train.npz"}
    if given["test"] is not None:
        data["test"] = Path(os.path.relpath(given["test"], folder)).as_posix()
    if poisoned.train.names:
        data["names"] = list(poisoned.train.names)
    tables: dict[str, Mapping[str, Any]] = {"data": data}
    if made.evidence:
        tables[f"evidence.{given['attack']}"] = made.evidence
    left = write_config(folder / "audit.toml", tables)
    count, total = len(poisoned.ids), len(poisoned.train)
    facts = {
        "attack": given["attack"],
        "poisons": count,
        "samples": total,
        "seed": given["seed"],
        "largest_change": poisoned.largest,
        "rms_change": poisoned.rms,
        "forget_sha256": hashlib.sha256(forget.encode()).hexdigest(),
        "told": list(made.told),
    }
    write_atomically(folder / "planting.json", json.dumps(facts, indent=1) + "\n")
    change = "they were added to the clean samples"
    if poisoned.largest is not None:
        change = f"pixels change by up to {poisoned.largest:.3f}, {poisoned.rms:.3f} rms"
    print(
        f"{folder}: {count:,} of {total:,} training samples ({count / total:.1%}) are poison "
        f"({given['attack']}, seed {given['seed']}); {change}."
    )
    for line in made.told:
        print(line)
    if left:
        print(f"{folder / 'audit.toml'} was written by hand; add to it:\n{left}")
    print(f"Next: poison-audit train {folder / 'train.npz'} -o {folder / 'model.safetensors'}")


def _forget_csv(poisoned: Poisoned, attack: str, campaigns: tuple[str, ...]) -> str:
    where = {name: position for position, name in enumerate(poisoned.train.ids)}
    names = poisoned.train.names
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["id", "label", "attack", "base", "campaign"])
    for number, (name, base) in enumerate(zip(poisoned.ids, poisoned.bases, strict=True)):
        label = int(poisoned.train.y[where[name]])
        campaign = campaigns[number] if campaigns else ""
        rows.writerow([name, names[label] if names else label, attack, base or "", campaign])
    return text.getvalue()
