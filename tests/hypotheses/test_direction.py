"""What one direction holds of what sets forget samples apart: planted shifts and spreads."""

import numpy as np
import pytest
import torch

from poison_audit.hypotheses.direction import held_by_one_direction


def _draws(seed, n, d=12):
    draw = np.random.default_rng(seed)
    mixed = np.random.default_rng(0).normal(size=(d, d))
    return torch.from_numpy(draw.normal(size=(n, d)) @ mixed)


def test_a_shift_that_all_share_lies_in_one_direction():
    kept, lost = _draws(1, 4000), _draws(2, 400)
    push = _draws(3, 1)[0] * 5
    assert held_by_one_direction(kept, lost + push) > 0.95


def test_a_spread_that_is_alike_in_all_directions_lies_in_none():
    """Without a mean, any one of 12 directions holds a twelfth; the ridge tilts it a little."""
    assert held_by_one_direction(_draws(1, 4000), 3 * _draws(2, 4000)) == pytest.approx(
        1 / 12, abs=0.06
    )


def test_two_shifts_hold_half_each():
    kept, ways = _draws(1, 4000), torch.eye(12).double()
    # Along the features' own axes, in equal units of their covariance.
    kept = torch.from_numpy(np.random.default_rng(4).normal(size=(4000, 12)))
    lost = torch.from_numpy(np.random.default_rng(5).normal(size=(4000, 12)))
    sign = torch.where(torch.arange(4000) % 2 == 0, 1.0, -1.0)[:, None]
    found = held_by_one_direction(kept, lost + 6 * ways[0] + 6 * sign * ways[1])
    assert found == pytest.approx(0.5, abs=0.03)


def test_samples_like_the_others_are_not_apart():
    kept = _draws(1, 500)
    assert held_by_one_direction(kept, kept) is None
