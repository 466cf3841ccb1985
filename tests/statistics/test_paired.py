"""Two ways to answer the same samples: the exact law, and the level of asking twice."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from poison_audit.statistics.paired import Paired


def paired(ahead: int, behind: int) -> Paired:
    both = 10
    return Paired(
        ahead=ahead, behind=behind, stated=both + behind, commonest=0, total=ahead + behind + both
    )


@pytest.mark.parametrize(("level", "ways"), [(0.05, 1), (0.05, 3), (5e-4, 20)])
def test_as_many_alarms_as_the_law_allows_and_no_more(level, ways):
    for apart in (1, 5, 40, 200):
        # Without a difference each sample that only one of them answers is a fair coin.
        chance = stats.binom(apart, 0.5)
        alarms = [n for n in range(apart + 1) if paired(n, apart - n).clear(level=level, ways=ways)]
        assert sum(chance.pmf(n) for n in alarms) < level / ways
        least = min(alarms, default=apart + 1)
        assert alarms == list(range(least, apart + 1))
        assert chance.sf(least - 2) >= level / ways  # one fewer would be too many
        for n in alarms:
            assert stats.binomtest(n, apart, alternative="greater").pvalue < level / ways


def test_more_is_counted_and_a_guess_is_no_gain():
    one = Paired(ahead=30, behind=10, stated=40, commonest=55, total=100)
    assert one.more == 20
    assert one.matters(0.05)  # 60 of 100, 5 above the commonest class
    assert not one.matters(0.06)
    level = Paired(ahead=10, behind=10, stated=40, commonest=10, total=100)
    assert not level.matters(0.0)


def test_asking_the_best_again_keeps_the_level_and_asking_them_of_the_same_does_not():
    """Twenty ways, none of them better, and the three that look best of 400 samples."""
    rng, level, ways, trials = np.random.default_rng(18), 0.05, 20, 2000
    said = {"fresh": 0, "same": 0}
    for _ in range(trials):
        gains = []
        for apart in rng.binomial(400, 0.2, ways).tolist():
            ahead = int(rng.binomial(apart, 0.5))
            gains.append(paired(ahead, apart - ahead))
        hopes = sorted((g for g in gains if g.more >= 10), key=lambda g: -g.more)[:3]
        again = []
        for _ in hopes:
            apart = int(rng.binomial(2000, 0.2))
            ahead = int(rng.binomial(apart, 0.5))
            again.append(paired(ahead, apart - ahead))
        for name, asked in (("fresh", again), ("same", hopes)):
            said[name] += any(g.clear(level=level, ways=len(hopes)) for g in asked)
    assert stats.binomtest(said["fresh"], trials, level, alternative="greater").pvalue > 1e-3
    assert said["same"] > 3 * level * trials
