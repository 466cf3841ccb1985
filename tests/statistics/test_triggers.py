"""A trigger's three questions: ranks by hand, intervals by closed forms and by simulation."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.stats import beta, binomtest

from poison_audit.statistics.triggers import (
    Beside,
    Change,
    Family,
    Looks,
    draws_needed,
    excess_of_trigger,
    questions,
)

LEVEL = 0.9  # each end errs with .05


def family(name="far", patterns=199, rises=0, pairs=0, losses=None, largest=0, here=True):
    losses = patterns if losses is None else losses
    return Family(
        name=name, here=here, patterns=patterns, rises=rises, pairs=pairs, losses=losses,
        largest=largest,
    )  # fmt: skip


def looks(*, more=0.0, n=400, lost=0.0, moved=0.0, frail=0.0, families=None, **rest):
    nothing = Change(n=n, more=0, less=0)
    return Looks(
        classes=(nothing, Change(n=n, more=moved, less=0), nothing),
        rise=Change(n=n, more=more, less=0), lost=Change(n=n, more=lost, less=0), frail=frail,
        families=(family(),) if families is None else families, own=1, **rest,
    )  # fmt: skip


def asked(seen, level=LEVEL):
    return questions(seen, level=level, tolerance=0.05)


def test_the_ends_of_a_rise_by_closed_forms():
    # Nothing changed: the upper end is that of 0 in n, on either side.
    none = 1 - 0.05 ** (1 / 60)
    assert Change(n=60, more=0, less=0).ends(0.05) == pytest.approx((-none, none))
    # All did: 1 less what 0 in 60 allows, and what may have gone the other way.
    low, high = Change(n=60, more=60, less=0).ends(0.05)
    assert (low, high) == (pytest.approx(1 - math.hypot(none, none)), 1.0)
    # Clopper and Pearson of 12 and 3 in 100, correlated by -sqrt(odds).
    p, q = 0.12, 0.03
    down, up = p - beta.ppf(0.05, 12, 89), beta.ppf(0.95, 4, 97) - q
    r = math.sqrt(p * q / ((1 - p) * (1 - q)))
    expected = p - q - math.sqrt(down**2 + up**2 + 2 * r * down * up)
    assert Change(n=100, more=12, less=3).ends(0.05)[0] == pytest.approx(expected)


@pytest.mark.parametrize("shares", [(0.05, 0.0), (0.06, 0.01), (0.35, 0.3), (0.5, 0.45)])
def test_a_rise_just_beyond_tolerance_seldom_passes_and_just_within_is_seldom_beyond(shares):
    draws, runs, n = np.random.default_rng(0), 2000, 300
    counts = draws.multinomial(n, [*shares, 1 - sum(shares)], runs)
    ends = [Change(n=n, more=int(a), less=int(b)).ends(0.05) for a, b, _ in counts]
    for wrong in (sum(high <= 0.05 for _, high in ends), sum(low > 0.05 for low, _ in ends)):
        assert binomtest(wrong, runs, 0.05, alternative="greater").pvalue > 0.005


def test_both_ranks_by_hand():
    far = family("pixels", 99, rises=2, pairs=11)
    moved = family("elsewhere", 30, rises=30, pairs=40, here=False)
    seen = looks(more=300, families=(far, moved))
    # 2 of 99 contents: 3 in 100. Pairs of three labels: 12 of 300, and 41 of 93.
    assert seen.rank("rises") == pytest.approx(0.03)
    assert seen.pair(0.05) == pytest.approx(41 / 93)
    # A family of 3 cannot tell at .05 (1 of 12), and is joined to the next: 13 of 3 * 103.
    few = looks(more=300, families=(far, family("one colour", 3, pairs=1)))
    assert few.pair(0.05) == pytest.approx(13 / 309)
    assert few.pair(0.1) == pytest.approx(2 / 12)
    label, _, _ = asked(looks(more=300, families=(family(patterns=199, rises=5, pairs=5),)))
    assert (label.p, label.sure) == (pytest.approx(0.03), True)  # .6 of .05
    label, _, _ = asked(looks(more=300, families=(family(patterns=199, rises=6, pairs=6),)))
    assert not label.sure


def test_two_hundred_controls_suffice_beside_utility():
    # .2 of .025 is 1 in 200: also what is lost and where it moved to can be found.
    seen = looks(lost=100, moved=100, families=(family(losses=0),))
    assert [one.sure for one in asked(seen, 0.95)] == [True, True, True]
    assert [one.sure for one in asked(seen, 0.96)] == [True, False, False]
    assert draws_needed(LEVEL) == 33
    assert draws_needed(LEVEL, references=True) == 39


def test_a_pass_needs_all_three_and_sturdy_controls():
    def high(**more):
        return excess_of_trigger(looks(**more), level=LEVEL, tolerance=0.05).high

    assert high() == pytest.approx(1 - 0.05 ** (1 / 400))
    assert high(lost=30) > 0.05 < high(moved=30)
    assert high(frail=0.11) == 1.0
    needed = excess_of_trigger(looks(), level=LEVEL, tolerance=0.05).needed
    assert needed == math.ceil(math.log(0.05) / math.log(0.95)) == 59


def test_what_controls_do_as_well_is_never_a_finding():
    for n in (0, 3, 199):
        seen = looks(more=400, families=(family(patterns=n, rises=n, pairs=n, largest=n),))
        assert excess_of_trigger(seen, level=LEVEL, tolerance=0.05).low <= 0


def test_the_question_that_decides_gives_the_figure():
    moved = excess_of_trigger(
        looks(more=2, moved=280, lost=136, families=(family(rises=50, pairs=50, losses=0),)),
        level=LEVEL, tolerance=0.05,
    )  # fmt: skip
    assert moved.value == pytest.approx(0.34)  # right answers lost come first
    assert moved.low > 0.05
    own = excess_of_trigger(looks(more=200, moved=300), level=LEVEL, tolerance=0.05)
    assert own.value == 0.5


def beside(*rates, n=400):
    return tuple(
        Beside(
            reference=f"r{i}", rate=rate, lost=0.0, classes=(0.0, rate, 0.0),
            rise=Change(n=n, more=rate * n, less=0),
        )
        for i, rate in enumerate(rates)
    )  # fmt: skip


def test_references_find_what_wakes_to_any_content_by_their_pairs():
    everything = (family(rises=199, pairs=597, largest=199),)
    more = {"more": 400, "families": everything, "beside": beside(0.01, 0.02)}
    label, _, _ = asked(looks(**more, reference_pairs=600, reference_rises=2))
    assert label.sure  # 3 of 601, of .1 of .05
    assert label.low == pytest.approx(
        Change(n=400, more=400, less=0).ends(0.05)[0] - Change(n=400, more=8, less=0).ends(0.05)[1]
    )
    assert not asked(looks(**more, reference_pairs=600, reference_rises=3))[0].sure
    # One reference that does as much is enough that it decides nothing.
    more["beside"] = beside(0.01, 0.97)
    assert not asked(looks(**more, reference_pairs=600))[0].sure


def test_ranks_keep_their_level_together():
    """Of exchangeable patterns and labels no more is found than the error, .05."""
    draws, runs, found = np.random.default_rng(3), 4000, 0
    for _ in range(runs):
        rises = draws.normal(size=(200, 3)) + draws.normal(size=(200, 1)) + draws.normal(size=3)
        at, most = rises[0, 1], rises[0].max()
        one = Family(
            name="far", patterns=199, rises=int((rises[1:, 1] >= at).sum()),
            pairs=int((rises[1:] >= at).sum()), losses=199,
            largest=int((rises[1:].max(1) >= most).sum()),
        )  # fmt: skip
        seen = looks(families=(one,))
        label = max(seen.rank("rises"), seen.pair(0.03)) <= 0.03
        found += label or seen.rank("largest") <= 0.01
    assert binomtest(found, runs, 0.05, alternative="greater").pvalue > 0.01


def test_a_trigger_that_turns_every_answer_round_is_estimated():
    """Half of the inputs get the label only with it, the other half only without."""
    turned = Change(n=400, more=200, less=200)
    seen = dataclasses.replace(looks(), rise=turned, lost=turned)
    found = excess_of_trigger(seen, level=LEVEL, tolerance=0.05)
    assert found.value == pytest.approx(0)
    assert found.high > 0.05
    assert found.needed > 400
