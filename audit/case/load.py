"""Paths become a validated Case and what stands around it, with all problems found at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from poison_audit.case.case import Case
from poison_audit.case.contenders import Contender, read_contenders
from poison_audit.case.copies import distinct
from poison_audit.case.doubts import Doubt
from poison_audit.case.files import Evidence, Reader, misfits, read_files
from poison_audit.case.forget import split
from poison_audit.case.poison import Poison
from poison_audit.case.sources import Sources, missing
from poison_audit.case.subject import files_read, limits, subject
from poison_audit.models.memory import has_room
from poison_audit.records import Json, Recipe

__all__ = ["Contender", "Sources", "Trial", "load_trial"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A validated case and what stands around it."""

    case: Case
    contenders: tuple[Contender, ...]
    subject: Mapping[str, Json]
    """Paths, digests and sizes, for the report."""
    limits: tuple[str, ...]
    """What this case cannot show, in sentences."""
    doubts: tuple[Doubt, ...]
    """Why the gate may not open, whatever is measured."""
    files: tuple[tuple[str, Path], ...]
    """What was read: (role, path)."""


def load_trial(
    sources: Sources,
    *,
    recipe: Recipe,
    device: torch.device | str,
    poisons: Mapping[str, Poison],
    readers: Mapping[str, Reader],
) -> Trial:
    """Read and check everything on trial.

    Args:
        sources: where it lies.
        recipe: how the model was trained.
        device: where the case is to lie.
        poisons: those there are.
        readers: of their evidence, in the order in which it is read and told.

    Raises:
        InputError: every problem of every file, at once.
    """
    problems = missing(sources)
    files = read_files(sources, poisons, problems)
    problems += misfits(files, recipe)
    brought: dict[str, Evidence] = {}
    for name, read in readers.items():
        brought[name] = evidence = read(files, device, problems)
        files = files if evidence.train is None else replace(files, train=evidence.train)
    asked = None if problems else files.test
    others = read_contenders(sources, files.loaded, asked, problems)
    problems.raise_any()
    contenders = others.every
    loaded, train, test, forget = files.loaded, files.train, files.test, files.forget
    if loaded is None or train is None or test is None or forget is None:
        raise RuntimeError("a part of the case is missing, but no problem was reported")
    parts, clean = split(train, forget), distinct(test)
    case = Case(
        model=replace(loaded.model, module=loaded.model.module.to(device).eval()),
        retain=parts.retain.to(device, streamed=not has_room(parts.retain.x, device)),
        forget=parts.forget.to(device),
        test=clean.samples.to(device, streamed=not has_room(test.x, device)),
        recipe=recipe,
        evidence={name: e.planted for name, e in brought.items() if e.planted is not None},
        attacks=forget.attacks,
    )
    told = [file.name for name in brought for file in poisons[name].files]
    return Trial(
        case=case,
        contenders=contenders,
        subject=subject(files, case, list(brought.values()), contenders),
        limits=(*clean.said(), *others.told, *limits(files, list(brought.values()))),
        doubts=tuple(doubt for each in brought.values() for doubt in each.doubts),
        files=files_read(files, told, contenders),
    )
