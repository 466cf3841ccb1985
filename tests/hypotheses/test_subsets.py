"""Random sets of a class mix, and ranks among them."""

import numpy as np
import pytest

from poison_audit.hypotheses.subsets import drawn, lacking, part_of, rank_p_value

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 2])
EVERYONE = np.ones(8, dtype=bool)
TWO_AND_ONE = np.array([1, 1, 0, 0, 1, 0, 0, 0], dtype=bool)


def test_every_draw_has_the_class_mix_and_each_set_is_as_likely():
    sets = drawn(EVERYONE, TWO_AND_ONE, LABELS, draws=3600, rng=np.random.default_rng(0))
    seen = {}
    for chosen in sets:
        assert np.bincount(LABELS[chosen], minlength=3).tolist() == [2, 1, 0]
        seen[tuple(np.flatnonzero(chosen))] = seen.get(tuple(np.flatnonzero(chosen)), 0) + 1
    # (4 choose 2) * 3 = 18 sets, 200 expected of each; chi2 with 17 degrees of freedom
    assert len(seen) == 18
    assert sum((count - 200) ** 2 / 200 for count in seen.values()) < 33.4  # 99% quantile


def test_draws_stay_in_their_pool():
    pool = ~TWO_AND_ONE
    for chosen in drawn(pool, TWO_AND_ONE, LABELS, draws=20, rng=np.random.default_rng(0)):
        assert not (chosen & ~pool).any()


def test_a_pool_that_lacks_a_class():
    like = np.array([1, 1, 1, 0, 0, 0, 0, 1], dtype=bool)
    assert lacking(~like, like, LABELS) == [0, 2]
    assert lacking(EVERYONE, like, LABELS) == []
    with pytest.raises(ValueError, match=r"classes \[0, 2\]"):
        drawn(~like, like, LABELS, draws=1, rng=np.random.default_rng(0))


def test_growing_parts_are_nested():
    order = np.array([2, 0, 1])  # of the forgotten positions 0, 1 and 4
    sizes = [np.flatnonzero(part_of(TWO_AND_ONE, order, f)).tolist() for f in (0.01, 0.6, 1.0)]
    assert sizes == [[4], [0, 4], [0, 1, 4]]


@pytest.mark.parametrize(
    ("observed", "null", "p_value"),
    [
        (5.0, [1, 2, 3, 4], 1 / 5),
        (0.0, [1, 2, 3, 4], 1.0),
        (2.5, [1, 2, 3, 4], 3 / 5),
        (2.0, [1, 2, 3, 4], 4 / 5),  # a tie counts against
        (2.0 * (1 + 1e-12), [1, 2, 3, 4], 4 / 5),  # and so does one but for rounding
        (-2.0, [-1, -3], 2 / 3),
    ],
)
def test_rank_p_value(observed, null, p_value):
    assert rank_p_value(observed, null) == pytest.approx(p_value)
