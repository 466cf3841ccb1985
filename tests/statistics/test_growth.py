"""Growth against paired_loss, of which the signs differ, and scipy's paired t interval."""

import pytest
from scipy import stats as laws

from poison_audit.models.seeds import Rng
from poison_audit.statistics import growth
from poison_audit.statistics.estimates import paired_loss


def test_of_hits_is_a_paired_difference():
    before, after = [0] * 30 + [1] * 10, [0] * 10 + [1] * 25 + [0] * 5
    change = growth.of_hits(before, after, level=0.9)
    assert (change.before, change.after) == (10 / 40, 25 / 40)
    twin = paired_loss(only_before=20, only_after=5, n=40, level=0.9, tolerance=1.0)
    assert (change.low, change.high) == (twin.low, twin.high)


def test_of_scores_is_scipys_paired_t():
    rng = Rng(1).numpy()
    before, after = rng.normal(size=25), rng.normal(0.5, 1, 25)
    change = growth.of_scores(before, after, level=0.98)
    interval = laws.ttest_rel(after, before).confidence_interval(0.98)
    assert (change.low, change.high) == pytest.approx((interval.low, interval.high))
