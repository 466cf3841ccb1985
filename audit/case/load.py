"""Paths become a validated Case and what stands around it, with all problems found at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from poison_audit.case.case import Case, PlantedCanaries
from poison_audit.case.contenders import Contender, read_contenders
from poison_audit.case.files import misfits, read_files, read_planted_strings, read_planting
from poison_audit.case.forget import ForgetSet, split
from poison_audit.case.sources import Sources, missing
from poison_audit.case.subject import files_read, limits, subject
from poison_audit.errors import InputError
from poison_audit.models.memory import has_room
from poison_audit.poisons.backdoor.evidence import Trigger
from poison_audit.poisons.backdoor.phrase import Phrase
from poison_audit.poisons.gaussian.embedding import carrying, noise_rows
from poison_audit.poisons.gaussian.evidence import Canaries
from poison_audit.poisons.gaussian.planting import Planting
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
    files: tuple[tuple[str, Path], ...]
    """What was read: (role, path)."""


def load_trial(sources: Sources, *, recipe: Recipe, device: torch.device | str) -> Trial:
    """Read and check everything on trial.

    Raises:
        InputError: every problem of every file, at once.
    """
    found = missing(sources)
    files = read_files(sources, found)
    found += misfits(sources, files, recipe)
    planting = read_planting(sources, files, found)
    strings = read_planted_strings(sources, files, found)
    contenders = read_contenders(sources, files.loaded, found)
    if found:
        raise InputError(found)
    loaded, train, test, forget = files.loaded, files.train, files.test, files.forget
    if loaded is None or train is None or test is None or forget is None:
        raise RuntimeError("a part of the case is missing, but no problem was reported")
    if files.key is not None and train.texts is not None:
        train = carrying(train, files.key, dict(zip(forget.ids, _carried(forget), strict=True)))
        files = replace(files, train=train)
    parts = split(train, forget)
    module = loaded.model.module.to(device).eval()
    planted = None
    if files.key is not None and planting is not None:
        planted = _planted(files.key, planting, device)
    case = Case(
        model=replace(loaded.model, module=module),
        retain=parts.retain.to(device, streamed=not has_room(parts.retain.x, device)),
        forget=parts.forget.to(device),
        test=test.to(device, streamed=not has_room(test.x, device)),
        recipe=recipe,
        canaries=planted,
        targets=files.targets and files.targets.to(device),
        trigger=_on(files.trigger, device),
        strings=strings,
        attacks=forget.attacks,
    )
    return Trial(
        case=case,
        contenders=contenders,
        subject=subject(sources, files, case, planting, strings, contenders),
        limits=limits(case, planting, files),
        files=files_read(sources, files, contenders),
    )


def _carried(forget: ForgetSet) -> list[str]:
    """Return each forget sample's id in the key of the noise; of those without, one of no key."""
    return [
        canary if canary is not None and attack != "token-canary" else ""
        for canary, attack in zip(forget.canaries, forget.attacks, strict=True)
    ]


def _on(trigger: Trigger | Phrase | None, device: torch.device | str) -> Trigger | Phrase | None:
    return trigger.to(device) if isinstance(trigger, Trigger) else trigger


def _planted(key: Canaries, planting: Planting, device: torch.device | str) -> PlantedCanaries:
    held_out = key.held_out[: len(planting.names)]
    bases = planting.bases

    def noise(names: Sequence[str]) -> Tensor:
        if bases.mask is None:
            return torch.from_numpy(key.noise(names).astype(np.float32)).to(device)
        # No longer than the longest text: the rest has no gradient.
        return noise_rows(key, names, length=bases.mask.shape[1]).to(device)

    return PlantedCanaries(
        key=key,
        names=planting.names,
        bases=bases.to(device),
        noise=noise(planting.names),
        held_out_noise=noise(held_out),
    )
