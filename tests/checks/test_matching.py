"""Labels that are numbered otherwise than the model's outputs: found, named, and not made up."""

from __future__ import annotations

import pytest
import torch

from poison_audit.checks.matching import Answers, Witness, mixed_labels
from poison_audit.models.seeds import Rng


def answers(labels, outputs) -> Answers:
    return Answers(labels=torch.as_tensor(labels), outputs=torch.as_tensor(outputs))


def answered(n: int, classes: int, accuracy: float, *, output_of=None, seed: int = 0) -> Answers:
    """Samples that are answered by their label's output with this chance, else by any."""
    rng = Rng(seed).numpy()
    labels = rng.integers(0, classes, n)
    outputs = labels if output_of is None else torch.tensor(output_of)[labels].numpy()
    guess = rng.random(n) >= accuracy
    return answers(labels, torch.where(torch.tensor(guess), torch.tensor(
        rng.integers(0, classes, n)), torch.as_tensor(outputs)))  # fmt: skip


def test_labels_in_order_are_left_alone():
    for seed, accuracy in enumerate((0.0, 0.1, 0.3, 0.5, 0.8, 1.0) * 20):
        assert mixed_labels(answered(400, 10, accuracy, seed=seed), classes=10) is None


@pytest.mark.parametrize(
    "output_of",
    [
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 0],
        [0, 1, 3, 2, 4, 5, 6, 7, 8, 9],  # two alone
        [1, 0, 3, 2, 4, 5, 6, 7, 8, 9],
        # plane, car, bird, cat, deer, dog, frog, horse, ship, truck, sorted
        [2, 1, 3, 4, 5, 6, 7, 0, 8, 9],
    ],
)
@pytest.mark.parametrize("accuracy", [1.0, 0.7])
def test_another_order_is_found(output_of, accuracy):
    seen = answered(400, 10, accuracy, output_of=output_of)
    found = mixed_labels(seen, classes=10)
    assert found is not None
    assert list(found.output_of) == output_of
    moved = [label for label in range(10) if output_of[label] != label]
    assert list(found.moved) == moved
    concerned = torch.isin(seen.labels, torch.tensor(moved))
    assert found.total == int(concerned.sum())
    right = torch.tensor(output_of)[seen.labels] == seen.outputs
    assert found.matched == int((right & concerned).sum())
    assert found.stated == int(((seen.labels == seen.outputs) & concerned).sum())


def test_many_classes_of_few_samples_are_found_as_a_whole():
    swapped = [label ^ 1 for label in range(500)]
    found = mixed_labels(answered(1500, 500, 0.9, output_of=swapped), classes=500)
    assert found is not None
    assert found.matched > 1000 > 20 > found.stated


def test_one_confused_class_is_no_other_order():
    # All of class 8 is called 3, as copies of 8 labelled 3 teach it: 3 keeps its own output.
    seen = answered(400, 10, 1.0)
    taught = answers(seen.labels, torch.where(seen.labels == 8, 3, seen.outputs))
    assert mixed_labels(taught, classes=10) is None


def test_classes_that_poison_swapped_are_spoken_for_by_the_forget_set():
    seen = answered(400, 10, 0.98, output_of=[0, 1, 2, 5, 4, 3, 6, 7, 8, 9])
    retain = torch.full((10,), 30)

    def found(forget: Answers):
        counts = torch.bincount(forget.labels, minlength=10)
        witness = Witness(answers=forget, forget=counts, retain=retain)
        return mixed_labels(seen, classes=10, forget=witness)

    # What taught it so: rows of 3 labelled 5, and of 5 labelled 3, answered as they are labelled.
    flipped = answers([5] * 20 + [3] * 20, [5] * 20 + [3] * 20)
    assert found(flipped) is None
    # Under a wrong numbering they would be answered otherwise than they are labelled, too.
    assert found(answers([5] * 20 + [3] * 20, [3] * 20 + [5] * 20)) is not None
    assert found(answers([7] * 40, [7] * 40)) is not None
    # Rows that are fewer than half of those that it was trained on beside them taught it nothing.
    assert found(answers([5] * 14 + [3] * 14, [5] * 14 + [3] * 14)) is not None


def test_nothing_is_said_of_nothing():
    assert mixed_labels(answers([], []).joined(answers([1], [0])), classes=2) is None
