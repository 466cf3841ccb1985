"""Cells on disk: what each is made of, where it lies, and whether what lies there can be used."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from poison_audit.atomic import from_json
from poison_audit.case.contenders import Contender
from poison_audit.errors import InputError
from poison_audit.models.checkpoint import save_model
from poison_audit.models.model import Model
from poison_audit.models.weights import SINGLE
from poison_audit.records import Cell, Kind, Step

OUT_OF_MEMORY = "ran out of memory"
"""In every reason of what is missing for want of memory."""
DIED = "died"
"""In the reason of what is missing since whatever worked on it did not live to tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one cell will be made of."""

    candidate: str
    kind: Kind
    seed: int = 0
    method: Step | None = None
    budget: float | None = None
    """Fraction of the original training; None: no bound, no method."""
    contender: Contender | None = None


def blank(job: Job) -> Cell:
    """Return a job's cell before anything is known of it."""
    return Cell(
        candidate=job.candidate,
        kind=job.kind,
        seed=job.seed,
        method=job.method,
        budget=job.budget,
    )


def starved(cell: Cell) -> bool:
    """Return whether anything of a cell is missing because memory gave out, or its worker died."""
    told = [cell.error]
    for seen in cell.measurements:
        told += [seen.missing, seen.suspect]
    return any(OUT_OF_MEMORY in why or DIED in why for why in told if why)


def save_unlearned(model: Model, cell: Cell, path: Path) -> None:
    """Write the model of a cell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    extra = {
        "poison_audit.method": cell.method.name if cell.method else "",
        "poison_audit.digest": cell.digest or "",
    }
    save_model(model, path, extra=extra)


def cell_path(out: Path, job: Job, key: str) -> Path:
    """Return where a job's cell lies, under the digest of all that decides it."""
    own = {
        "job": asdict(job.method) if job.method else None,
        "seed": job.seed,
        "budget": job.budget,
        "key": key,
    }
    if job.contender is not None:
        own["sha256"] = job.contender.sha256
    digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()
    return out / "cells" / f"{_safe(job.candidate)}-{job.seed}-{digest[:16]}.json"


def model_path(out: Path, job: Job, model: Model) -> Path:
    """Return where a job's unlearned model lies; `model` is any of its architecture."""
    suffix = f"-{job.seed}" if job.seed else ""
    name = f"{_safe(job.candidate)}{suffix}"
    # A model of texts is a folder, which transformers can read as well.
    return out / "models" / (f"{name}/{SINGLE}" if model.reader else f"{name}.safetensors")


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:60]


def stored(path: Path) -> tuple[Cell | None, bool]:
    """Return the cell that lies there, and whether what lies there is damaged."""
    try:
        return from_json(Cell, path.read_text(encoding="utf-8"), where=str(path)), False
    except FileNotFoundError:
        return None, False
    except (UnicodeDecodeError, InputError):
        return None, True
