"""Exhibits: what the poison looks like, for a reader who was not there.

What each poison shows of its own (the trigger on a few inputs, the targets of an attack, the
wrong labels that the model is surest of) with the deployed model's answers, and a few forget
samples of each other attack. They are shown beside the figures and decide nothing.
"""

from __future__ import annotations

from poison_audit.case.case import Case
from poison_audit.case.exhibits import exhibit, spread
from poison_audit.case.shown import Exhibit
from poison_audit.poisons.probes import WORKINGS

EACH = 6
"""Forget samples of one attack."""
ROLES = ("trigger", "target", "flip", "forget")
"""In the order in which they are shown."""


def exhibits(case: Case, *, asked: bool) -> tuple[Exhibit, ...]:
    """Return the samples to look at; the same for the same case.

    Args:
        case: what is on trial.
        asked: whether the deployed model is asked what it answers to them.
    """
    found = [shown for works in WORKINGS.values() for shown in works.exhibits(case, asked)]
    told = {shown.attack for shown in found if shown.role == "flip"}
    by_attack: dict[str, list[int]] = {}
    for place, attack in enumerate(case.attacks):
        if attack not in told:
            by_attack.setdefault(attack, []).append(place)
    for attack, where in by_attack.items():
        for place in spread(where, EACH):
            names = case.forget.names
            found.append(exhibit("forget", case.forget, place, names=names, attack=attack))
    found.sort(key=lambda shown: ROLES.index(shown.role))
    return tuple(shown for shown in found if shown.png is not None or shown.text is not None)
