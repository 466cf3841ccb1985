"""Paths become a validated Case and what stands around it, with all problems found at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from poison_audit.case.case import Case
from poison_audit.case.contenders import Contender, read_contenders
from poison_audit.case.copies import distinct
from poison_audit.case.doubts import Doubt
from poison_audit.case.files import Evidence, Files, Reader, misfits, read_files, with_logits
from poison_audit.case.forget import Split, split
from poison_audit.case.forgotten import left_behind, unseen_rows, unusual
from poison_audit.case.origin import elsewhere, judged_alone, made_of
from poison_audit.case.parts import missing_classes
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
    notices: tuple[str, ...] = ()
    """What a reader has to know before any figure, in sentences."""
    doubts: tuple[Doubt, ...] = ()
    """Why the gate may not open, whatever is measured."""
    files: tuple[tuple[str, Path], ...]
    """What was read: (role, path)."""
    made_of: tuple[str, ...] = ()
    """Digests of the models that whatever is made here is made of, the deployed one last."""


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
    files = files if problems else with_logits(files)
    brought: dict[str, Evidence] = {}
    for name, read in readers.items():
        brought[name] = evidence = read(files, device, problems)
        files = files if evidence.train is None else replace(files, train=evidence.train)
    asked = None if problems else files.test
    others = read_contenders(sources, files.loaded, problems, test=asked, train=files.train)
    problems.raise_any()
    contenders = others.every
    loaded, train, test, forget = files.loaded, files.train, files.test, files.forget
    if loaded is None or train is None or test is None or forget is None:
        raise RuntimeError("a part of the case is missing, but no problem was reported")
    parts, clean = split(train, forget), distinct(test)
    model = replace(loaded.model, module=loaded.model.module.to(device).eval())
    readings = list(brought.values())
    notices, doubts, copied = _kept(files, parts, readings)
    case = Case(
        model=model,
        retain=parts.retain.to(device, streamed=not has_room(parts.retain.x, device)),
        forget=parts.forget.to(device),
        test=clean.samples.to(device, streamed=not has_room(test.x, device)),
        recipe=recipe,
        evidence={name: e.planted for name, e in brought.items() if e.planted is not None},
        attacks=forget.attacks,
        stamp=next((e.stamp for e in brought.values() if e.stamp is not None), None),
    )
    told = [file.name for name in brought for file in poisons[name].files]
    classes, names = loaded.model.classes, (str(sources.train), str(sources.test))
    absent = missing_classes(train, test, classes, *names)
    return Trial(
        case=case,
        contenders=contenders,
        subject=subject(files, case, readings, contenders),
        limits=(*clean.said(), *others.told, *copied, *limits(files, readings)),
        notices=notices,
        doubts=(*others.doubts, *absent, *doubts),
        made_of=(*made_of(loaded.metadata), model.digest()),
        files=files_read(files, told, contenders),
    )


def _kept(
    files: Files, parts: Split, evidence: Sequence[Evidence]
) -> tuple[tuple[str, ...], tuple[Doubt, ...], tuple[str, ...]]:
    """Return what a reader has to know first, why nothing may pass, and further limits."""
    loaded, train, forget = files.loaded, files.train, files.forget
    if loaded is None or train is None or forget is None:
        raise ValueError("a case has a model, a training table and a forget set")
    measured = any(each.planted is not None or each.explains for each in evidence)
    twins, copied = left_behind(parts)
    otherwise, trusted = elsewhere(loaded.metadata, train, parts, forget)
    doubts = [
        *judged_alone(loaded.metadata, files.sources.model),
        *(doubt for each in evidence for doubt in each.doubts),
        *unseen_rows(forget, evidence, measured=measured),
        *twins,
    ]
    notices = [*unusual(forget, train), *(told for each in evidence for told in each.trust)]
    if measured:
        doubts += otherwise
        notices += trusted
    return tuple(notices), tuple(doubts), copied
