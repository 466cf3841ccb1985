"""The lower bound of epsilon: against another library, a slow twin, and a known mechanism."""

import math

import numpy as np
import pytest
from scipy import optimize
from scipy import stats as laws

from poison_audit.models.seeds import Rng
from poison_audit.statistics.privacy import epsilon_at_least


def drawn(rng, n, mu):
    return rng.normal(mu, 1, n), rng.normal(0, 1, n)


@pytest.mark.parametrize(("n", "mu"), [(10, 3.0), (100, 0.5), (400, 1.27), (50, 0.0)])
def test_it_is_the_epsilon_at_which_so_many_right_guesses_become_likely(n, mu):
    members, others = drawn(Rng(1).named(n, mu).numpy(), n, mu)
    middle = np.concatenate([members, others]).mean()
    right = sum(s >= middle for s in members) + sum(s < middle for s in others)

    def gap(epsilon):
        return laws.binom.sf(right - 1, 2 * n, math.exp(epsilon) / (1 + math.exp(epsilon))) - 0.05

    expected = optimize.brentq(gap, 0, 50) if gap(0) < 0 else 0.0
    assert epsilon_at_least(members, others) == pytest.approx(expected, abs=1e-6)


def test_it_is_what_another_library_says():
    auditing = pytest.importorskip("opake.auditing")
    key = pytest.importorskip("opake.random").key
    rng, worst = Rng(2).named("opake").numpy(), 0.0
    flips = [
        auditing.coin_flip(range(2 * n), num_canaries=2 * n, key=key(n)) for n in (50, 200, 400)
    ]
    for at in range(1000):
        flip, mu = flips[at % 3], (0.0, 0.25, 0.6, 1.3, 3.0)[at % 5]
        member = np.isin(flip.canary_indices, flip.in_indices)
        scores = rng.normal(0, 1, len(member)) + mu * member
        told = auditing.canary_scores(scores, canary_indices=flip.canary_indices)
        theirs = auditing.one_run(told, coin_flip=flip).eps_delta()
        expected = theirs.epsilon_at(delta=0.0, threshold=float(scores.mean()))
        ours = epsilon_at_least(scores[member], scores[~member])
        worst = max(worst, abs(ours - expected))
    assert worst <= 0.05


@pytest.mark.parametrize("n", [20, 100, 400])
def test_a_training_that_knows_nothing_is_seldom_above_0(n):
    rng, runs = Rng(3).named("null", n).numpy(), 1000
    found = sum(epsilon_at_least(*drawn(rng, n, 0.0)) > 0 for _ in range(runs))
    assert found <= 72  # Binomial(1000, 0.05) exceeds it with probability 0.001


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_it_seldom_exceeds_the_epsilon_of_randomised_response(epsilon):
    # Each coin is told rightly with probability e^eps / (1 + e^eps), which is eps-DP, and tight.
    rng, runs, n, bounds = Rng(4).named("response", epsilon).numpy(), 400, 200, []
    for _ in range(runs):
        told = rng.random((2, n)) < 1 / (1 + math.exp(-epsilon))
        luck = rng.random((2, n)) / 1000
        bounds.append(epsilon_at_least(told[0] + luck[0], ~told[1] + luck[1]))
    assert sum(bound > epsilon for bound in bounds) <= 34  # of 400 at 0.05
    assert np.mean(bounds) > 0.6 * epsilon
