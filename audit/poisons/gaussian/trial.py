"""Gaussian canaries on trial: key, bases and forget set are read, tied together, and told."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from poison_audit.case.case import Case
from poison_audit.case.files import Evidence, Files
from poison_audit.case.forget import ForgetSet
from poison_audit.case.forgotten import partial_key
from poison_audit.case.keyfile import keyed_rows, named_by_key
from poison_audit.errors import InputError, Problem, Problems
from poison_audit.models.samples import Samples
from poison_audit.models.text import embedding_width
from poison_audit.poisons.gaussian.embedding import (
    carrying,
    embedding_check,
    unproved,
    wrong_header,
)
from poison_audit.poisons.gaussian.evidence import Canaries, noise_rows, read_canaries
from poison_audit.poisons.gaussian.planting import Planting, plant_check
from poison_audit.poisons.gaussian.reading import POISON
from poison_audit.poisons.gaussian.recover import differences

NOT_GIVEN = (
    "needs the key of a Gaussian planting "
    "(--canaries canaries.json, or [evidence.gaussian] canaries in audit.toml)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedCanaries:
    """The canaries of a forget set, with the clean samples they were made from."""

    key: Canaries
    names: tuple[str, ...]
    """Key ids of the canaries in the forget set."""
    bases: Samples
    """The clean sample of each canary, with the label it was trained with, in `names`' order."""
    noise: Tensor
    """What was drawn for each canary, unclipped: float32, the shape of the bases; of texts, the
    shape of their embeddings, (n, length, width)."""
    held_out_noise: Tensor
    """As many held-out keys' noise, scored at the same bases."""

    def __len__(self) -> int:
        return len(self.names)

    def at(self, part: Tensor) -> PlantedCanaries:
        """Return the canaries at these places."""
        here = part.to(self.noise.device)
        return replace(
            self,
            names=tuple(self.names[i] for i in part.tolist()),
            bases=self.bases.at(part),
            noise=self.noise[here],
            held_out_noise=self.held_out_noise[here],
        )


def planted(case: Case) -> PlantedCanaries | None:
    """Return the canaries of a case; None: no key was given."""
    found: PlantedCanaries | None = case.evidence.get(POISON.name)
    return found


def gaussian_evidence(files: Files, device: torch.device | str, problems: Problems) -> Evidence:
    """Read the key and the bases, and prove that they are those of the forget set."""
    sources, train, forget = files.sources, files.train, files.forget
    texts = train is not None and train.texts is not None
    key = bases = planting = None
    if (path := sources.evidence.get("bases")) is not None:
        with problems.collecting():
            bases = files.table(path)
        if texts:
            what = "is a table of bases, and a canary's text is its own base"
            problems.append(Problem(what, str(path), "Leave it out."))
    bases_lost = path is not None and bases is None
    if (path := sources.evidence.get("canaries")) is not None:
        with problems.collecting():
            key = read_canaries(path)
    nothing = Evidence(planted=None, subject={"canaries": None})
    given = "canaries" in sources.evidence
    if not given and not problems and train is not None and forget is not None:
        return _without_key(train, forget, bases, device) or nothing
    if key is None or train is None or forget is None or bases_lost:
        return nothing
    forget = named_by_key(forget, POISON.name, set(key.planted))
    told: dict[str, Any] = {"where": str(path), "where_forget": str(sources.forget)}
    with problems.collecting():
        if texts and files.loaded is not None:
            problems += wrong_header(key, files.loaded.metadata, str(path))
            width = embedding_width(files.loaded.model)
            planting = embedding_check(key, forget, train, width=width, **told)
        else:
            if bases is None:
                _need_no_table(forget, train, str(sources.forget))
            planting = plant_check(key, forget, train, bases, **told)
    if planting is None or files.loaded is None:
        return nothing
    rows = keyed_rows(forget, POISON.name, "")
    if texts:
        train = carrying(train, key, {train.ids[row.position]: row.name for row in rows})
    return Evidence(
        planted=planted_canaries(key, planting.bases.ids, planting.bases, device),
        subject={
            "canaries": {
                "path": str(path),
                "commitment": key.commitment,
                "sigma": key.sigma,
                "space": key.space,
                "storage": key.storage,
                "planted": len(key.planted),
                "in_forget_set": len(planting.bases.ids),
                "attenuation": planting.attenuation,
            }
        },
        train=train,
        limits=_limits(planting, forget),
        trust=unproved(files.loaded.metadata, train) if texts else (),
        explains=frozenset(row.position for row in rows),
        doubts=partial_key("canaries", key.planted, planting.bases.ids, train.ids),
    )


def _without_key(
    train: Samples, forget: ForgetSet, bases: Samples | None, device: torch.device | str
) -> Evidence | None:
    """Return the canaries of a forget set whose bases are known; None: it has none.

    The noise is what the samples differ by from their bases, which holds no more of the model than
    the key does. It was cut where it was stored in 8 bits, and what is left depends on the base.
    """
    found = differences(train, forget, bases)
    if found is None or not found.normal or found.clipped:
        return None
    names = tuple(train.ids[place] for place in found.places)
    key = Canaries(
        secret=hashlib.sha256(f"fresh noise of {forget.digest}".encode()).digest(),
        sigma=found.sd, space="pixel", shape=tuple(found.noise.shape[1:]), storage="unclipped",
        planted=names, held_out=tuple(f"held-out-{n}" for n in range(len(names))),
    )  # fmt: skip
    clean = Samples(
        ids=names, x=found.bases, y=train.y[torch.tensor(found.places)], names=train.names
    )
    drawn = planted_canaries(key, names, clean, device)
    told = (
        f"No key was given. The noise of {len(names):,} canaries is what they differ by from their "
        f"bases, of sd {found.sd:.3g}; fresh noise is its control. Whether there were more of them "
        "is not known."
    )
    return Evidence(
        planted=replace(drawn, noise=found.noise.to(device)),
        subject={
            "canaries": {
                "recovered": f"from {len(names):,} forget samples and their bases",
                "sigma": found.sd,
                "space": key.space,
                "storage": key.storage,
                "in_forget_set": len(names),
            }
        },
        trust=(told,),
        explains=frozenset(found.places),
    )


def _need_no_table(forget: ForgetSet, train: Samples, where: str) -> None:
    """Refuse bases that are nowhere, once rather than row by row."""
    if not {base for base in forget.bases if base} <= set(train.ids):
        what = "names bases that are not in the training table, and no table of bases is given"
        fix = 'Give it by --bases TABLE, or bases = "TABLE" under [evidence.gaussian] in audit.toml'
        raise InputError(Problem(what, where, fix))


def planted_canaries(
    key: Canaries, names: tuple[str, ...], bases: Samples, device: torch.device | str
) -> PlantedCanaries:
    """Return the canaries of these ids and bases, with as many held-out keys' noise."""
    # No longer than the longest text: the rest has no gradient.
    length = None if bases.mask is None else bases.mask.shape[1]
    return PlantedCanaries(
        key=key,
        names=names,
        bases=bases.to(device),
        noise=noise_rows(key, names, length=length).to(device),
        held_out_noise=noise_rows(key, key.held_out[: len(names)], length=length).to(device),
    )


def _limits(planting: Planting, forget: ForgetSet) -> tuple[str, ...]:
    limits = []
    if unknown := sum(attack == "" for attack in forget.attacks):
        limits.append(
            f"{unknown} of {len(forget)} forget samples are not canaries and name no attack: "
            "no probe looked at them, except membership."
        )
    if planting.missing:
        limits.append(
            f"{planting.missing} planted canaries are not in the forget set, so they count as "
            "retain data: methods train on them."
        )
    return tuple(limits)
