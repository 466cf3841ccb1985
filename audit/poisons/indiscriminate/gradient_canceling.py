"""Gradient Canceling: poisons that make low-accuracy parameters a place where training stops.

    theta* = parameters near the clean ones at which the clean loss is high
    min over x_1..x_n in [0, 1]   |sum grad l(clean; theta*) + sum grad l(x_j, y_j; theta*)|^2

Trained on clean + poisons, a convex model lands at theta* itself once the sum is zero; a deep
network trained from scratch is only pushed that way. The poisons are added, they replace nothing.

Source: Lu, Kamath and Yu 2023, "Exploring the limits of model-targeted indiscriminate data
poisoning attacks" (ICML, arXiv 2303.03592), Gradient Canceling; theta* by gradient ascent in a
ball, after GradPC (Sun et al. 2020).
Departs from it: gradients of all parameters are cancelled (the released code takes the first
tensor's only); pixels are kept in [0, 1] after every step (the release has no bound); Adam with
the same cosine decay replaces plain gradient descent; `corrupt` may flip chosen classes and let
be what is wrong already; the poisons may have theta*'s own labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from poison_audit.case.planting import refuse
from poison_audit.errors import DivergedError, PlanError, Problem, did_you_mean
from poison_audit.models.model import Batch, Model, evaluating
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.training.batches import shuffled
from poison_audit.training.scoring import logits

BLOCK = 256
"""Samples differentiated at once: it bounds the memory."""
LABELS = ("kept", "predicted")
"""Where a poison's label comes from: its clean sample, or theta*'s mistake about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """Crafted poisons, to be added to the training set."""

    x: Tensor
    """Pictures (n, c, h, w) in [0, 1]: float32, or float64 where the training set is."""
    y: Tensor
    """Labels, int64, (n,)."""
    residual: float
    """Length of the summed gradient of clean samples and poisons at theta*, over that of the clean
    ones alone: 0 is cancelled, 1 as if there were no poisons."""


def corrupt(
    model: Model,
    train: Samples,
    rng: Rng,
    *,
    distance: float,
    steps: int = 100,
    batch_size: int = BLOCK,
    flips: Mapping[int, int] | None = None,
    cap: float | None = None,
) -> Model:
    """Return theta*: the model with its parameters moved, within a ball, to raise the clean loss.

    Each step ascends the mean loss, by a length relative to the steepest gradient met so far, and
    is projected onto the ball |theta - theta_0| <= distance |theta_0|. BatchNorm is in eval mode
    and its buffers stay.

    Args:
        model: trained on clean samples, theta_0; left as it is.
        train: the clean training set.
        rng: decides the batches.
        distance: radius of the ball, relative to the length of theta_0, above 0.
        steps: at least 1.
        batch_size: samples a step, at least 1.
        flips: wrong class by true class: theta* is to take the samples of the one for the other,
            and all others for what they are. Default: the loss of all is raised.
        cap: a sample of a higher loss is let be, above 0. Wrong with a small margin is as wrong,
            and its gradient takes fewer poisons to cancel. Default: no cap.

    Raises:
        PlanError: an argument is out of range; all problems at once.
        DivergedError: the loss stopped being finite.
    """
    classes, known = model.classes, range(model.classes)
    pairs = dict(flips or {}).items()
    mapped = all(a in known and b in known and a != b for a, b in pairs)
    refuse(
        (not 0 < distance < math.inf, f"distance = {distance}", "Use a number above 0"),
        (steps < 1, f"steps = {steps}", "Use 1 or more"),
        (batch_size < 1, f"batch_size = {batch_size}", "Use 1 or more"),
        (not len(train), "the training set is empty", "Give at least one sample"),
        (
            not mapped,
            f"flips = {dict(pairs)}, of {classes} classes",
            f"Map classes of 0..{classes - 1} to others",
        ),
        (cap is not None and not cap > 0, f"cap = {cap}", "Use a loss above 0, or none"),
    )
    star = model.clone()
    wanted = torch.arange(classes, device=train.y.device)
    for true, wrong in pairs:
        wanted[true] = wrong
    parameters = _parameters(star.module)
    origin = [parameter.detach().clone() for parameter in parameters]
    # Rounding must not carry a parameter out of the ball.
    radius = distance * float(_length(origin)) * (1 - 1e-6)
    batches, steepest = shuffled(train, batch_size, rng.named("corrupt")), 0.0
    with evaluating(star.module) as module, torch.enable_grad():
        for step, batch in zip(range(steps), batches, strict=False):
            loss = star.loss(module, batch)
            live = torch.ones_like(loss) if cap is None else (loss < cap).to(loss)
            if flips is not None:
                # What is not flipped is always live: its loss only ever falls.
                goal = wanted[batch.y]
                live = torch.where(goal == batch.y, 1.0, live)
                loss = -star.loss(module, Batch(x=batch.x, y=goal, mask=batch.mask))
            # A loss without a live sample is zero and has no gradient to follow.
            objective = (loss * live).sum() / len(batch)
            gradient = torch.autograd.grad(objective, parameters, materialize_grads=True)
            length = float(_length(gradient))
            if not math.isfinite(length):
                raise DivergedError(f"the corrupted loss is not finite at step {step + 1}")
            steepest = max(steepest, length)
            # Twice the radius in all, decaying to zero: enough to reach the sphere and settle.
            # As samples pass the cap the gradient shrinks, and the steps with it.
            if steepest > 0:
                rate = 4 * radius / steps * (1 - step / steps) / steepest
                with torch.no_grad():
                    for parameter, slope in zip(parameters, gradient, strict=True):
                        parameter.add_(rate * slope)
            _project(parameters, origin, radius)
    return star


def gradient_cancel(
    target: Model,
    train: Samples,
    rng: Rng,
    *,
    count: int,
    steps: int = 200,
    step_size: float = 0.02,
    labels: str = "kept",
) -> Cancelled:
    """Craft poisons whose summed gradient cancels that of the clean samples at theta*.

    Args:
        target: the model at theta*; left as it is.
        train: the clean training set; where the poisons start from.
        rng: decides which samples they start from.
        count: poisons, 1..len(train).
        steps: steps of Adam on the pixels, at least 1.
        step_size: the first step's size in pixels, above 0; it falls to zero along a cosine.
        labels: `kept` starts from random clean samples and keeps their labels, as the released
            code does; `predicted` starts from samples that theta* gets wrong, each as often as any
            other, and labels them as theta* predicts (the attacker chooses labels).

    Raises:
        PlanError: an argument is out of range, or theta* gets nothing wrong; all problems at once.
        DivergedError: a gradient stopped being finite.
    """
    n = len(train)
    most = f"Use 1..{n}: a budget of at most 100%"
    refuse(
        (not 1 <= count <= n, f"count = {count}, of {n} training samples", most),
        (steps < 1, f"steps = {steps}", "Use 1 or more"),
        (not 0 < step_size < math.inf, f"step_size = {step_size}", "Use a number above 0"),
        (labels not in LABELS, f"labels = {labels!r}", did_you_mean(labels, LABELS)),
    )
    start = _start(target, train, rng.named("start"), count, labels)
    clean = summed_gradient(target, train)
    scale = _length(clean).square()
    x = start.x.clone().clamp_(0, 1)
    optimiser = torch.optim.Adam([x], lr=step_size)
    best, lowest = x.clone(), math.inf
    for step in range(steps + 1):
        value, gradient = objective(target, clean, Batch(x=x, y=start.y))
        residual = math.sqrt(float(value / scale))
        if not math.isfinite(residual):
            raise DivergedError(f"the cancelled gradient is not finite at step {step}")
        if residual < lowest:
            best, lowest = x.clone(), residual
        if step < steps:
            optimiser.param_groups[0]["lr"] = step_size * (1 + math.cos(math.pi * step / steps)) / 2
            x.grad = gradient / scale
            optimiser.step()
            x.clamp_(0, 1)
    return Cancelled(x=best, y=start.y, residual=lowest)


def summed_gradient(model: Model, samples: Samples) -> tuple[Tensor, ...]:
    """Return the sum of the samples' loss gradients, one tensor a trainable parameter."""
    return _summed(model, tuple(samples.in_order(BLOCK)))


def objective(model: Model, clean: Sequence[Tensor], poisons: Batch) -> tuple[Tensor, Tensor]:
    """Return |clean + sum grad l(poisons)|^2 and its gradient with respect to the pixels.

    Exact in blocks: with v the summed gradient, a poison's part is 2 d<v, grad l(x_j)> / dx_j.

    Args:
        model: at theta*.
        clean: the clean samples' summed gradient, one tensor a trainable parameter.
        poisons: any number of pictures.

    Returns:
        The value, a scalar, and the gradient, of the shape of the pictures.
    """
    blocks = [
        Batch(x=poisons.x[at : at + BLOCK], y=poisons.y[at : at + BLOCK])
        for at in range(0, len(poisons), BLOCK)
    ]
    total = [a + b for a, b in zip(clean, _summed(model, blocks), strict=True)]
    slopes = []
    with evaluating(model.module) as module, torch.enable_grad():
        parameters = _parameters(module)
        for block in blocks:
            x = block.x.detach().requires_grad_(True)
            loss = model.loss(module, Batch(x=x, y=block.y)).sum()
            gradient = torch.autograd.grad(
                loss, parameters, create_graph=True, materialize_grads=True
            )
            parts = [(g * v).sum() for g, v in zip(gradient, total, strict=True)]
            along = torch.stack(parts).sum()
            slopes.append(torch.autograd.grad(along, x)[0])
    return _length(total).square(), 2 * torch.cat(slopes)


def _summed(model: Model, blocks: Sequence[Batch]) -> tuple[Tensor, ...]:
    with evaluating(model.module) as module, torch.enable_grad():
        parameters = _parameters(module)
        sums = [torch.zeros_like(parameter) for parameter in parameters]
        for block in blocks:
            loss = model.loss(module, block).sum()
            gradient = torch.autograd.grad(loss, parameters, materialize_grads=True)
            for total, part in zip(sums, gradient, strict=True):
                total += part
    return tuple(sums)


def _start(target: Model, train: Samples, rng: Rng, count: int, labels: str) -> Batch:
    order = torch.randperm(len(train), generator=rng.torch())
    if labels == "kept":
        return train.batch(order[:count])
    predicted = logits(target, train).argmax(1)
    wrong = order[(predicted != train.y).cpu()[order]]
    if not len(wrong):
        raise PlanError(Problem("theta* gets no training sample wrong", fix="Corrupt it further"))
    positions = wrong.repeat(-(-count // len(wrong)))[:count]
    return Batch(x=train.batch(positions).x, y=predicted[positions.to(predicted.device)])


def _parameters(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def _length(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([tensor.square().sum() for tensor in tensors]).sum().sqrt()


@torch.no_grad()
def _project(parameters: Sequence[Tensor], origin: Sequence[Tensor], radius: float) -> None:
    moved = [parameter - start for parameter, start in zip(parameters, origin, strict=True)]
    if (length := float(_length(moved))) > radius:
        for parameter, start, move in zip(parameters, origin, moved, strict=True):
            parameter.copy_(start + radius / length * move)
