"""Are labels numbered as the model's outputs are? The confusion matrix' best matching says.

A table's label k stands for the model's output k. Where names were numbered in another order, each
label has an output of its own all the same, only another: the one-to-one matching of labels to
outputs that answers most samples rightly (an assignment problem, `linear_sum_assignment`) is then
not the stated one. The matching is chosen on one half of the samples and tried on the other, so
that choosing among all orders costs no level: there, each cycle of it and the whole are compared
with the stated order by the exact McNemar test, corrected for how many were tried.

**Weak models** are no matter: to be matched otherwise, two classes must be taken for each other
more often than for themselves, both ways, which no training on right labels comes to.

**Poison** can come to it: enough labels flipped between two classes, both ways, and the model
confuses them as it was taught. But a wrong numbering moves every row of a table alike, the forget
set's too, and a poison only what was not trained on: the flipped rows themselves are answered as
they are labelled. So the forget samples of the moved labels may speak for the stated order: where
they are answered as stated at least as often as by the other matching, nothing is said. They can
have taught it only if there are enough of them, though: at least half as many as the retain samples
of those labels, which were trained on as well. (Few flipped rows that a model never learned, in
tables that are numbered wrongly, look as if they were answered as labelled.) A model whose forget
set holds none of the rows that did it is doubted, and rightly: retain samples that it answers
otherwise than they are labelled are none that it was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from poison_audit.statistics.estimates import more_often

LEVEL = 1e-3
"""Chance of a false alarm, over all cycles of a matching."""
GAIN = 0.1
"""Least share of the samples of moved labels that the better matching must answer more of."""
WITNESSES = 5
"""Fewest forget samples of the moved labels that can speak for the stated order."""
ENOUGH = 0.5
"""Fewest of them, in retain samples of those labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Labels and the model's answers to the same samples, int64, on the CPU."""

    labels: Tensor
    outputs: Tensor

    def joined(self, other: Answers) -> Answers:
        """Return these and then those of `other`."""
        return Answers(
            labels=torch.cat([self.labels, other.labels]),
            outputs=torch.cat([self.outputs, other.outputs]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """What the forget set can say of labels that are answered otherwise than they are numbered."""

    answers: Answers
    """To forget samples."""
    forget: Tensor
    """Forget samples by label, int64, (classes,)."""
    retain: Tensor
    """Retain samples by label."""

    def speaks_for(self, moves: dict[int, int]) -> bool:
        """Say whether poison may have taught a model to answer these labels otherwise."""
        labels = torch.tensor(sorted(moves))
        if int(self.forget[labels].sum()) < ENOUGH * int(self.retain[labels].sum()):
            return False
        concerned = _of(self.answers, moves)
        stated = int((concerned.outputs == concerned.labels).sum())
        matched = int((concerned.outputs == _moved(concerned.labels, moves)).sum())
        return stated >= max(matched, WITNESSES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed:
    """A matching of labels to outputs that is clearly better than the stated one."""

    output_of: tuple[int, ...]
    """By label: the output that answers it. Labels that are not moved stay."""
    moved: tuple[int, ...]
    """The labels that are, ascending."""
    total: int
    """Samples of those labels."""
    stated: int
    """How many of them are answered rightly as labels are numbered."""
    matched: int
    """How many if they were numbered by the matching."""


def mixed_labels(
    answers: Answers, *, classes: int, forget: Witness | None = None, tests: int = 1
) -> Mixed | None:
    """Return the clearly better matching of labels to outputs; None: there is none.

    Args:
        answers: to samples that should be clean, in an order that says nothing.
        classes: labels and outputs are 0 .. classes - 1.
        forget: what the forget samples say, of a poison's flipped labels.
        tests: how many tables are asked in all.
    """
    half = len(answers.labels) // 2
    if half == 0:
        return None
    choose, ask = (
        Answers(labels=answers.labels[part], outputs=answers.outputs[part])
        for part in (slice(0, None, 2), slice(1, None, 2))
    )
    cycles = _cycles(_best(choose, classes))
    if not cycles:
        return None
    whole = {label: output for cycle in cycles for label, output in cycle.items()}
    tried = [*cycles, whole] if len(cycles) > 1 else cycles
    sure = [moves for moves in tried if _better(ask, moves, level=LEVEL / (tests * len(tried)))]
    if forget is not None:
        sure = [moves for moves in sure if not forget.speaks_for(moves)]
    if not sure:
        return None
    moves = {label: output for moves in sure for label, output in moves.items()}
    concerned = _of(answers, moves)
    return Mixed(
        output_of=tuple(moves.get(label, label) for label in range(classes)),
        moved=tuple(sorted(moves)),
        total=len(concerned.labels),
        stated=int((concerned.outputs == concerned.labels).sum()),
        matched=int((concerned.outputs == _moved(concerned.labels, moves)).sum()),
    )


def _best(answers: Answers, classes: int) -> list[int]:
    """Return the output that best matches each label, one to one, the stated one among equals."""
    counts = torch.zeros(classes, classes)
    counts.index_put_(
        (answers.labels, answers.outputs), torch.ones(len(answers.labels)), accumulate=True
    )
    # Less than a sample in all: it decides between matchings that answer equally many.
    counts += torch.eye(classes) * (0.5 / classes)
    stated = torch.arange(classes)
    if torch.equal(counts.argmax(1), stated):  # each label's own best: no other matching has more
        return stated.tolist()
    from scipy.optimize import linear_sum_assignment  # takes long to import

    _, outputs = linear_sum_assignment(counts.numpy(), maximize=True)
    return [int(output) for output in outputs]


def _cycles(output_of: Sequence[int]) -> list[dict[int, int]]:
    """Return the cycles that move labels, each as label -> output.

    >>> _cycles([0, 2, 1, 3])
    [{1: 2, 2: 1}]
    """
    found, seen = [], set[int]()
    for start in range(len(output_of)):
        cycle, at = dict[int, int](), start
        while at not in seen:
            seen.add(at)
            cycle[at] = output_of[at]
            at = output_of[at]
        if len(cycle) > 1:
            found.append(cycle)
    return found


def _better(answers: Answers, moves: dict[int, int], *, level: float) -> bool:
    concerned = _of(answers, moves)
    stated = concerned.outputs == concerned.labels
    matched = concerned.outputs == _moved(concerned.labels, moves)
    gain = int(matched.sum()) - int(stated.sum())
    if gain < GAIN * len(stated):
        return False
    return more_often(int((matched & ~stated).sum()), int((stated & ~matched).sum())) < level


def _of(answers: Answers, moves: dict[int, int]) -> Answers:
    here = torch.isin(answers.labels, torch.tensor(sorted(moves)))
    return Answers(labels=answers.labels[here], outputs=answers.outputs[here])


def _moved(labels: Tensor, moves: dict[int, int]) -> Tensor:
    return torch.tensor([moves[label] for label in labels.tolist()], dtype=torch.int64)
