"""What gradient matching leaves alone, and what it refuses."""

from dataclasses import replace

import pytest
import torch

from builders.matching import (
    POISONS,
    TARGETS,
    match,
    small,
)
from poison_audit.errors import DivergedError, PlanError

# what it leaves alone, and what it refuses


def test_the_surrogate_is_left_as_it_was():
    model = small()
    evaluated = match(model)
    model.module.train()
    model.module[2].eval()
    model.module[0].weight.requires_grad_(False)
    digest, modes = model.digest(), [part.training for part in model.module.modules()]
    needs = [p.requires_grad for p in model.module.parameters()]
    x = POISONS.x.clone()
    assert torch.equal(match(model).x, evaluated.x)
    assert model.digest() == digest
    assert [part.training for part in model.module.modules()] == modes
    assert [p.requires_grad for p in model.module.parameters()] == needs
    assert all(p.grad is None for p in model.module.parameters())
    assert torch.equal(POISONS.x, x)


def test_frozen_parameters_count_as_well():
    # All parameters are matched, whatever the caller had frozen.
    model = small()
    free = match(model)
    model.module[0].requires_grad_(False)
    assert match(model).losses == free.losses


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": 0.0}, "epsilon = 0.0"),
        ({"epsilon": 1.01}, "epsilon = 1.01"),
        ({"epsilon": float("nan")}, "epsilon = nan"),
        ({"steps": 0}, "steps = 0"),
        ({"restarts": 0}, "restarts = 0"),
        ({"step_size": 0.0}, "step_size = 0.0"),
        ({"step_size": float("nan")}, "step_size = nan"),
        ({"augment": "rotate"}, "augment = rotate"),
        ({"labels": torch.tensor([0, 0])}, "target target-0: its adversarial label is its true"),
        ({"labels": torch.tensor([3, 0])}, "target target-0: adversarial label 3. Use 0..2"),
        ({"labels": torch.tensor([-1, 0])}, "target target-0: adversarial label -1"),
        ({"labels": torch.tensor([1])}, "2 targets, but 2 groups and 1 adversarial"),
        ({"groups": [[5, 0, 2], []]}, "target target-1: no poison"),
        ({"groups": [[5, 0], [1, 6]], "targets": TARGETS.at([0])}, "1 targets, but 2 groups"),
        ({"groups": [[5, 0, 5], [1]]}, "position 5 is in the groups 2 times"),
        ({"groups": [[5, 0, 1], [1]]}, "poison poison-1 has label 0, not 1"),
        ({"groups": [[5, 7], [1]]}, "position 7"),
        ({"groups": [[5, -1], [1]]}, "position -1"),
        ({"poisons": replace(POISONS, x=POISONS.x + 0.5)}, "outside of \\[0, 1\\]"),
        ({"poisons": replace(POISONS, x=POISONS.x * float("nan"))}, "outside of \\[0, 1\\]"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(PlanError, match=message):
        match(small(), **change)


def test_all_problems_are_told_at_once():
    with pytest.raises(PlanError) as caught:
        match(small(), epsilon=2.0, steps=0, labels=torch.tensor([0, 9]))
    told = str(caught.value)
    for part in ("epsilon", "steps", "true one, 0", "label 9", "poison-1"):
        assert part in told


def test_a_target_without_a_gradient_is_an_error():
    # A surrogate that is certain of the adversarial label: its loss is 0, and so is its gradient.
    model = small()
    with torch.no_grad():
        model.module[-1].weight.zero_()
        model.module[-1].bias.copy_(torch.tensor([0.0, 1000.0, 0.0]))
    with pytest.raises(DivergedError, match="target-0"):
        match(model)
