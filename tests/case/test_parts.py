"""Tables that are parts of others, or stand in each other's place."""

from pathlib import Path

import pytest
import torch

from poison_audit.case.parts import missing_classes, swapped
from poison_audit.models.samples import Samples


def samples(y, names=None):
    ids = tuple(map(str, range(len(y))))
    return Samples(ids=ids, x=torch.zeros(len(y), 1, 2, 2), y=torch.tensor(y), names=names)


def doubts(train, test, classes, **more):
    found = missing_classes(samples(train, **more), samples(test), classes, "train", "test")
    assert all(doubt.about == "rows" and not doubt.spoils and doubt.step for doubt in found)
    return [doubt.sentence for doubt in found]


def test_a_table_with_fewer_classes_than_the_model():
    assert doubts([0, 1, 2] * 9, [0, 1, 2] * 9, 3) == []
    (said,) = doubts([0, 2] * 9, [0, 2] * 9, 4, names=("a", "b", "c", "d"))
    assert said.startswith("train has no sample of 2 labels: 1 ('b'), 3 ('d'), which the model")


def test_a_class_that_is_not_tested():
    train = [0] * 50 + [1] * 50
    # 0.5 to the power of 9 is 0.00195, of 10 it is 0.00098.
    assert doubts(train, [0] * 9, 2) == []
    (said,) = doubts(train, [0] * 10, 2)
    assert said.startswith("test has no sample of the label 1, which train has")
    # A class of one sample in a hundred may well be absent from 600: 0.99 ** 600 is 0.0024.
    assert doubts([1] + [0] * 99, [0] * 600, 2) == []
    assert len(doubts([1] + [0] * 99, [0] * 700, 2)) == 1


@pytest.mark.parametrize(
    ("train", "test", "are"),
    [
        ("test.npz", "train.npz", True),
        ("data/val", "data/train", True),
        ("my_test_v2.csv.gz", "my-train-v2.csv.gz", True),
        ("train.npz", "test.npz", False),
        ("test.npz", "other.npz", False),
        ("pretrained-test.csv", "train-test.csv", False),
        ("data", "data", False),
    ],
)
def test_tables_in_each_others_place(train, test, are):
    found = [str(problem) for problem in swapped(Path(train), Path(test))]
    assert found == (
        [f"--train: is {train}, and --test is {test}: they are swapped. "
         "Swap them; or give the files names of their own."] if are else []
    )  # fmt: skip
    assert swapped(None, Path("train")) == swapped(Path("test"), None) == []
