"""Gradient matching: its objective against slow twins, and what it promises about the poisons."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from builders.matching import (
    ADVERSARIAL,
    EPSILON,
    GROUPS,
    POISONS,
    RNG,
    TARGETS,
    match,
    small,
)
from poison_audit.models.model import Batch
from poison_audit.models.seeds import Rng
from poison_audit.poisons.targeted import gradient_matching
from poison_audit.poisons.targeted.gradient_matching import matching_loss
from poison_audit.training.scoring import losses


def gradient_of(model, x, y):
    """Return the gradient of one sample's loss over all parameters, as one float64 row."""
    loss = F.cross_entropy(model.module((x[None] - 0.4) / 0.3), y[None])
    return np.concatenate(
        [g.numpy().ravel() for g in torch.autograd.grad(loss, list(model.module.parameters()))]
    ).astype(np.float64)


def slow_loss(model, x, y, target, label):
    """Return 1 - cosine from a gradient a sample, in numpy."""
    ours = np.mean([gradient_of(model, a, b) for a, b in zip(x, y, strict=True)], axis=0)
    theirs = gradient_of(model, target, label)
    return 1 - ours @ theirs / np.sqrt((ours @ ours) * (theirs @ theirs))


def double(model):
    return replace(model, module=model.module.double())


# the objective


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_the_objective_is_one_minus_the_cosine_of_the_flat_gradients(activation):
    model = double(small(activation))
    x, y = POISONS.x[GROUPS[0]].double(), POISONS.y[GROUPS[0]]
    target, label = TARGETS.x[0].double(), ADVERSARIAL[0]
    loss = model.loss(model.module, Batch(x=target[None], y=label[None])).sum()
    g = torch.autograd.grad(loss, list(model.module.parameters()))
    expected = slow_loss(model, x, y, target, label)
    assert matching_loss(model, Batch(x=x, y=y), g).item() == pytest.approx(expected, abs=1e-12)
    # Cosine: no scale matters. Its sign does: the opposite gradient is as far from 1, beyond it.
    scaled = [-3 * part for part in g]
    assert matching_loss(model, Batch(x=x, y=y), scaled).item() == pytest.approx(2 - expected)
    itself = Batch(x=target[None], y=label[None])
    assert matching_loss(model, itself, g).item() == pytest.approx(0, abs=1e-12)


def test_the_objectives_gradient_is_that_of_finite_differences():
    # Smooth activations: where ReLU bends, no difference quotient is right.
    model = double(small(nn.Softplus))
    y = POISONS.y[GROUPS[0]]
    x = POISONS.x[GROUPS[0]].double().requires_grad_()
    wanted = Batch(x=TARGETS.x[:1].double(), y=ADVERSARIAL[:1])
    loss = model.loss(model.module, wanted).sum()
    # As if it depended on the poisons, with no change of value: it counts as a constant.
    nothing = x.sum() - x.sum().detach()
    g = [part + nothing for part in torch.autograd.grad(loss, list(model.module.parameters()))]
    (gradient,) = torch.autograd.grad(matching_loss(model, Batch(x=x, y=y), g), x)
    assert gradient.abs().max() > 1e-4
    h = 1e-5
    for place in range(0, x.numel(), 7):
        moved = []
        for side in (h, -h):
            shifted = x.detach().clone()
            shifted.view(-1)[place] += side
            moved.append(slow_loss(model, shifted, y, TARGETS.x[0].double(), ADVERSARIAL[0]))
        difference = (moved[0] - moved[1]) / (2 * h)
        assert gradient.view(-1)[place].item() == pytest.approx(difference, abs=1e-8, rel=1e-5)


# the attack


@pytest.mark.parametrize("doubled", [False, True])
def test_the_losses_are_those_of_the_poisons_returned_and_lower_than_the_clean_ones(doubled):
    model = double(small()) if doubled else small()
    matched = match(model, steps=40)
    twin = double(model.clone())
    for i, group in enumerate(GROUPS):
        y, target, label = POISONS.y[group], TARGETS.x[i].double(), ADVERSARIAL[i]
        after = slow_loss(twin, matched.x[group].double(), y, target, label)
        before = slow_loss(twin, POISONS.x[group].double(), y, target, label)
        assert matched.losses[i] == pytest.approx(after, abs=1e-12 if doubled else 1e-5)
        assert after < before - 0.02


@pytest.mark.parametrize("epsilon", [1e-8, 1e-3, 16 / 255, 0.3, 1.0])
@pytest.mark.parametrize("doubled", [False, True])
def test_ball_and_box_hold_exactly(epsilon, doubled):
    # Corners of the box, 8-bit values, and values whose float32 sum with epsilon is rounded.
    x = POISONS.x.clone()
    x[:, :, 0], x[:, :, 1] = 0.0, 1.0
    x[:, :, 2] = (x[:, :, 2] * 255).round() / 255
    poisons = replace(POISONS, x=x)
    matched = match(double(small()) if doubled else small(), poisons=poisons, epsilon=epsilon,
                    step_size=2.0)  # fmt: skip
    assert matched.x.dtype == torch.float32
    assert matched.x.shape == x.shape
    moved = (matched.x.double() - x.double()).abs()
    assert moved.max() <= epsilon
    assert epsilon < 1e-6 or moved.max() > 0.99 * epsilon
    assert matched.x.min() >= 0
    assert matched.x.max() <= 1
    assert torch.equal(matched.x[3], x[3])


def test_eight_bit_pictures_are_read_as_pixels():
    eight = (POISONS.x * 255).round().to(torch.uint8)
    of_bytes = match(small(), poisons=replace(POISONS, x=eight))
    of_floats = match(small(), poisons=replace(POISONS, x=eight.float() / 255))
    assert torch.equal(of_bytes.x, of_floats.x)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    first, second = match(small(), augment="crop-flip"), match(small(), augment="crop-flip")
    assert torch.equal(first.x, second.x)
    assert first.losses == second.losses
    other = match(small(), augment="crop-flip", rng=Rng(12))
    assert not torch.equal(first.x[GROUPS[0]], other.x[GROUPS[0]])


def test_a_target_does_not_change_anothers_poisons():
    both = match(small())
    alone = match(small(), groups=GROUPS[1:], targets=TARGETS.at([1]), labels=ADVERSARIAL[1:])
    assert torch.equal(alone.x[GROUPS[1]], both.x[GROUPS[1]])
    assert torch.equal(alone.x[GROUPS[0]], POISONS.x[GROUPS[0]])
    assert alone.losses == both.losses[1:]


def test_the_best_restart_is_kept():
    # One step from noise: restarts differ much. More restarts begin with the same ones.
    runs = [match(small(), steps=1, restarts=n, rng=Rng(12)) for n in range(1, 7)]
    assert sum(runs[-1].losses) < sum(runs[0].losses)
    for i, group in enumerate(GROUPS):
        losses = [run.losses[i] for run in runs]
        assert losses == sorted(losses, reverse=True)
        for (a, b), (before, after) in zip(pairwise(runs), pairwise(losses), strict=True):
            assert torch.equal(a.x[group], b.x[group]) == (before == after)


def test_steps_shrink_at_three_five_and_seven_eighths(monkeypatch):
    # One pixel whose gradient always points up: Adam then steps by its rate, downwards.
    seen = []

    def downhill(model, poisons, target_gradient):
        seen.append(poisons.x.detach().clone())
        return poisons.x.sum()

    monkeypatch.setattr(gradient_matching, "matching_loss", downhill)
    match(small(), steps=16, restarts=1, step_size=1e-3, groups=GROUPS[:1],
          targets=TARGETS.at([0]), labels=ADVERSARIAL[:1])  # fmt: skip
    path = torch.stack(seen)
    inside = ((path - POISONS.x[GROUPS[0]]).abs() < 0.9 * EPSILON) & (path > 0.05) & (path < 0.95)
    free = inside.all(dim=0)
    steps = [(a - b)[free].mean().item() for a, b in pairwise(path)]
    rate = 1e-3 * EPSILON
    expected = [rate] * 6 + [rate / 10] * 4 + [rate / 100] * 4 + [rate / 1000] * 2
    assert steps == pytest.approx(expected, rel=0.01, abs=2e-8)


# augmentation


@pytest.mark.parametrize("augment", ["flip", "crop-flip"])
def test_poisons_are_augmented_anew_each_step_and_never_beyond_the_ball(monkeypatch, augment):
    seen = []
    plain = gradient_matching.matching_loss

    def watched(model, poisons, target_gradient):
        seen.append(poisons.x.detach().clone())
        return plain(model, poisons, target_gradient)

    monkeypatch.setattr(gradient_matching, "matching_loss", watched)
    # A step too small to see: what changes from step to step is the augmentation.
    matched = match(small(), steps=6, restarts=1, step_size=1e-9, augment=augment,
                    groups=GROUPS[:1], targets=TARGETS.at([0]), labels=ADVERSARIAL[:1])  # fmt: skip
    made = matched.x[GROUPS[0]]
    draws = RNG.named("target-0", 0, "augment").torch()
    for batch in seen[:-1]:
        twin = np.stack([_moved(p.numpy(), augment, *d) for p, d in zip(
            made, _draws(3, augment, draws), strict=True)])  # fmt: skip
        np.testing.assert_allclose(batch.numpy(), twin, atol=1e-6)
    assert torch.equal(seen[-1], made)  # the loss that restarts are compared by
    assert any(not torch.equal(a, b) for a, b in pairwise(seen[:-1]))


def _draws(n, augment, generator):
    flips = torch.randint(2, (n,), generator=generator).tolist()
    if augment == "flip":
        return [(flip, 4, 4) for flip in flips]
    top, left = torch.randint(9, (2, n), generator=generator).tolist()
    return list(zip(flips, top, left, strict=True))


def _moved(picture, augment, flip, top, left):
    picture = picture[:, :, ::-1] if flip else picture
    padded = np.pad(picture, ((0, 0), (4, 4), (4, 4)))
    return padded[:, top : top + 6, left : left + 6]


def test_pixels_learn_through_the_augmentation():
    # The loss falls on average over augmentations that the attack has not seen.
    model = small()
    clean = POISONS.at(GROUPS[0])
    matched = match(model, steps=60, augment="flip", groups=GROUPS[:1], targets=TARGETS.at([0]),
                    labels=ADVERSARIAL[:1])  # fmt: skip
    loss = model.loss(model.module, Batch(x=TARGETS.x[:1], y=ADVERSARIAL[:1])).sum()
    g = torch.autograd.grad(loss, list(model.module.parameters()))

    def flipped(x):
        losses = []
        for way in range(8):
            turn = torch.tensor([way & 1, way & 2, way & 4]).bool()[:, None, None, None]
            losses.append(matching_loss(model, Batch(x=torch.where(turn, x.flip(3), x), y=clean.y),
                                        g).item())  # fmt: skip
        return sum(losses) / 8

    assert flipped(matched.x[GROUPS[0]]) < flipped(clean.x) - 0.02


def test_training_on_the_poisons_moves_the_target():
    """One small step down the poisons' loss lowers the target's by what the cosine foretells."""
    model = double(small(nn.Tanh))
    matched = match(model, steps=60, groups=GROUPS[:1], targets=TARGETS.at([0]),
                    labels=ADVERSARIAL[:1])  # fmt: skip
    poisons = Batch(x=matched.x[GROUPS[0]].double(), y=POISONS.y[GROUPS[0]])
    target = Batch(x=TARGETS.x[:1].double(), y=ADVERSARIAL[:1])
    parameters = list(model.module.parameters())
    before = model.loss(model.module, target).sum()
    theirs = torch.autograd.grad(before, parameters)
    ours = torch.autograd.grad(model.loss(model.module, poisons).mean(), parameters)
    sizes = [torch.cat([g.flatten() for g in side]).norm().item() for side in (ours, theirs)]
    step = 1e-5
    with torch.no_grad():
        for parameter, g in zip(parameters, ours, strict=True):
            parameter -= step * g
    after = losses(model, replace(TARGETS.at([0]), x=TARGETS.x[:1].double(),
                                           y=ADVERSARIAL[:1])).item()  # fmt: skip
    foretold = step * sizes[0] * sizes[1] * (1 - matched.losses[0])
    assert before.item() - after == pytest.approx(foretold, rel=1e-2)
    assert foretold > 0


def test_from_the_target_the_first_restart_starts_as_near_to_it_as_epsilon_allows():
    # With steps too small to matter the start is what comes back: the target, clipped to the ball.
    made = match(small(), from_target=True, steps=1, restarts=1, step_size=1e-9)
    for target, group in zip(TARGETS.x, GROUPS, strict=True):
        clean = POISONS.x[group].numpy()
        expected = np.clip(target.numpy(), clean - EPSILON, clean + EPSILON)
        np.testing.assert_allclose(made.x[group].numpy(), expected, atol=1e-6)
    assert torch.equal(made.x[3], POISONS.x[3])
