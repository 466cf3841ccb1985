"""Wrong labels that a forget set shows by itself."""

from dataclasses import replace

import torch

from poison_audit.models.samples import Samples
from poison_audit.poisons.mislabelled.recover import Flip, flip_table, flips_of


def pictures(labels: list[int]) -> Samples:
    """Pictures that all differ."""
    n = len(labels)
    x = torch.arange(n).byte()[:, None, None, None].expand(n, 1, 2, 2).clone()
    return Samples(ids=tuple(f"t{i}" for i in range(n)), x=x, y=torch.tensor(labels))


def test_a_copy_under_another_label_is_a_flip_and_one_under_its_own_is_none():
    train = pictures([3, 3, 3, 8, 8, 1])
    x = train.x.clone()
    x[0], x[1], x[2] = x[3], x[4], x[3]
    train = replace(train, x=x)
    found = flips_of(train, [0, 1, 5], [train.at([3, 4])])
    assert found == (
        Flip(place=0, given=3, true=8, twin="t3"),
        Flip(place=1, given=3, true=8, twin="t4"),
    )
    assert flip_table(found) == {(8, 3): 2}
    # Where the clean data hold it under both labels, nobody knows which is wrong.
    assert flips_of(train, [0], [train.at([2, 3])]) == ()


def test_bases_that_are_not_retained_tell_as_well():
    train, bases = pictures([1, 2, 0]), pictures([1, 0, 0])
    (flip,) = flips_of(train, [0, 1], [train.at([2]), bases])
    assert (flip.place, flip.given, flip.true) == (1, 2, 0)
