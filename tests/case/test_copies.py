"""Equal inputs of one table count once; those of two tables are found (tests/case/test_forget)."""

import numpy as np
import torch

from poison_audit.case.copies import distinct, equal_to
from poison_audit.models.samples import Samples


def pictures(values, labels=None):
    """Pictures of one grey level each, 8-bit."""
    x = torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2)
    y = torch.tensor(labels if labels is not None else [0] * len(values))
    return Samples(ids=tuple(f"s{i}" for i in range(len(values))), x=x.contiguous(), y=y)


def texts(rows, length=3):
    """Texts of these tokens, padded by 0."""
    x = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    names = tuple(f"t{i}" for i in range(len(rows)))
    return Samples(ids=names, x=x, y=torch.zeros(len(rows), dtype=int), texts=names, mask=mask)


def test_the_first_of_equal_pictures_stays():
    found = distinct(pictures([5, 7, 5, 9, 7, 5], [0, 1, 0, 2, 2, 0]))
    assert found.samples.ids == ("s0", "s1", "s3")
    assert (found.repeated, found.relabelled) == (3, 1)
    assert found.said() == (
        "3 of 6 test samples repeat an earlier one. Each input counts once, so that 3 were "
        "measured. Of the repeats 1 have another label: the first one counts.",
    )


def test_a_table_without_repeats_is_left_alone():
    table = pictures([1, 2, 3])
    found = distinct(table)
    assert found.samples is table
    assert found.said() == ()


def test_pictures_stored_as_floating_point_are_compared_with_those_of_8_bits():
    table = pictures([5, 7])
    assert equal_to(table, Samples(ids=("a",), x=table.x[1:] / 255, y=table.y[1:])).tolist() == [
        False, True,
    ]  # fmt: skip


def test_texts_are_equal_if_the_model_is_given_the_same_tokens():
    # The padding is no token: [4] and [4, 0] are others.
    found = distinct(texts([[4, 5], [4], [4, 5], [4, 0]]))
    assert found.samples.ids == ("t0", "t1", "t3")


def test_every_sample_of_a_random_table_that_repeats_is_counted():
    values = np.random.default_rng(0).integers(0, 50, 200)
    found = distinct(pictures(values.tolist()))
    assert len(found.samples) == len(set(values.tolist()))
    assert found.repeated == 200 - len(set(values.tolist()))
