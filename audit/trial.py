"""Paths become a validated Case and what stands around it, with all problems found at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from audit.case import Case, PlantedCanaries
from audit.data.canaries import Canaries, read_canaries
from audit.data.forget import ForgetSet, overlap, read_forget, split
from audit.data.planting import Planting, plant_check
from audit.data.samples import Samples
from audit.data.tables import check_labels, read_table
from audit.errors import InputError, Problem
from audit.models.checkpoint import Loaded, load_like, load_model, parse_normalize
from audit.models.model import Model
from audit.records import Json, Kind, Recipe

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where everything on trial lies, as flags and audit.toml say; None where neither does."""

    model: Path
    forget: Path | None
    train: Path | None
    test: Path | None
    names: tuple[str, ...] | None = None
    """Label names, in the order of the model's outputs."""
    canaries: Path | None = None
    bases: Path | None = None
    references: tuple[Path, ...] = ()
    candidates: Mapping[str, Path] = field(default_factory=dict)
    arch: str | None = None
    factory: str | None = None
    normalize: str | None = None
    allow_pickle: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A checkpoint that was made elsewhere and is judged beside the deployed one."""

    name: str
    kind: Kind
    path: Path
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A validated case and what stands around it."""

    case: Case
    contenders: tuple[Contender, ...]
    subject: Mapping[str, Json]
    """Paths, digests and sizes, for the report."""
    limits: tuple[str, ...]
    """What this case cannot show, in sentences."""


def load_trial(sources: Sources, *, recipe: Recipe, device: torch.device | str) -> Trial:
    """Read and check everything on trial.

    Raises:
        InputError: every problem of every file, at once.
    """
    found: list[Problem] = []

    def attempt(read: Callable[..., T], *args: Any, **kwargs: Any) -> T | None:
        try:
            return read(*args, **kwargs)
        except InputError as error:
            found.extend(error.problems)
            return None

    found += _missing(sources)
    normalize = attempt(parse_normalize, sources.normalize) if sources.normalize else None
    loaded = attempt(
        load_model,
        sources.model,
        arch=sources.arch,
        factory=sources.factory,
        normalize=normalize,
        allow_pickle=sources.allow_pickle,
    )
    tables = {
        name: attempt(read_table, path, names=sources.names)
        for name, path in (("train", sources.train), ("test", sources.test))
        if path is not None
    }
    train, test = tables.get("train"), tables.get("test")
    forget = None
    if train is not None and sources.forget is not None:
        forget = attempt(read_forget, sources.forget, train, where_train=str(sources.train))
    if loaded is not None:
        for name, table in tables.items():
            if table is not None:
                where = str(getattr(sources, name))
                found += check_labels(table, loaded.model.classes, where)
                found += _unfit(loaded.model, table, where)
    planting = None
    key = attempt(read_canaries, sources.canaries) if sources.canaries else None
    bases = attempt(read_table, sources.bases, names=sources.names) if sources.bases else None
    if key and forget and train is not None and (bases is not None or not sources.bases):
        planting = attempt(
            plant_check,
            key,
            forget,
            train,
            bases,
            where=str(sources.canaries),
            where_forget=str(sources.forget),
        )
    contenders = _contenders(sources, loaded, found)
    parts = split(train, forget) if train is not None and forget is not None else None
    if parts is not None and test is not None:
        for name, part in (("retain", parts.retain), ("forget", parts.forget)):
            found += overlap(part, test, a_name=f"the {name} set", b_name=str(sources.test))
    if found:
        raise InputError(found)
    if loaded is None or test is None or parts is None or forget is None or train is None:
        raise RuntimeError("a part of the case is missing, but no problem was reported")
    if sources.train is None or sources.forget is None or sources.test is None:
        raise RuntimeError("a path of the case is missing, but no problem was reported")
    module = loaded.model.module.to(device).eval()
    case = Case(
        model=replace(loaded.model, module=module),
        retain=parts.retain.to(device),
        forget=parts.forget.to(device),
        test=test.to(device),
        recipe=recipe,
        canaries=None if key is None or planting is None else _planted(key, planting, device),
        attacks=forget.attacks,
    )
    return Trial(
        case=case,
        contenders=contenders,
        subject=_subject(sources, loaded, case, train, forget, key, planting, contenders),
        limits=_limits(case, planting),
    )


def _missing(sources: Sources) -> list[Problem]:
    wanted = {
        "forget": ("the forget set is not given", "--forget forget.csv"),
        "train": (
            "the training table is not given",
            '--train TABLE, or train = "TABLE" under [data] in audit.toml',
        ),
        "test": (
            "the test table is not given",
            '--test TABLE, or test = "TABLE" under [data] in audit.toml',
        ),
    }
    return [
        Problem(what, fix=f"Give it by {fix}")
        for name, (what, fix) in wanted.items()
        if getattr(sources, name) is None
    ]


def _unfit(model: Model, table: Samples, where: str) -> list[Problem]:
    """Return the problem of a table whose samples the model cannot take."""
    shape = tuple(table.x.shape[1:])
    try:
        with torch.no_grad():
            out = model.logits(model.module.eval(), table.batch(slice(0, 1)))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        fix = f"Give samples of the shape that {model.arch} was trained on"
        return [
            Problem(f"the model does not accept samples of shape {shape} ({reason})", where, fix)
        ]
    if out.shape != (1, model.classes):
        what = f"the model answers samples of shape {shape} with {tuple(out.shape)[1:]} logits"
        return [Problem(what, where, f"Expected {model.classes}, one a class")]
    return []


def _contenders(
    sources: Sources, loaded: Loaded | None, found: list[Problem]
) -> tuple[Contender, ...]:
    kinds: list[tuple[str, Kind, Path]] = []
    for path in sources.references:
        kinds.append((_unused(path.stem, {name for name, _, _ in kinds}), "reference", path))
    for name, path in sources.candidates.items():
        kinds.append((name, "candidate", path))
    contenders = []
    for name, kind, path in kinds:
        if loaded is None:
            continue
        try:
            _, sha256 = load_like(loaded.model, path, allow_pickle=sources.allow_pickle)
        except InputError as error:
            found.extend(error.problems)
            continue
        contenders.append(Contender(name=name, kind=kind, path=path, sha256=sha256))
    return tuple(contenders)


def _unused(name: str, taken: set[str]) -> str:
    number = 2
    unique = name
    while unique in taken:
        unique, number = f"{name}-{number}", number + 1
    return unique


def _planted(key: Canaries, planting: Planting, device: torch.device | str) -> PlantedCanaries:
    held_out = key.held_out[: len(planting.names)]
    return PlantedCanaries(
        key=key,
        names=planting.names,
        bases=planting.bases.to(device),
        noise=torch.from_numpy(key.noise(planting.names).astype(np.float32)).to(device),
        held_out_noise=torch.from_numpy(key.noise(held_out).astype(np.float32)).to(device),
    )


def _subject(
    sources: Sources,
    loaded: Loaded,
    case: Case,
    train: Samples,
    forget: ForgetSet,
    key: Canaries | None,
    planting: Planting | None,
    contenders: tuple[Contender, ...],
) -> dict[str, Json]:
    canaries = (
        key
        and planting
        and {
            "path": str(sources.canaries),
            "commitment": key.commitment,
            "sigma": key.sigma,
            "space": key.space,
            "storage": key.storage,
            "planted": len(key.planted),
            "in_forget_set": len(planting.names),
            "attenuation": planting.attenuation,
        }
    )
    attacks: dict[str, int] = {}
    for attack in forget.attacks:
        attacks[attack] = attacks.get(attack, 0) + 1
    return {
        "model": str(sources.model),
        "model_sha256": loaded.sha256,
        "arch": case.model.arch,
        "arch_source": loaded.arch_source,
        "parameters": sum(p.numel() for p in case.model.module.parameters()),
        "classes": case.model.classes,
        "normalize": case.model.normalize,
        "train": str(sources.train),
        "train_size": len(train),
        "train_sha256": train.digest(),
        "forget": str(sources.forget),
        "forget_size": len(case.forget),
        "forget_sha256": forget.digest,
        "retain_size": len(case.retain),
        "test": str(sources.test),
        "test_size": len(case.test),
        "test_sha256": case.test.digest(),
        "canaries": canaries or None,
        "attacks": attacks,
        "candidates": {c.name: {"path": str(c.path), "sha256": c.sha256} for c in contenders},
    }


def _limits(case: Case, planting: Planting | None) -> tuple[str, ...]:
    limits = []
    unknown = sum(attack == "" for attack in case.attacks)
    if unknown and planting is not None:
        limits.append(
            f"{unknown} of {len(case.attacks)} forget samples are not canaries and name no attack: "
            "no probe looked at them, except membership."
        )
    if planting is not None and planting.missing:
        limits.append(
            f"{planting.missing} planted canaries are not in the forget set, so they count as "
            "retain data: methods train on them."
        )
    return tuple(limits)
