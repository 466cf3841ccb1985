"""The targets of an attack on trial: read, told, and shown."""

from __future__ import annotations

import torch

from poison_audit.case.case import Case
from poison_audit.case.exhibits import exhibit
from poison_audit.case.files import Evidence, Files
from poison_audit.case.provenance import digest_of
from poison_audit.case.shown import Exhibit
from poison_audit.errors import Problems
from poison_audit.poisons.targeted.evidence import Targets, read_targets
from poison_audit.poisons.targeted.reading import POISON

SHOWN = 48
"""Targets that are shown, at most."""


def targets_of(case: Case) -> Targets | None:
    """Return the targets of a case; None: none are named."""
    found: Targets | None = case.evidence.get(POISON.name)
    return found


def targeted_evidence(files: Files, device: torch.device | str, problems: Problems) -> Evidence:
    """Read the targets."""
    path, test = files.sources.evidence.get("targets"), files.test
    nothing = Evidence(planted=None, subject={"targets": None})
    if path is None or test is None:
        return nothing
    reader = files.loaded.model.reader if files.loaded else None
    with problems.collecting():
        targets = read_targets(path, test, where_test=str(files.sources.test), reader=reader)
        told = {"path": str(path), "sha256": digest_of(path)[0], "named": len(targets)}
        once = targets.once()
        aimed, unlike = _aimed(targets, files)
        return Evidence(
            planted=once.to(device),
            subject={"targets": told},
            limits=_repeated(len(targets) - len(once), len(targets)),
            explains=aimed,
            unlike=unlike,
        )
    return nothing


def _repeated(times: int, total: int) -> tuple[str, ...]:
    if not times:
        return ()
    return (f"{times:,} of {total:,} targets show what an earlier one shows: each counts once.",)


def _aimed(targets: Targets, files: Files) -> tuple[frozenset[int], tuple[str, ...]]:
    """Return the forget samples that aim at the targets, and why others that say so do not.

    A poison of a targeted attack has the label that its target is to be given. A campaign that is
    named as a sample of the test table is that of the attack on it, as `plant` writes it.
    """
    train, test, forget = files.train, files.test, files.forget
    if train is None or test is None or forget is None:
        return frozenset(), ()
    wanted, named = set(targets.adversarial.tolist()), set(targets.samples.ids)
    others = set(test.ids) - named
    found, unlike = [], {"have a label that no target is to be given": 0,
                         "are of campaigns whose target is not named": 0}  # fmt: skip
    label, campaign = unlike
    for place, attack, aim in zip(forget.positions, forget.attacks, forget.campaigns, strict=True):
        if attack != POISON.name:
            continue
        if aim in others:
            unlike[campaign] += 1
        elif int(train.y[place]) not in wanted:
            unlike[label] += 1
        else:
            found.append(place)
    told = tuple(f"{count:,} {what}." for what, count in unlike.items() if count)
    return frozenset(found), told


def target_exhibits(case: Case) -> list[Exhibit]:
    """Return the first of the targets to look at."""
    targets = targets_of(case)
    if targets is None:
        return []
    shown, names = range(min(SHOWN, len(targets))), case.test.names
    return [exhibit("target", targets.samples, place, names=names) for place in shown]
