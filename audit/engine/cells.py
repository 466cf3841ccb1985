"""Cells on disk: what each is made of, where it lies, and whether what lies there can be used.

What lies in a run directory may be anybody's: CI restores it from a cache, a repository may bring
it. It is taken only if it is signed with this user's key (`case.signing`, which says who is
trusted) as the result of exactly this: the digest of all that decides it is signed, too. A cell
must be whole, of its job, and of the weights that are on trial now. All else is measured again, and
that is said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, TypeVar

from poison_audit.atomic import digest_of, from_json, read_plainly, write_atomically
from poison_audit.case.signing import is_ours, signature
from poison_audit.checks.own import is_own, own_reading
from poison_audit.checks.readings import READINGS as CHECKS
from poison_audit.engine.jobs import Job
from poison_audit.errors import InputError
from poison_audit.models.checkpoint import load_like
from poison_audit.models.header import ANEW_KEY, METHOD_KEY, OF_KEY
from poison_audit.models.model import Model
from poison_audit.models.saving import save_model
from poison_audit.models.weights import SINGLE
from poison_audit.poisons.readings import READINGS as POISONS
from poison_audit.records import Cell, Measurement

T = TypeVar("T")
SIGNATURE = "signature"
"""The key of a stored result that is none of its record's."""
READINGS = {**POISONS, **CHECKS}
_RESULT = "result"


class Lack(StrEnum):
    """Why something is missing that another try may bring, in the words of reports."""

    OUT_OF_MEMORY = "ran out of memory"
    DIED = "died"
    """Whatever worked on it did not live to tell."""


def blank(job: Job) -> Cell:
    """Return a job's cell before anything is known of it."""
    return Cell(
        candidate=job.candidate, kind=job.kind, seed=job.seed, method=job.method, budget=job.budget
    )


def save_unlearned(
    model: Model, method: str, path: Path, *, made_of: Sequence[str], anew: bool
) -> None:
    """Write a model that a method made.

    Args:
        made_of: digests of the models that it was made of, the deployed one last.
        anew: whether it was trained anew, without any of the forget set.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    extra = {METHOD_KEY: method, OF_KEY: ",".join(made_of), "poison_audit.digest": model.digest()}
    if anew:
        extra[ANEW_KEY] = "yes"
    save_model(model, path, extra=extra)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a result lies, and what it is the result of."""

    path: Path
    identity: str
    """SHA-256 of all that decides it."""


def cell_place(out: Path, job: Job, key: str) -> Place:
    """Return where a job's cell lies, under the digest of all that decides it."""
    method = asdict(job.method) if job.method else None
    own = {"job": method, "seed": job.seed, "budget": job.budget, "key": key}
    if job.contender is not None:
        own["sha256"] = job.contender.sha256
    return kept_place(out, f"{_safe(job.candidate)}-{job.seed}", own)


def kept_place(out: Path, name: str, told: Mapping[str, Any]) -> Place:
    """Return where something lies among the cells, under the digest of all that decides it."""
    identity = digest_of(told)
    return Place(path=out / "cells" / f"{name}-{identity[:16]}.json", identity=identity)


def model_path(out: Path, job: Job, model: Model) -> Path:
    """Return where a job's unlearned model lies; `model` is any of its architecture."""
    suffix = f"-{job.seed}" if job.seed else ""
    name = f"{_safe(job.candidate)}{suffix}"
    # A model of texts is a folder, which transformers can read as well.
    return out / "models" / (f"{name}/{SINGLE}" if model.reader else f"{name}.safetensors")


def has_model(out: Path, job: Job, cell: Cell, like: Model) -> bool:
    """Return whether the unlearned model of a cell lies there, and is the one that was measured."""
    path = model_path(out, job, like)
    if cell.digest is None:
        return True
    try:
        return path.is_file() and load_like(like, path)[0].digest() == cell.digest
    except InputError:
        return False


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:60]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored(Generic[T]):
    """What lies in a place."""

    record: T | None = None
    """None: nothing that can be used."""
    why: str = ""
    """Why what lies there cannot: `is damaged`; empty where nothing lies there."""


def store(place: Place, record: Any) -> None:
    """Write a result, signed."""
    plain = json.loads(json.dumps(asdict(record), allow_nan=False))
    signed = {**plain, SIGNATURE: signature(f"{_RESULT} {place.identity}", plain)}
    write_atomically(place.path, json.dumps(signed, indent=1, sort_keys=True) + "\n")


def stored(kind: type[T], place: Place) -> Stored[T]:
    """Return the result that lies in a place, if it is this user's of exactly this."""
    try:
        text = read_plainly(place.path).decode("utf-8")
        plain = json.loads(text)
        signed = plain.pop(SIGNATURE, None)
        record = from_json(kind, json.dumps(plain), where=str(place.path))
    except FileNotFoundError:
        return Stored()
    except (OSError, ValueError, AttributeError, TypeError, RecursionError, InputError):
        return Stored(why="is damaged")
    if not is_ours(f"{_RESULT} {place.identity}", plain, signed):
        return Stored(why="is not signed with your key")
    return Stored(record=record)


def stored_cell(place: Place, job: Job, digest: str | None) -> Stored[Cell]:
    """Return a job's cell, if it can be used.

    Args:
        digest: of the model that is on trial; None where the job makes its own.
    """
    found = stored(Cell, place)
    cell = found.record
    if cell is None:
        return found
    if _job_of(cell) != _job_of(blank(job)):
        return Stored(why="is of another job")
    if digest is not None and cell.digest != digest:
        return Stored(why="is of other weights")
    every = [*cell.measurements, *(seen for woken in cell.woken for seen in woken.measurements)]
    every += cell.own
    if any(seen.evidence is not None and not _whole(seen) for seen in every):
        return Stored(why="is damaged")
    return found


def _job_of(cell: Cell) -> str:
    told = asdict(cell)
    return digest_of(
        {name: told[name] for name in ("candidate", "kind", "seed", "method", "budget")}
    )


def _whole(seen: Measurement) -> bool:
    reading = own_reading(seen.probe) if is_own(seen.probe) else READINGS.get(seen.probe)
    try:
        return reading is not None and reading.read(seen.evidence or {}) is not None
    except InputError:
        return False
