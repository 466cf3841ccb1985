"""Run directories: which audit one belongs to, and which one to go on in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch

from audit.errors import InputError, Problem
from audit.files import write_atomically
from audit.records import Json, Plan, Recipe


def fingerprint(plan: Plan, recipe: Recipe, subject: Mapping[str, Json], device: str) -> str:
    """Return the SHA-256 of everything that decides the measurements of an audit.

    Policy, gate, candidates on trial, methods and budgets are left out: they choose among
    measurements, and do not change one. References are not: probes compare with them.
    """
    told = {
        "version": version("poison-audit"),
        "code": code_digest(),
        "torch": torch.__version__,
        "device": device,
        "seed": plan.seed,
        "found": (plan.found, plan.found_seed),
        "probes": [asdict(step) for step in plan.probes],
        "recipe": asdict(recipe),
        "subject": {
            key: subject[key]
            for key in (
                "model_sha256",
                "arch",
                "normalize",
                "train_sha256",
                "forget_sha256",
                "test_sha256",
            )
        },
        "evidence": {
            "canaries": (subject["canaries"] or {}).get("commitment"),
            "targets": (subject["targets"] or {}).get("sha256"),
            "trigger": (subject["trigger"] or {}).get("sha256"),
            "strings": (subject["strings"] or {}).get("commitment"),
            "reading": subject["reading"],
            "references": sorted(
                made["sha256"]
                for made in subject["candidates"].values()
                if made["kind"] == "reference"
            ),
        },
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def code_digest() -> str:
    """Return the SHA-256 of this package's source: another default is another measurement."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def open_run(out: Path | None, key: str, *, started: str) -> Path:
    """Return the run directory: the one named, an unfinished one of the same audit, or a new one.

    Args:
        out: `--out`, or None.
        key: the audit's `fingerprint`.
        started: UTC time for the name of a new directory.

    Raises:
        InputError: `out` holds another audit, or is no folder that can be written.
    """
    if out is None:
        out = next(_unfinished(key), Path(f"audit-{started}"))
    marker = out / "run.json"
    try:
        if marker.exists() and marker.read_text("utf-8", errors="replace") != _marked(key):
            what = "holds an audit of another model, data set or plan, or of another version"
            raise InputError(Problem(what, str(out), "Choose another --out"))
        write_atomically(marker, _marked(key))
    except OSError as error:
        what = f"cannot be written ({error.strerror})"
        raise InputError(Problem(what, str(out), "Choose another --out")) from error
    return out


def _marked(key: str) -> str:
    return json.dumps({"key": key}) + "\n"


def _unfinished(key: str) -> Iterator[Path]:
    for marker in sorted(Path().glob("audit-*/run.json"), reverse=True):
        same = marker.read_text(encoding="utf-8", errors="replace") == _marked(key)
        if same and not (marker.parent / "report.json").exists():
            yield marker.parent
