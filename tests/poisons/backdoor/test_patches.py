"""Control patches: how many arrangements there are, and what is drawn."""

import pytest
import torch

from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.evidence import patch
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
    assert arrangements(patch(pixels, (1, 4, 4), top=0, left=0, label=0)) == count


def test_controls_keep_colours_and_differ():
    rng = Rng(2).numpy()
    pixels = torch.from_numpy(rng.random((3, 3, 4))).float()
    trigger = patch(pixels, (3, 8, 8), top=1, left=2, label=0)
    controls = draw_controls(trigger, (8, 8), 50, Rng(0))
    columns = sorted(pixels.flatten(1).T.tolist())
    for control in controls:
        drawn = control.add[:, 1:4, 2:6]
        assert sorted(drawn.flatten(1).T.tolist()) == columns
        assert control.box == (1, 2, 3, 4)
        assert not drawn.equal(pixels)
    assert len({control.add.numpy().tobytes() for control in controls}) == 50
