"""The excess of targets by each of the three ways to know what a clean model hits."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats as laws

from poison_audit.statistics.forms import Compared, Stratum
from poison_audit.statistics.rates import excess_of_targets


def excess(hits, n, *, controls=(0, 1), against=(), drawn=False, level=0.9):
    """`controls`: hits of so many. `against`: (only the model, only the reference) each."""
    others, size = controls
    return excess_of_targets(
        [Stratum(targets=n, hits=hits, controls=size, control_hits=others)],
        control_hits=others,
        controls=size,
        drawn=drawn,
        against=[
            Compared(
                reference=f"r{i}", both=hits - b, only_candidate=b, only_reference=c,
                neither=n - hits - c,
            )
            for i, (b, c) in enumerate(against)
        ],
        level=level,
        tolerance=0.05,
    )  # fmt: skip


def test_as_many_controls_as_targets_share_the_lower_ends_error():
    # 0.025 on each: 8 of 8, and 0 of 8. Of the upper end's 0.05 the targets have 0.045.
    estimate = excess(8, 8, controls=(0, 8), drawn=True)
    assert estimate.low == pytest.approx(0.025 ** (1 / 8) - (1 - 0.025 ** (1 / 8)))
    none = excess(0, 61, controls=(0, 61), drawn=True)
    assert none.high == pytest.approx(1 - 0.045 ** (1 / 61))
    assert none.needed == 61


def test_controls_of_the_class_find_nothing_and_clear_by_the_hits_alone():
    estimate = excess(20, 20, controls=(0, 1000))
    assert (estimate.low, estimate.p_value, estimate.detectable) == (0.0, 1.0, 1.0)
    assert estimate.value == 1.0
    # Controls that are hit excuse nothing.
    many = excess(0, 20, controls=(500, 1000))
    assert many.high == pytest.approx(1 - 0.045 ** (1 / 20))
    assert many.low < -0.4


@pytest.mark.parametrize("hits", range(0, 13, 4))
def test_without_controls_of_a_toss_nothing_is_ever_found(hits):
    for others in (0, 3, 30):
        assert excess(hits, 12, controls=(others, 30)).low <= 0


def test_the_excess_over_references_by_hand():
    estimate = excess(8, 8, against=[(8, 0)])
    assert estimate.low == pytest.approx(0.025 ** (1 / 8) - (1 - 0.025 ** (1 / 8)))
    assert estimate.p_value == pytest.approx(1 / 2**8)
    assert estimate.z == pytest.approx(math.sqrt(8))
    two = excess(20, 40, against=[(20, 0), (6, 3)])
    one, other = excess(20, 40, against=[(20, 0)]), excess(20, 40, against=[(6, 3)])
    assert two.value == pytest.approx((20 / 40 + 3 / 40) / 2)
    assert (two.low, two.high) == (other.low, one.high)
    assert two.p_value == other.p_value == pytest.approx(laws.binom.sf(5, 9, 0.5))
    assert excess(0, 61, against=[(0, 0)]).needed == 61


@pytest.mark.parametrize(("ahead", "behind"), [(0.05, 0.0), (0.5, 0.45), (0.4, 0.0)])
def test_either_end_over_a_reference_keeps_its_error_by_summation(ahead, behind):
    n, tail = 9, 0.05
    under = over = 0.0
    for b, c in itertools.product(range(n + 1), repeat=2):
        if b + c > n:
            continue
        chance = laws.multinomial.pmf([b, c, n - b - c], n, [ahead, behind, 1 - ahead - behind])
        if chance < 1e-9:
            continue
        estimate = excess(b, n, against=[(b, c)])
        under += chance * (estimate.low > ahead - behind + 1e-12)
        over += chance * (estimate.high < ahead - behind - 1e-12)
    assert under <= tail + 1e-6
    assert over <= tail + 1e-6


def test_a_toss_of_fixed_hits_keeps_its_error():
    # A clean model: who is hit is fixed, and the toss alone is drawn. Every toss, by its law.
    n = 6
    for marked in range(2 * n + 1):
        law = laws.hypergeom(2 * n, marked, n)
        found = sum(
            law.pmf(k)
            for k in range(max(0, marked - n), min(n, marked) + 1)
            if excess(k, n, controls=(marked - k, n), drawn=True).low > 0.05
        )
        assert found <= 0.05


def test_p_values_of_a_toss_are_those_of_every_draw():
    marked = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    sums = [marked[list(draw)].sum() for draw in itertools.combinations(range(8), 4)]
    estimate = excess(3, 4, controls=(0, 4), drawn=True)
    assert estimate.p_value == pytest.approx(np.mean(np.array(sums) >= 3))
