"""Far controls: as strong as the trigger, at its place, and none of them much like it."""

import numpy as np
import pytest
import torch

from builders.attacked import random_trigger
from poison_audit.poisons.backdoor.controls import ALIKE, ELSEWHERE, FAMILIES, far_controls
from poison_audit.poisons.backdoor.evidence import Trigger, patch

SHAPE = (3, 12, 12)
GRID = torch.tensor([[0.0, 0, 1], [0, 1, 0], [1, 0, 1]]).expand(3, 3, 3)


def full(keep, scale, low=-0.5):
    add = scale * (torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)) + low)
    return Trigger(keep=torch.full(SHAPE, keep), add=add, label=0)


TRIGGERS = {
    "grid": patch(GRID, SHAPE, top=9, left=9, label=0),
    "anywhere": patch(GRID, SHAPE, top=9, left=9, label=0, anywhere=True),
    "blend": full(0.8, 0.2, low=0),
    "add": full(1.0, 0.2),
    "brighter": full(1.0, 0.2, low=0),
}


def pictures(seed, n=40):
    low = np.random.default_rng(seed).random((n, 3, 4, 4))
    return low.repeat(3, 2).repeat(3, 3)


@pytest.mark.parametrize("name", TRIGGERS)
def test_controls_are_as_strong_and_unlike(name):
    trigger, x = TRIGGERS[name], pictures(0)
    found = far_controls(trigger, x, pictures(1), np.random.default_rng(2), most=48)
    here = [c for c in found if c.family != ELSEWHERE]
    # What brightens resembles what brightens: pieces of pictures do most.
    assert len(here) == 48 or name == "brighter"
    assert {c.family for c in here} >= set(FAMILIES) - {"picture"} - {"one colour"}
    assert len(found) - len(here) == (8 if name == "grid" else 0)
    fixed = torch.from_numpy(x).float()
    top, left, height, width = trigger.box

    def change(one):
        stamp = Trigger(keep=one.keep, add=one.add, label=0).stamp(fixed) - fixed
        return stamp[..., top : top + height, left : left + width].flatten().double().numpy()

    mine = change(trigger)
    for control in here:
        theirs, one = change(control.trigger), control.trigger
        assert (one.label, one.mode, one.anywhere) == (0, trigger.mode, trigger.anywhere)
        assert one.keep.equal(trigger.keep)
        assert bool((one.changes <= trigger.changes).all())
        # A few contents cannot be as strong: a colour that is the pictures' own.
        assert (theirs @ theirs) / (mine @ mine) == pytest.approx(1, abs=0.5)
        assert theirs @ mine < (ALIKE + 0.05) * np.sqrt((mine @ mine) * (theirs @ theirs))
    if name == "brighter":
        assert all(bool((c.trigger.add >= 0).all()) for c in here)


def test_elsewhere_it_is_the_same_content():
    trigger = TRIGGERS["grid"]
    found = far_controls(trigger, pictures(0), pictures(1), np.random.default_rng(2), most=48)
    for control in (c for c in found if c.family == ELSEWHERE):
        top, left, height, width = control.trigger.box
        assert 2 * abs(top - 9) >= 3 or 2 * abs(left - 9) >= 3
        assert control.trigger.add[:, top : top + height, left : left + width].equal(GRID)


def test_generators_decide():
    trigger = random_trigger(np.random.default_rng(0))
    x = pictures(0)[:, :1, :8, :8]
    one, two, other = (
        far_controls(trigger, x, x, np.random.default_rng(seed), most=12) for seed in (1, 1, 2)
    )
    assert all(a.trigger.add.equal(b.trigger.add) for a, b in zip(one, two, strict=True))
    assert not all(a.trigger.add.equal(b.trigger.add) for a, b in zip(one, other, strict=True))
