"""Forget samples with a wrong label on trial: which they are, and which of them are looked at."""

from __future__ import annotations

import torch

from poison_audit.case.case import Case
from poison_audit.case.files import Evidence, Files
from poison_audit.errors import Problems
from poison_audit.poisons.mislabelled.evidence import Flips
from poison_audit.poisons.mislabelled.reading import POISON


def flips_of(case: Case) -> Flips | None:
    """Return the samples of a case that have a wrong label; None: of none it is said."""
    found: Flips | None = case.evidence.get(POISON.name)
    return found


def mislabelled_evidence(files: Files, device: torch.device | str, problems: Problems) -> Evidence:
    """Find the forget samples whose true label is said, and which no other attack claims."""
    nothing = Evidence(planted=None, subject={})
    train, forget = files.train, files.forget
    if train is None or forget is None:
        return nothing
    clean = forget.clean or (None,) * len(forget)
    mine = [row for row, attack in enumerate(forget.attacks) if attack in ("", POISON.name)]
    told = [(row, label) for row in mine if (label := clean[row]) is not None]
    silent = sum(forget.attacks[row] == POISON.name and clean[row] is None for row in mine)
    unlike = (f"{silent:,} have no clean_label.",) if silent else ()
    if not told:
        return Evidence(planted=None, subject={}, unlike=unlike)
    places = [forget.positions[row] for row, _ in told]
    flips = Flips(
        samples=train.at(places),
        clean=torch.tensor([label for _, label in told], dtype=torch.int64, device=train.y.device),
        chance=bool(forget.chance) and all(forget.chance[row] for row, _ in told),
    )
    once = flips.once()
    times = len(flips) - len(once)
    return Evidence(
        planted=once.to(device),
        subject={"flips": {"rows": len(flips), "chance": flips.chance}},
        limits=(
            (f"{times:,} of {len(flips):,} wrong labels repeat an earlier one: each counts once.",)
            if times
            else ()
        ),
        explains=frozenset(places),
        unlike=unlike,
    )
