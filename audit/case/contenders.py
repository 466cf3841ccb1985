"""Checkpoints that were made elsewhere and are judged beside the deployed one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from poison_audit.case.sources import Sources
from poison_audit.errors import InputError, Problem, Problems
from poison_audit.models.checkpoint import Loaded, load_like
from poison_audit.records import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A checkpoint that was made elsewhere and is judged beside the deployed one."""

    name: str
    kind: Kind
    path: Path
    sha256: str


def read_contenders(
    sources: Sources, loaded: Loaded | None, problems: Problems
) -> tuple[Contender, ...]:
    """Check that every reference and candidate can be read, adding to `problems`."""
    kinds: list[tuple[str, Kind, Path]] = []
    for path in sources.references:
        kinds.append((_unused(path.stem, {name for name, _, _ in kinds}), "reference", path))
    kinds += [(name, "candidate", path) for name, path in sources.candidates.items()]
    if loaded is None:
        return ()
    contenders, deployed = [], loaded.model.digest()
    for name, kind, path in kinds:
        with problems.collecting():
            model, sha256 = load_like(loaded.model, path, allow_pickle=sources.allow_pickle)
            # A reference may be the model on trial: somebody audits the reference.
            if kind == "candidate" and model.digest() == deployed:
                what = f"is bit for bit the deployed model, {sources.model}: it was not unlearned"
                fix = "Give the checkpoint that was, or leave it out"
                raise InputError(Problem(what, f"--candidate {name}={path}", fix))
            contenders.append(Contender(name=name, kind=kind, path=path, sha256=sha256))
    return tuple(contenders)


def _unused(name: str, taken: set[str]) -> str:
    number = 2
    unique = name
    while unique in taken:
        unique, number = f"{name}-{number}", number + 1
    return unique
