"""The targets of an attack on trial: read, told, and shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from poison_audit.case.case import Case
from poison_audit.case.doubts import Doubt
from poison_audit.case.exhibits import exhibit, named
from poison_audit.case.files import Evidence, Files
from poison_audit.case.provenance import digest_of
from poison_audit.case.shown import Exhibit
from poison_audit.errors import Problems, some
from poison_audit.models.samples import Samples
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
        told: dict[str, Any] = {
            "path": str(path), "sha256": digest_of(path)[0], "named": len(targets),
        }  # fmt: skip
        once, drawn = targets.once(), targets.controls
        if drawn is not None:
            told["controls"] = len(drawn)
        explains, unlike, aimed = _aimed(targets, files)
        return Evidence(
            planted=once.to(device),
            subject={"targets": told},
            limits=_repeated(len(targets) - len(once), len(targets)),
            explains=explains,
            unlike=unlike,
            doubts=_chosen(targets, aimed),
        )
    return nothing


def _repeated(times: int, total: int) -> tuple[str, ...]:
    if not times:
        return ()
    return (f"{times:,} of {total:,} targets show what an earlier one shows: each counts once.",)


def _aimed(
    targets: Targets, files: Files
) -> tuple[frozenset[int], tuple[str, ...], frozenset[int]]:
    """Return the forget samples that aim at the targets, why others do not, and who is aimed at.

    The last are targets, by their place. A poison of a targeted attack has the label that its
    target is to be given. A campaign that is named as a sample of the test table is that of the
    attack on it, as `plant` writes it.
    """
    train, test, forget = files.train, files.test, files.forget
    if train is None or test is None or forget is None:
        return frozenset(), (), frozenset()
    wanted = targets.adversarial.tolist()
    own = {name: place for place, name in _names(targets.samples)}
    others = {name for _, name in _names(test)} - set(own)
    found, aimed = [], set()
    unlike = {"have a label that no target is to be given": 0,
              "are of campaigns whose target is not named": 0}  # fmt: skip
    label, campaign = unlike
    for place, attack, aim in zip(forget.positions, forget.attacks, forget.campaigns, strict=True):
        if attack != POISON.name:
            continue
        target = own.get(aim)
        if aim in others:
            unlike[campaign] += 1
        elif int(train.y[place]) not in (wanted if target is None else (wanted[target],)):
            unlike[label] += 1
        else:
            found.append(place)
            aimed |= set() if target is None else {target}
    told = tuple(f"{count:,} {what}." for what, count in unlike.items() if count)
    return frozenset(found), told, frozenset(aimed)


def _names(samples: Samples) -> Iterator[tuple[int, str]]:
    """Yield what a campaign may call each sample: its id, its path, its text."""
    for names in (samples.texts, samples.paths, samples.ids):
        yield from enumerate(names or ())


def _chosen(targets: Targets, aimed: frozenset[int]) -> tuple[Doubt, ...]:
    """Doubt targets and controls that somebody may have chosen by what they show.

    Targets that are not hit hide those that are, and a control that is hit excuses them.
    """
    doubts, controls = [], targets.controls
    idle = [name for at, name in enumerate(targets.samples.ids) if at not in aimed]
    if aimed and idle:
        doubts.append(
            Doubt(
                about="evidence",
                sentence=f"No forget sample aims at {len(idle):,} of {len(targets):,} targets "
                f"({some(idle)}), while campaigns name the others. Who was not attacked cannot "
                "show what is left.",
                step="Leave them out of targets.csv, or name their poisons in forget.csv.",
            )
        )
    if controls is not None and len(controls) != len(targets):
        doubts.append(
            Doubt(
                about="evidence",
                sentence=f"There are {len(targets):,} targets and {len(controls):,} controls: a "
                "toss of halves leaves as many of either. How were they chosen?",
                step="Name every candidate of the toss in targets.csv, with its role.",
            )
        )
    return tuple(doubts)


def target_exhibits(case: Case, asked: bool) -> list[Exhibit]:
    """Return the first of the targets to look at. What models answer is the probe's evidence."""
    targets = targets_of(case)
    if targets is None:
        return []
    shown, names = range(min(SHOWN, len(targets))), case.test.names
    return [
        replace(
            exhibit("target", targets.samples, place, names=names),
            wanted=named(int(targets.adversarial[place]), names),
        )
        for place in shown
    ]
