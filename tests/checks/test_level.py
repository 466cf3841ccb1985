"""Accuracy that is below what was stated, or below what training must have reached."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from poison_audit.case.case import Case
from poison_audit.checks.adapter import doubts_of_adapter
from poison_audit.checks.level import doubts_of_level, doubts_of_retain, linear_answers
from poison_audit.models.image import image_classifier
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.records import Recipe, Sanity


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


def coloured(classes: int) -> Samples:
    """Return 400 pictures; the class makes a row of pixels brighter."""
    rng = Rng(0).torch()
    y = torch.randint(classes, (400,), generator=rng)
    x = 0.3 * torch.rand(400, 3, 9, 9, generator=rng)
    x[torch.arange(400), y % 3, y // 3 * 2] += 0.6
    return Samples(ids=tuple(map(str, range(400))), x=x, y=y)


class Unmoved(nn.Module):
    """A network that gives one answer to everything."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = nn.Parameter(torch.eye(8)[:1])

    def forward(self, x: Tensor) -> Tensor:
        return self.answer.expand(len(x), 8)


@pytest.mark.parametrize(("expected", "doubts"), [(None, 1), (0.13, 0), (0.6, 1)])
def test_a_network_as_weak_as_its_owner_says_is_not_held_against_a_line(expected, doubts):
    samples = coloured(8)
    case = Case(
        model=image_classifier(Unmoved(), build=Unmoved, arch="unmoved", classes=8),
        forget=samples.at(range(20)), retain=samples.at(range(20, 300)),
        test=samples.at(range(300, 400)), recipe=Recipe(epochs=1),
    )  # fmt: skip
    found = doubts_of_adapter(case, sanity(13, 100, expected), alpha=0.05, rng=Rng(0))
    assert len(found) == doubts
    if expected is None:
        assert "linear classifier" in found[0].sentence
        assert "--expect-accuracy" in found[0].step


def test_a_line_answers_what_can_be_divided_by_lines():
    all_of = coloured(3)
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
