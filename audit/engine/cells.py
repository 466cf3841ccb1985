"""Cells on disk: what each is made of, where it lies, and whether what lies there can be used."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from poison_audit.atomic import digest_of, from_json
from poison_audit.engine.jobs import Job
from poison_audit.errors import InputError
from poison_audit.models.model import Model
from poison_audit.models.saving import save_model
from poison_audit.models.weights import SINGLE
from poison_audit.records import Cell

T = TypeVar("T")


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


def save_unlearned(model: Model, method: str, path: Path) -> None:
    """Write the model that a method made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    extra = {"poison_audit.method": method, "poison_audit.digest": model.digest()}
    save_model(model, path, extra=extra)


def cell_path(out: Path, job: Job, key: str) -> Path:
    """Return where a job's cell lies, under the digest of all that decides it."""
    method = asdict(job.method) if job.method else None
    own = {"job": method, "seed": job.seed, "budget": job.budget, "key": key}
    if job.contender is not None:
        own["sha256"] = job.contender.sha256
    return kept_path(out, f"{_safe(job.candidate)}-{job.seed}", own)


def kept_path(out: Path, name: str, told: Mapping[str, Any]) -> Path:
    """Return where something lies among the cells, under the digest of all that decides it."""
    return out / "cells" / f"{name}-{digest_of(told)[:16]}.json"


def model_path(out: Path, job: Job, model: Model) -> Path:
    """Return where a job's unlearned model lies; `model` is any of its architecture."""
    suffix = f"-{job.seed}" if job.seed else ""
    name = f"{_safe(job.candidate)}{suffix}"
    # A model of texts is a folder, which transformers can read as well.
    return out / "models" / (f"{name}/{SINGLE}" if model.reader else f"{name}.safetensors")


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:60]


def stored(kind: type[T], path: Path) -> tuple[T | None, bool]:
    """Return the record that lies there, and whether what lies there is damaged."""
    try:
        return from_json(kind, path.read_text(encoding="utf-8"), where=str(path)), False
    except FileNotFoundError:
        return None, False
    except (UnicodeDecodeError, InputError):
        return None, True
