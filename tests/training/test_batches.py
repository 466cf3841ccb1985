"""Ledgers that count what was spent, and batches in the seed's order."""

from itertools import islice

import pytest
import torch

from builders.layered import RNG, samples
from poison_audit.models.seeds import Rng
from poison_audit.training.batches import shuffled
from poison_audit.training.ledger import Ledger

# the ledger


def test_steps_fit_to_the_last_and_forgive_only_rounding():
    ledger = Ledger(allowed=10.0)
    assert ledger.steps(4) == 2
    ledger.charge(4)
    assert ledger.steps(4) == 1
    ledger.charge(7)
    assert ledger.steps(4) == 0
    thirds = Ledger(allowed=4.0)
    for _ in range(11):
        thirds.charge(1 / 3)
    assert thirds.steps(1 / 3) == 1
    assert Ledger(allowed=3.999999).steps(4) == 0


def test_a_ledger_without_bound_counts_but_cannot_say_what_fits():
    ledger = Ledger()
    ledger.charge(5)
    assert ledger.spent == 5
    with pytest.raises(ValueError, match="bound"):
        ledger.steps(1)


@pytest.mark.parametrize("n", [0, 1, 199, 200, 201, 399, 1000])
def test_the_curve_is_thinned_evenly(n):
    ledger = Ledger(losses=list(torch.arange(float(n))))
    curve = ledger.curve()
    assert len(curve) <= 200
    assert len(curve) > min(n, 200) // 2 or n == 0
    assert curve == tuple(map(float, range(0, n, max(1, -(-n // 200)))))


# batches


@pytest.mark.parametrize("size", [1, 3, 7, 10])
def test_every_sample_comes_once_an_epoch(size):
    batches = list(islice(shuffled(samples(10), size, RNG), 10))
    assert {len(batch) for batch in batches} == {size}
    order = torch.cat([batch.y for batch in batches])
    epochs = order[: len(order) // 10 * 10].view(-1, 10).tolist()
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)  # shuffled anew


def test_a_batch_is_at_most_all_samples():
    assert len(next(shuffled(samples(10), 64, RNG))) == 10


def test_the_order_is_the_seeds_whatever_the_augmentation():
    def order(rng, augment="none"):
        return [b.y.tolist() for b in islice(shuffled(samples(10), 4, rng, augment=augment), 5)]

    assert order(RNG) == order(RNG, "flip") == order(RNG, "crop-flip")
    assert order(RNG) != order(Rng(5))


def test_augmented_pictures_are_crops_and_flips_of_their_own():
    x = torch.rand(6, 2, 8, 8, generator=RNG.torch())
    padded = torch.zeros(6, 2, 16, 16)
    padded[:, :, 4:12, 4:12] = x
    seen = []
    for batch in islice(shuffled(samples(6, x=x), 6, RNG, augment="crop-flip"), 120):
        for picture, source in zip(batch.x, batch.y.tolist(), strict=True):
            # Flipping first or cropping first gives the same set of pictures.
            found = [
                (top, left, flip)
                for top in range(9)
                for left in range(9)
                for flip in (False, True)
                if torch.equal(
                    picture.flip(2) if flip else picture,
                    padded[source, :, top : top + 8, left : left + 8],
                )
            ]
            assert len(found) == 1
            seen += found
    for place in (0, 1):
        assert {found[place] for found in seen} == set(range(9))
    assert 0.4 < sum(flip for _, _, flip in seen) / len(seen) < 0.6
    assert len(set(seen[:6])) > 1  # each picture of a batch draws its own


def test_flip_only_flips():
    x = torch.rand(6, 2, 8, 8, generator=RNG.torch())
    flips = 0
    for batch in islice(shuffled(samples(6, x=x), 6, RNG, augment="flip"), 20):
        for picture, source in zip(batch.x, x[batch.y], strict=True):
            flipped = torch.equal(picture, source.flip(2))
            assert flipped or torch.equal(picture, source)
            flips += flipped
    assert 40 < flips < 80
