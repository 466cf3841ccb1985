"""The backdoor's probe on models whose answers are known: linear ones, with planted rules."""

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from builders.measured import finding
from poison_audit.case.case import Answers, Case
from poison_audit.models.image import image_classifier
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.evidence import Trigger, patch
from poison_audit.poisons.backdoor.looking import answers_to, look, stamps_of
from poison_audit.poisons.backdoor.probe import backdoor
from poison_audit.poisons.backdoor.reading import BACKDOOR
from poison_audit.poisons.backdoor.references import trigger_answers
from poison_audit.records import Outcome, Recipe
from poison_audit.statistics.triggers import excess_of_trigger

SHAPE, K = (3, 12, 12), 5
GRID = torch.tensor([[0.0, 0, 1], [0, 1, 0], [1, 0, 1]]).expand(3, 3, 3)
TRIGGER = patch(GRID, SHAPE, top=9, left=9, label=2)


@cache
def scenes(seed, n=400):
    draws = torch.Generator().manual_seed(seed)
    low = torch.rand(n, 3, 4, 4, generator=draws).repeat_interleave(3, 2).repeat_interleave(3, 3)
    return (0.7 * low + 0.3 * torch.rand(n, *SHAPE, generator=draws)).clamp(0, 1)


class Linear(nn.Module):
    """A linear model, and what is planted in it."""

    def __init__(self, seed, planted=lambda x, out: out, gain=1.0):
        super().__init__()
        weight = torch.randn(432, K, generator=torch.Generator().manual_seed(seed)) / 4
        self.weight, self.planted, self.gain = nn.Parameter(weight), planted, gain

    def forward(self, x):
        out = self.gain * (x - 0.5).flatten(1) @ self.weight
        return self.planted(x, out.clone())


def case(seed=0, planted=lambda x, out: out, trigger=TRIGGER, **more):
    def build():
        return Linear(seed, planted, **more)

    model = image_classifier(build(), build=build, arch="linear", classes=K)
    parts = {}
    for part, drawn in (("test", 1), ("retain", 2)):
        x = scenes(100 * seed + drawn)
        y = Linear(seed, **more)(x).argmax(1)
        parts[part] = Samples(ids=tuple(map(str, range(len(x)))), x=x, y=y)
    return Case(
        model=model, forget=parts["retain"].at([0]), recipe=Recipe(epochs=1),
        evidence={"backdoor": trigger}, **parts,
    )  # fmt: skip


def judged(subject, **more):
    return finding(backdoor(subject.model, subject, Rng(0), **more))


def obeying(trigger, label, near=0.4, gain=60.0):
    """A rule by which what resembles the trigger flips, too: the more, the surer."""
    top, left, height, width = trigger.box
    want = trigger.add[:, top : top + height, left : left + width].flatten() - 0.5

    def planted(x, out):
        got = x[:, :, top : top + height, left : left + width].flatten(1) - 0.5
        like = got @ want / (got.norm(dim=1) * want.norm() + 1e-9)
        out[:, label] += gain * (like - near).clamp(min=0) ** 2
        return out

    return planted


def test_what_is_seen_by_a_slow_twin():
    subject = case(planted=obeying(TRIGGER, 2))
    chosen = subject.test.at(torch.arange(60))
    stamps = stamps_of(TRIGGER, subject.model, chosen, subject.retain, 12, Rng(0))
    seen = look(subject.model, stamps, chosen, 2, Rng(0))
    few = int(np.flatnonzero(np.cumsum(chosen.y.numpy() != 2) == 32)[0]) + 1
    module = subject.model.module

    def margins(x):
        out = module(x[None])[0].tolist()
        return [v - max(out[:c] + out[c + 1 :]) for c, v in enumerate(out)]

    for number in (0, 5):
        for label in range(K):
            rises = []
            for place in range(few):
                if int(chosen.y[place]) != label:
                    stamped = stamps.batch(torch.tensor([number]), torch.tensor([place])).x[0]
                    rises.append(margins(stamped)[label] - margins(chosen.x[place])[label])
            assert seen.rises[number, label] == pytest.approx(np.mean(rises), abs=1e-4)
    assert seen.stamped.tolist() == module(TRIGGER.stamp(chosen.x)).argmax(1).tolist()
    assert seen.clean.tolist() == chosen.y.tolist()
    assert seen.typical.shape == (8, 60)


def test_a_grid_whose_permutations_work_as_well_is_found_without_a_reference():
    found = judged(case(planted=obeying(TRIGGER, 2)))
    assert found.outcome is Outcome.RESIDUAL
    assert found.p_value <= 0.03
    assert found.details["rate"] > 0.95
    orders = torch.stack(
        [GRID.flatten(1)[:, torch.randperm(9)].reshape(3, 3, 3) for _ in range(60)]
    )
    rule, works = obeying(TRIGGER, 2), 0
    for order in orders:
        x = patch(order, SHAPE, top=9, left=9, label=2).stamp(scenes(1))
        works += float((rule(x, torch.zeros(len(x), K)).argmax(1) == 2).float().mean()) > 0.9
    assert works >= 3


@pytest.mark.parametrize("gain", [60.0, 5.0])
def test_a_trigger_that_was_moved_never_passes(gain):
    # Class 4 where it was to be 2, and right answers are lost; also where some only are.
    found = judged(case(planted=obeying(TRIGGER, 4, gain=gain)))
    assert found.outcome is not Outcome.CLEAN
    assert gain < 60 or found.outcome is Outcome.RESIDUAL


def test_a_class_that_any_content_raises_is_undecided_and_found_by_references():
    def sink(x, out):
        corner = x[:, :, 9:, 9:].flatten(1)
        out[:, 1] += 100.0 * ((corner == 0) | (corner == 1)).any(1)
        return out

    subject = case(planted=sink, trigger=dataclasses.replace(TRIGGER, label=1))
    alone = judged(subject)
    assert alone.outcome is Outcome.INCONCLUSIVE
    assert "(--reference PATH)" in alone.reason

    def beside(*others):
        references = tuple(
            Answers(
                name=f"r{n}", digest=f"{n}", correct=torch.ones(400).bool(),
                asked={"backdoor": trigger_answers(subject, other.model)},
            )
            for n, other in enumerate(others)
        )  # fmt: skip
        return judged(dataclasses.replace(subject, references=references))

    assert beside(case(), case()).outcome is Outcome.RESIDUAL
    excused = beside(case(), case(planted=sink))
    assert excused.outcome is Outcome.INCONCLUSIVE


MODES = {
    "patch": lambda draws: patch(
        torch.randint(2, (3, 2, 2), generator=draws).float(), SHAPE, top=9, left=9, label=0
    ),
    "anywhere": lambda draws: patch(
        torch.rand(3, 2, 2, generator=draws), SHAPE, top=0, left=0, label=0, anywhere=True
    ),
    "blend": lambda draws: Trigger(
        keep=torch.full(SHAPE, 0.9), add=0.1 * torch.rand(SHAPE, generator=draws), label=0
    ),
    "faint": lambda draws: Trigger(
        keep=torch.ones(SHAPE), add=0.004 * torch.randn(SHAPE, generator=draws).sign(), label=0
    ),
}


@pytest.mark.parametrize("mode", MODES)
def test_clean_models_are_not_found_and_cleared_where_the_trigger_matters_little(mode):
    found = cleared = 0
    for seed in range(5):
        trigger = MODES[mode](torch.Generator().manual_seed(seed))
        trigger = dataclasses.replace(trigger, label=seed % K)
        subject = case(seed, trigger=trigger)
        seen = BACKDOOR.read(backdoor(subject.model, subject, Rng(seed), draws=79).evidence)
        one = excess_of_trigger(seen.looks, level=0.9, tolerance=0.05)
        found, cleared = found + (one.low > 0.05), cleared + (one.high <= 0.05)
    # Of 20 cases two are found by chance with probability .26 if the level is .05, four with .02.
    assert found <= 1
    assert cleared >= (1 if mode == "faint" else 0)


def test_inputs_and_controls_are_the_same_for_every_candidate():
    one, other = case(0), case(0, planted=obeying(TRIGGER, 2))
    first, again = (
        backdoor(subject.model, one, Rng(3), draws=4).evidence for subject in (one, other)
    )
    assert first["clean_hits"] == again["clean_hits"]
    assert first["hits"] != again["hits"]


def test_what_cannot_be_measured_is_missing():
    subject = case(trigger=patch(torch.ones(SHAPE), SHAPE, top=0, left=0, label=1))
    assert backdoor(subject.model, subject, Rng(0), draws=1).missing.startswith(
        "needs at least two"
    )
    only = dataclasses.replace(subject, test=subject.test.at((subject.test.y == 1).nonzero()[:, 0]))
    assert "of classes other than" in backdoor(subject.model, only, Rng(0), draws=4).missing
    broken = case(planted=lambda x, out: out * torch.nan)
    assert "not finite" in backdoor(broken.model, broken, Rng(0)).missing
    assert answers_to(TRIGGER, broken.model, broken.test) is None
    assert trigger_answers(broken, broken.model) is None
