"""Accuracy that is below what was stated, or below what training must have reached."""

from __future__ import annotations

import pytest
import torch

from poison_audit.checks.level import doubts_of_level, doubts_of_retain, linear_answers
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.records import Sanity


def sanity(correct: int, total: int, expected: float | None, tolerated: float = 0.01) -> Sanity:
    return Sanity(
        correct=correct, total=total, low=0.0, chance=0.1, expected=expected, tolerated=tolerated
    )


@pytest.mark.parametrize(
    ("seen", "doubted"),
    [
        (sanity(900, 1000, None), False),
        (sanity(900, 1000, 0.9), False),
        (sanity(890, 1000, 0.9), False),
        # The exact upper end at 95% of 870 in 1,000 is 88.7% (scipy.stats.binomtest), of 874 89.1%.
        (sanity(870, 1000, 0.9), True),
        (sanity(874, 1000, 0.9), False),
        (sanity(870, 1000, 0.9, 0.02), False),
        (sanity(0, 0, 0.9), False),
    ],
)
def test_an_accuracy_below_what_was_stated_is_doubted(seen, doubted):
    found = doubts_of_level(seen, alpha=0.05)
    assert bool(found) is doubted
    for doubt in found:
        assert doubt.spoils
        assert "87.0%" in doubt.sentence
        assert "90.0%" in doubt.sentence


def right(hits: int, n: int = 200) -> torch.Tensor:
    return torch.arange(n) < hits


def test_a_network_that_answers_not_a_third_of_what_a_line_answers_is_doubted():
    assert doubts_of_retain(right(55), right(55), right(180))[0].spoils
    assert doubts_of_retain(right(95), right(95), right(180)) == []  # trained for too short
    assert doubts_of_retain(right(20), right(20), right(60)) == []  # nothing for a line either
    assert doubts_of_retain(right(0, 0), right(0, 0), None) == []


def test_retain_samples_that_are_answered_far_worse_than_test_samples_are_doubted():
    (doubt,) = doubts_of_retain(right(110), right(190), None)
    assert (doubt.about, doubt.spoils) == ("rows", False)
    assert "55.0%" in doubt.sentence
    assert "95.0%" in doubt.sentence
    assert doubts_of_retain(right(150), right(190), None) == []
    assert doubts_of_retain(right(190), right(140), None) == []


def test_a_line_answers_what_can_be_divided_by_lines():
    rng = Rng(0).torch()
    y = torch.randint(3, (400,), generator=rng)
    x = 0.3 * torch.rand(400, 3, 9, 9, generator=rng)
    x[torch.arange(400), y] += 0.2
    all_of = Samples(ids=tuple(map(str, range(400))), x=x, y=y)
    found = linear_answers(all_of.at(range(300)), all_of.at(range(300, 400)), 3)
    assert found is not None
    assert float(found.float().mean()) > 0.9
    assert linear_answers(all_of.at(range(11)), all_of.at(range(300, 400)), 3) is None


def test_a_line_counts_the_tokens_of_texts():
    y = torch.arange(200) % 2
    tokens = torch.stack([torch.full((200,), 5), 7 + y, torch.full((200,), 9)], 1)
    mask = torch.ones_like(tokens)
    texts = Samples(ids=tuple(map(str, range(200))), x=tokens, y=y, texts=("",) * 200, mask=mask)
    found = linear_answers(texts.at(range(100)), texts.at(range(100, 200)), 2)
    assert found is not None
    assert bool(found.all())
