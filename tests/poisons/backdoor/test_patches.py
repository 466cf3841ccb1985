"""Control patches: how many arrangements there are, and what is drawn."""

import pytest
import torch

from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.evidence import Trigger
from poison_audit.poisons.backdoor.patches import arrangements, draw_controls


@pytest.mark.parametrize(
    ("rows", "count"),
    [
        ([[1, 1], [1, 1]], 1),
        ([[1, 0], [0, 0]], 4),
        ([[0, 1], [2, 3]], 24),
        ([[0, 1, 0], [1, 0, 1], [0, 1, 0]], 126),
    ],
)
def test_arrangements_by_the_multinomial(rows, count):
    pixels = torch.tensor(rows).float()[None] / 4
    assert arrangements(Trigger(pixels=pixels, top=0, left=0, label=0)) == count


def test_controls_keep_colours_and_differ():
    rng = Rng(2).numpy()
    pixels = torch.from_numpy(rng.random((3, 3, 4))).float()
    trigger = Trigger(pixels=pixels, top=1, left=2, label=0)
    controls = draw_controls(trigger, (8, 8), 50, Rng(0))
    columns = sorted(pixels.flatten(1).T.tolist())
    for control in controls:
        assert sorted(control.pixels.flatten(1).T.tolist()) == columns
        assert (control.top, control.left) == (1, 2)
        assert not control.pixels.equal(pixels)
    assert len({control.pixels.numpy().tobytes() for control in controls}) == 50
