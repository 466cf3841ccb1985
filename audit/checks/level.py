"""Is the accuracy what training must have reached, and what was stated?

Retain samples were trained on. A network that answers not a third as many of them as a linear
classifier does, which was fitted in an instant to other retain samples, does not work as it was
trained: the adapter is wrong, or these are other samples. Honest networks may be weak, so that no
sharper floor holds for all of them: one that was trained for two epochs, under strong augmentation,
answers no more of what it was trained on than of test samples, and some answer fewer than the
linear classifier. What was published, where it is stated, is the sharper yardstick.

Retain samples of which it answers clearly fewer than of test samples, by 30 points and more, were
not trained on as they are labelled. (By less it may be: where a fifth of the training labels are
wrong, as in labels from the web, it answers a fifth fewer of them than of clean test samples.)
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from poison_audit.case.doubts import Doubt
from poison_audit.models.samples import Samples, as_pixels
from poison_audit.records import Sanity
from poison_audit.statistics.estimates import clopper_pearson, more_often
from poison_audit.statistics.laws import fewer
from poison_audit.statistics.rounding import points

LEVEL = 1e-3
"""Chance of a false alarm of each comparison."""
EASY = 0.5
"""A linear classifier that answers fewer says nothing; of one that answers more, a network that was
trained answers a third as many at the very least."""
BELOW = 0.3
"""How far below test samples' the accuracy of retain samples must be."""
SIDE = 8
"""Pictures are averaged down to this side for the linear classifier."""
TOKENS = 1024
"""Tokens that the linear classifier of texts counts, the commonest."""
RIDGE = 10.0
"""Its penalty, of standardised features."""


def doubts_of_level(sanity: Sanity, *, alpha: float) -> list[Doubt]:
    """Return the doubt of an accuracy below what was stated, by more than chance and tolerance."""
    if sanity.expected is None or sanity.total == 0:
        return []
    _, high = clopper_pearson(sanity.correct, sanity.total, level=1 - alpha, sides=1)
    if high >= sanity.expected - sanity.tolerated:
        return []
    return [
        Doubt(
            about="adapter",
            sentence=f"The model answers only {sanity.accuracy:.1%} of clean test samples "
            f"correctly. {sanity.expected:.1%} was expected, and at most "
            f"{points(sanity.tolerated)} less is tolerated.",
            step="Find out what differs from where that was measured: the architecture, how inputs "
            "are read (--normalize, size, --prompt), the order of the labels, or the test table.",
            spoils=True,
        )
    ]


def doubts_of_retain(right: Tensor, test_right: Tensor, linear: Tensor | None) -> list[Doubt]:
    """Return the doubt, if any, about an accuracy on retain samples that training surpasses.

    Args:
        right: whether the model answers each retain sample as labelled, bool, (n,).
        test_right: the same of test samples.
        linear: whether the linear classifier answers each retain sample; None: there is none.
    """
    if len(right) == 0:
        return []
    mine = float(right.float().mean())
    fix = (
        "Check that this is the table it was trained on, as it was labelled then, the architecture "
        "and how inputs are read."
    )
    if linear is not None:
        other = float(linear.float().mean())
        weak = " If it is as weak as that, give the accuracy it should have (--expect-accuracy)."
        clear = more_often(int((linear & ~right).sum()), int((right & ~linear).sum())) < LEVEL
        if clear and other >= EASY and mine < other / 3:
            what = (
                f"The model answers {mine:.1%} of {len(right)} retain samples, on which it was "
                f"trained, and a linear classifier fitted to others of them answers {other:.1%}."
            )
            return [Doubt(about="adapter", sentence=what, step=fix + weak, spoils=True)]
    if len(test_right) == 0:
        return []
    theirs = float(test_right.float().mean())
    table = [[int(part.sum()), len(part)] for part in (right, test_right)]
    p_value = fewer(*table[0], *table[1])
    if p_value < LEVEL and theirs - mine >= BELOW:
        what = (
            f"The model answers {mine:.1%} of {len(right)} retain samples, on which it was "
            f"trained, and {theirs:.1%} of test samples, which it never saw."
        )
        return [Doubt(about="rows", sentence=what, step=fix, spoils=False)]
    return []


def linear_answers(fitted: Samples, asked: Samples, classes: int) -> Tensor | None:
    """Return whether a linear classifier answers samples as labelled, bool; None: too few to fit.

    Args:
        fitted: the samples that it is fitted to.
        asked: others of the same table.
    """
    if len(fitted) < 4 * classes or len(asked) == 0:
        return None
    x, z = _features(fitted, asked)
    mean, std = x.mean(0), x.std(0).clamp(min=1e-6)
    x, z = (x - mean) / std, (z - mean) / std
    y = F.one_hot(fitted.y.cpu(), classes).double()
    centre = y.mean(0)
    kernel = x @ x.T if len(x) < x.shape[1] else None
    if kernel is None:
        penalty = RIDGE * torch.eye(x.shape[1], dtype=torch.float64)
        weights = torch.linalg.solve(x.T @ x + penalty, x.T @ (y - centre))
    else:
        penalty = RIDGE * torch.eye(len(x), dtype=torch.float64)
        weights = x.T @ torch.linalg.solve(kernel + penalty, y - centre)
    answers: Tensor = (z @ weights + centre).argmax(1)
    return answers == asked.y.cpu()


def _features(fitted: Samples, asked: Samples) -> tuple[Tensor, Tensor]:
    if fitted.texts is None:
        pooled = [
            F.adaptive_avg_pool2d(as_pixels(s.x.cpu()).float(), SIDE).flatten(1).double()
            for s in (fitted, asked)
        ]
        return pooled[0], pooled[1]
    counts = torch.bincount(_tokens(fitted).flatten())
    kept = counts.argsort(descending=True)[:TOKENS]
    place = torch.full((len(counts) + 1,), len(kept), dtype=torch.int64)
    place[kept] = torch.arange(len(kept))
    held = []
    for samples in (fitted, asked):
        where = place[_tokens(samples).clamp(max=len(counts))]
        found = torch.zeros(len(samples), len(kept) + 1, dtype=torch.float64)
        held.append(found.scatter_(1, where, 1.0)[:, :-1])
    return held[0], held[1]


def _tokens(samples: Samples) -> Tensor:
    """Return token ids, 0 for padding."""
    x = samples.x.cpu()
    if samples.mask is None:
        return x
    return torch.where(samples.mask.cpu() > 0, x, 0)
