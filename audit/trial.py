"""Paths become a validated Case and what stands around it, with all problems found at once."""

from __future__ import annotations

import hashlib
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
from audit.data.targets import Targets, read_targets
from audit.data.trigger import Trigger, read_trigger
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
    targets: Path | None = None
    trigger: Path | None = None
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
    found = _missing(sources)
    files = _read_files(sources, found)
    found += _misfits(sources, files)
    planting = _read_planting(sources, files, found)
    contenders = _contenders(sources, files.loaded, found)
    if found:
        raise InputError(found)
    loaded, train, test, forget = files.loaded, files.train, files.test, files.forget
    if loaded is None or train is None or test is None or forget is None:
        raise RuntimeError("a part of the case is missing, but no problem was reported")
    parts = split(train, forget)
    module = loaded.model.module.to(device).eval()
    planted = None
    if files.key is not None and planting is not None:
        planted = _planted(files.key, planting, device)
    case = Case(
        model=replace(loaded.model, module=module),
        retain=parts.retain.to(device),
        forget=parts.forget.to(device),
        test=test.to(device),
        recipe=recipe,
        canaries=planted,
        targets=files.targets and files.targets.to(device),
        trigger=files.trigger and files.trigger.to(device),
        attacks=forget.attacks,
    )
    return Trial(
        case=case,
        contenders=contenders,
        subject=_subject(sources, files, case, planting, contenders),
        limits=_limits(case, planting),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """What could be read; None where a file is not given or has a problem."""

    loaded: Loaded | None
    train: Samples | None
    test: Samples | None
    bases: Samples | None
    forget: ForgetSet | None
    key: Canaries | None
    targets: Targets | None
    trigger: Trigger | None


def _read_files(sources: Sources, found: list[Problem]) -> _Files:
    """Read every file for itself, adding its problems to `found`."""
    normalize = _attempt(found, parse_normalize, sources.normalize)
    loaded = _attempt(
        found,
        load_model,
        sources.model,
        arch=sources.arch,
        factory=sources.factory,
        normalize=normalize,
        allow_pickle=sources.allow_pickle,
    )
    train = _attempt(found, read_table, sources.train, names=sources.names)
    # Word labels are numbered by the training table, so that a class missing elsewhere moves none.
    like: dict[str, Any] = {"names": sources.names}
    if train is not None:
        like = {"names": sources.names or train.names, "size": tuple(train.x.shape[1:])}
    test = _attempt(found, read_table, sources.test, **like)
    forget = targets = trigger = None
    if train is not None:
        where = str(sources.train)
        forget = _attempt(found, read_forget, sources.forget, train, where_train=where)
    if test is not None:
        where = str(sources.test)
        targets = _attempt(found, read_targets, sources.targets, test, where_test=where)
    if train is not None and loaded is not None:
        classes = {"classes": loaded.model.classes, "names": like["names"]}
        shape = like["size"]
        trigger = _attempt(found, read_trigger, sources.trigger, shape=shape, **classes)
    return _Files(
        loaded=loaded,
        train=train,
        test=test,
        bases=_attempt(found, read_table, sources.bases, **like),
        forget=forget,
        key=_attempt(found, read_canaries, sources.canaries),
        targets=targets,
        trigger=trigger,
    )


def _attempt(
    found: list[Problem], read: Callable[..., T], source: Path | str | None, *args: Any, **more: Any
) -> T | None:
    """Read a source if it is given; None, and its problems in `found`, if it has any."""
    if source is None:
        return None
    try:
        return read(source, *args, **more)
    except InputError as error:
        found.extend(error.problems)
        return None


def _misfits(sources: Sources, files: _Files) -> list[Problem]:
    """Return what is wrong between files that are right for themselves."""
    found: list[Problem] = []
    for table, path in ((files.train, sources.train), (files.test, sources.test)):
        if table is not None and files.loaded is not None:
            found += check_labels(table, files.loaded.model.classes, str(path))
            found += _unfit(files.loaded.model, table, str(path))
    if files.train is None or files.forget is None:
        return found
    parts = split(files.train, files.forget)
    if len(parts.retain) == 0:
        what = "every training sample is to be forgotten: nothing is left to retain"
        found.append(Problem(what, str(sources.forget), "Retrain on other data instead"))
    if files.test is not None:
        for name, part in (("retain", parts.retain), ("forget", parts.forget)):
            found += overlap(part, files.test, a_name=f"the {name} set", b_name=str(sources.test))
    return found


def _read_planting(sources: Sources, files: _Files, found: list[Problem]) -> Planting | None:
    """Match the key with the forget set, once all that they need could be read."""
    key, forget, train = files.key, files.forget, files.train
    bases_lost = sources.bases is not None and files.bases is None
    if key is None or forget is None or train is None or bases_lost:
        return None
    if sources.bases is None and not {base for base in forget.bases if base} <= set(train.ids):
        what = "names bases that are not in the training table, and no table of bases is given"
        fix = 'Give it by --bases TABLE, or bases = "TABLE" under [evidence.gaussian] in audit.toml'
        found.append(Problem(what, str(sources.forget), fix))
        return None
    try:
        return plant_check(
            key,
            forget,
            train,
            files.bases,
            where=str(sources.canaries),
            where_forget=str(sources.forget),
        )
    except InputError as error:
        found += error.problems
        return None


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
    files: _Files,
    case: Case,
    planting: Planting | None,
    contenders: tuple[Contender, ...],
) -> dict[str, Json]:
    loaded, train, forget, key = files.loaded, files.train, files.forget, files.key
    if loaded is None or train is None or forget is None:
        raise ValueError("a case has a model, a training table and a forget set")
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
        "targets": files.targets
        and {
            "path": str(sources.targets),
            "sha256": _file_digest(sources.targets),
            "named": len(files.targets),
        },
        "trigger": files.trigger
        and {
            "path": str(sources.trigger),
            "sha256": _file_digest(sources.trigger),
            "size": list(files.trigger.pixels.shape[1:]),
            "top": files.trigger.top,
            "left": files.trigger.left,
            "label": files.trigger.label,
        },
        "attacks": attacks,
        "candidates": {
            c.name: {"path": str(c.path), "kind": c.kind, "sha256": c.sha256} for c in contenders
        },
    }


def _file_digest(path: Path | None) -> str | None:
    return None if path is None else hashlib.sha256(path.read_bytes()).hexdigest()


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
