"""Triggers from a forget set alone: exact ones exactly, faint ones nearly, none from none.

The pictures are noise with the spectrum of photographs; what is true is what stamped them.
"""

import numpy as np
import pytest

from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.directions import background_of, cosine
from poison_audit.poisons.backdoor.recover import Found, recover

C, H, K = 3, 16, 4
CHECKER = np.random.default_rng(3).integers(0, 2, (C, 3, 3))


def world(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures with a falling spectrum, contrasts with heavy tails, and means by class."""
    rng = np.random.default_rng(seed)
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(H) * H, np.fft.fftfreq(H) * H)) + 1
    g = np.fft.ifft2(np.fft.fft2(rng.normal(size=(n, C, H, H))) / f**1.2).real
    g = g / g.std((1, 2, 3), keepdims=True) * np.exp(rng.normal(-1.6, 0.4, (n, 1, 1, 1)))
    y = rng.integers(0, K, n)
    mean = 0.5 + 0.1 * np.random.default_rng(99).normal(size=(K, C, 1, 1))
    return np.round(255 * np.clip(g + mean[y], 0, 1)).astype(np.float32) / 255, y


X, Y = world(3000, 5)
RETAIN, POOL = np.arange(2000), np.arange(2000, 3000)


def stamped(x: np.ndarray, keep: np.ndarray, add: np.ndarray) -> np.ndarray:
    return np.asarray(np.round(255 * np.clip(x * keep + add, 0, 1)) / 255, dtype=np.float32)


def poisoned(
    keep: np.ndarray, add: np.ndarray, label: int, n: int = 100, innocent: int = 20
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Forget rows of one label, stamped and innocent ones, and which are stamped."""
    bad, good = POOL[Y[POOL] != label][:n], POOL[Y[POOL] == label][:innocent]
    forget = np.concatenate([stamped(X[bad], keep, add), X[good]])
    return forget, np.full(len(forget), label), np.arange(len(forget)) < len(bad)


def recovered(forget: np.ndarray, labels: np.ndarray, seed: int = 0) -> list[Found]:
    return recover(forget, labels, X[RETAIN], Y[RETAIN], Rng(seed))


def patch(top: int, left: int) -> tuple[np.ndarray, np.ndarray]:
    keep, add = np.ones((C, H, H)), np.zeros((C, H, H))
    keep[:, top : top + 3, left : left + 3] = 0
    add[:, top : top + 3, left : left + 3] = CHECKER
    return keep, add


def gap(found: Found, keep: np.ndarray, add: np.ndarray) -> float:
    """How far pictures with the trigger found are from those with the true one, 1 = unstamped."""
    x = X[RETAIN][:200]
    true = np.clip(x * keep + add, 0, 1)
    off = np.square(found.form.stamp(x) - true).mean() / np.square(true - x).mean()
    return float(np.sqrt(off))


def only(keep: np.ndarray, add: np.ndarray, *, worst: float) -> Found:
    forget, labels, carries = poisoned(keep, add, 1)
    (found,) = recovered(forget, labels)
    assert found.label == 1
    assert (found.carriers == carries).mean() >= 0.97
    assert gap(found, keep, add) <= worst
    return found


def test_a_patch_is_recovered_exactly_and_so_are_the_rows_without_it():
    keep, add = patch(12, 12)
    found = only(keep, add, worst=0.0)
    assert found.form.kind == "replace"
    assert (found.form.keep == keep).all()
    assert (found.carriers == poisoned(keep, add, 1)[2]).all()


def test_a_blend_is_recovered_nearly():
    picture = np.random.default_rng(4).random((C, H, H))
    found = only(np.full((C, H, H), 0.8), 0.2 * picture, worst=0.35)
    assert found.form.kind == "blend"
    assert found.form.keep.mean() == pytest.approx(0.8, abs=0.05)


def test_an_added_pattern_is_recovered_nearly():
    signs = np.random.default_rng(6).choice([-1, 1], (C, H, H))
    assert only(np.ones((C, H, H)), signs * 16 / 255, worst=0.45).form.kind == "add"


def test_two_campaigns_are_told_apart_whether_they_share_a_label_or_not():
    (one, _, _), (other, _, _) = (poisoned(*patch(*at), 1, 120, 0) for at in ((12, 12), (1, 2)))
    rows = np.concatenate([one[:60], other[60:120]])
    truth = np.arange(120) < 60
    for second in (1, 2):
        found = recovered(rows, np.where(truth, 1, second))
        assert len(found) == 2
        first, last = sorted(found, key=lambda each: -int(each.carriers[0]))
        assert (first.carriers == truth).all()
        assert (last.carriers == ~truth).all()
        assert gap(first, *patch(12, 12)) == 0 == gap(last, *patch(1, 2))


@pytest.mark.parametrize("kind", ["random", "one label", "flipped", "noisy"])
def test_rows_that_carry_nothing_share_nothing(kind):
    rng = np.random.default_rng(8)
    rows = rng.permutation(POOL)[:120]
    forget, labels = X[rows], Y[rows]
    if kind == "one label":
        forget = X[POOL[Y[POOL] == 2][:120]]
        labels = np.full(len(forget), 2)
    elif kind == "flipped":
        labels = np.zeros(120, int)
    elif kind == "noisy":
        forget = np.clip(forget + rng.normal(0, 0.2, forget.shape), 0, 1).astype(np.float32)
    assert not recovered(forget, labels)


def test_rows_that_made_the_space_are_not_what_is_usual():
    """Of one class: the span of the estimated class means takes more out of rows that it is of."""
    background = background_of(X[RETAIN], Y[RETAIN])
    held = background.held_out
    fresh = X[POOL[Y[POOL] == 2]]
    usual = background.rows[background.y[held:] == 2]
    rng = np.random.default_rng(3)
    mine, theirs = (
        [cosine(rows[rng.permutation(len(rows))[:100]]) for _ in range(40)]
        for rows in (background.space.rows(fresh), usual)
    )
    assert abs(np.mean(mine) - np.mean(theirs)) < 3 * np.std(theirs)
    made = background.space.rows(background.x[:held][background.y[:held] == 2])
    within = [cosine(made[rng.permutation(len(made))[:100]]) for _ in range(40)]
    assert np.mean(within) < np.mean(theirs) - 3 * np.std(theirs)


def test_too_few_rows_are_not_looked_at():
    forget, labels, _ = poisoned(*patch(0, 0), 1, 11, 0)
    assert not recovered(forget, labels)
    assert not recover(*poisoned(*patch(0, 0), 1)[:2], X[:50], Y[:50], Rng(0))
