"""Gradient matching (Witches' Brew): training samples that teach a net to misclassify another one.

    minimise over |x' - x| <= epsilon, 0 <= x' <= 1:    1 - <g_t, g_p(x')> / (|g_t| |g_p(x')|)

g_t is the gradient, over all parameters of a trained surrogate, of the loss of one target under its
adversarial label; g_p that of the mean loss of the poisons, which are samples of that label and
keep it. Whoever trains on the poisons thereby walks down the target's loss.

Source: Geiping et al., ICLR 2021, arXiv 2009.02276, Algorithm 1, and their published code: signs of
gradients given to Adam, steps ten times smaller after 3/8, 5/8 and 7/8 of them, the best of several
restarts from Gaussian noise, the network in eval mode, poisons augmented differentiably.

Departs from it: `from_target` starts at the target itself, an idea of Shafahi et al. 2018,
arXiv 1804.00792 (there as a watermark); the step is a share of epsilon; restarts are compared by
their loss without augmentation, which is not random.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import get_args, get_type_hints

import torch
from torch import Tensor, nn

from poison_audit.case.planting import refuse
from poison_audit.errors import DivergedError, PlanError, Problem, Problems, did_you_mean
from poison_audit.models.model import Batch, Model, evaluating
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.records import Recipe
from poison_audit.training.batches import augmented

ROUNDING = 2.0**-23
"""What epsilon is lowered by, so that float32 pixels keep to it exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """The poisons that were made."""

    x: Tensor
    """In the order of the clean samples: float32 in [0, 1], (n, c, h, w). A sample that works for
    no target is as it was."""
    losses: tuple[float, ...]
    """One a target: 1 - cosine of its group, without augmentation, from 0 (matched) to 2."""


def matching_loss(model: Model, poisons: Batch, target_gradient: Sequence[Tensor]) -> Tensor:
    """Return 1 - <g_t, g_p> / (|g_t| |g_p|), differentiable in the poisons' pixels.

    Args:
        model: in eval mode, every parameter requiring gradients.
        poisons: with the labels that they are trained with; g_p is of their mean loss.
        target_gradient: g_t, one tensor a parameter, in the module's order; taken as a constant.
    """
    # Without a graph of its own g_p would be a constant, and the pixels would get no gradient.
    ours = _flat_gradient(model, poisons, create_graph=True)
    theirs = torch.cat([g.detach().flatten() for g in target_gradient])
    loss: Tensor = 1 - torch.dot(ours, theirs) / (ours.norm() * theirs.norm())
    return loss


def gradient_match(
    model: Model,
    poisons: Samples,
    groups: Sequence[Sequence[int]],
    targets: Samples,
    adversarial: Tensor,
    rng: Rng,
    *,
    epsilon: float = 16 / 255,
    steps: int = 250,
    restarts: int = 1,
    step_size: float = 0.25,
    augment: str = "none",
    from_target: bool = False,
) -> Matched:
    """Perturb `poisons` so that training on them moves each target to its adversarial label.

    It costs steps * restarts double backward passes over each group.

    Args:
        model: the surrogate, trained on clean data; left as it is, to the bit.
        poisons: clean samples in [0, 1] pixels, labelled as they stay.
        groups: for each target, the positions in `poisons` of those that work for it, at least one;
            each has the target's adversarial label, and none works for two targets.
        targets: test samples, clean, with their true labels.
        adversarial: the label that each target is to be given, int64, (targets,).
        rng: a target's stream is named by its id, so no target changes another's poisons.
        epsilon: largest change of a pixel, in (0, 1].
        steps: of signed Adam, at least 1.
        restarts: at least 1; the one with the lowest loss is kept.
        step_size: of Adam, as a share of epsilon, above 0.
        augment: what the poisons go through before each gradient, drawn anew each step: `none`,
            `flip`, or `crop-flip`. Give it what the victim trains with.
        from_target: start the first restart as near to the target as epsilon lets each poison
            come, instead of at random. With a small `step_size` it stays near there.

    Raises:
        PlanError: an argument does not fit; it lists everything.
        DivergedError: a target's or its poisons' gradient is zero or not finite.
    """
    problems = Problems()
    known = get_args(get_type_hints(Recipe)["augment"])
    with problems.collecting():
        refuse(
            (
                not 0 < epsilon <= 1,
                f"epsilon = {epsilon}",
                "Use more than 0 and at most 1, such as 16/255",
            ),
            (steps < 1, f"steps = {steps}", "Use at least 1"),
            (restarts < 1, f"restarts = {restarts}", "Use at least 1"),
            (not step_size > 0, f"step_size = {step_size}", "Use more than 0"),
            (augment not in known, f"augment = {augment}", did_you_mean(augment, known)),
        )
    problems += _sample_problems(model.classes, poisons, groups, targets, adversarial)
    problems.raise_any(PlanError)
    x = poisons.batch().x.float().clone()
    losses = []
    with _differentiable(model.module):
        dtype = next(model.module.parameters()).dtype
        for place, group in enumerate(groups):
            name = targets.ids[place]
            where = torch.as_tensor(group, dtype=torch.int64, device=x.device)
            target = targets.batch(slice(place, place + 1))
            wanted = Batch(x=target.x.to(dtype), y=adversarial[place : place + 1].to(x.device))
            gradient = (_flat_gradient(model, wanted).detach(),)
            clean = Batch(x=x[where], y=poisons.y[where])
            best, kept = float("inf"), clean.x
            for restart in range(restarts):
                made = _match(
                    model,
                    clean,
                    target.x if from_target and restart == 0 else None,
                    gradient,
                    rng.named(name, restart),
                    epsilon=epsilon,
                    steps=steps,
                    step_size=step_size,
                    augment=augment,
                )
                batch = Batch(x=made.to(dtype), y=clean.y)
                loss = float(matching_loss(model, batch, gradient).detach())
                if loss < best:
                    best, kept = loss, made
            if best == float("inf"):
                raise DivergedError(f"gradient matching: no finite gradient to match for {name}")
            x[where] = kept
            losses.append(best)
    return Matched(x=x, losses=tuple(losses))


def _match(
    model: Model,
    clean: Batch,
    start: Tensor | None,
    target_gradient: Sequence[Tensor],
    rng: Rng,
    *,
    epsilon: float,
    steps: int,
    step_size: float,
    augment: str,
) -> Tensor:
    """Return the pixels of one restart, float32."""
    dtype, device = target_gradient[0].dtype, clean.x.device
    reach = max(0.0, epsilon - ROUNDING)
    low, high = (clean.x - reach).clamp(min=0), (clean.x + reach).clamp(max=1)
    if start is None:
        draws = torch.randn(clean.x.shape, generator=rng.named("start").torch()).to(device)
        start = clean.x + epsilon * draws
    pixels = start.expand_as(clean.x).clamp(low, high).requires_grad_()
    optimiser = torch.optim.Adam([pixels], lr=step_size * epsilon)
    drops = [int(share * steps) for share in (3 / 8, 5 / 8, 7 / 8)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, drops, gamma=0.1)
    noise = rng.named("augment").torch()
    for _ in range(steps):
        batch = Batch(x=pixels.to(dtype), y=clean.y)
        batch = augmented(batch, augment, noise)
        loss = matching_loss(model, batch, target_gradient)
        (gradient,) = torch.autograd.grad(loss, pixels)
        pixels.grad = gradient.sign()
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            pixels.clamp_(low, high)
    return pixels.detach()


def _flat_gradient(model: Model, batch: Batch, *, create_graph: bool = False) -> Tensor:
    loss = model.loss(model.module, batch).mean()
    gradients = torch.autograd.grad(
        loss, list(model.module.parameters()), create_graph=create_graph, materialize_grads=True
    )
    return torch.cat([gradient.flatten() for gradient in gradients])


@contextmanager
def _differentiable(module: nn.Module) -> Iterator[None]:
    """Put `module` into eval mode with every parameter requiring gradients, and back afterwards."""
    before = {parameter: parameter.requires_grad for parameter in module.parameters()}
    with evaluating(module):
        module.requires_grad_(True)
        try:
            yield
        finally:
            for parameter, required in before.items():
                parameter.requires_grad_(required)


def _sample_problems(
    classes: int,
    poisons: Samples,
    groups: Sequence[Sequence[int]],
    targets: Samples,
    adversarial: Tensor,
) -> Iterator[Problem]:
    others = f"{len(groups)} groups and {len(adversarial)} adversarial labels"
    if not len(groups) == len(targets) == len(adversarial):
        yield Problem(f"{len(targets)} targets, but {others}", fix="Give one of each a target")
        return
    rows = zip(groups, targets.ids, targets.y.tolist(), adversarial.tolist(), strict=True)
    for group, name, label, wanted in rows:
        where = f"target {name}"
        if wanted == label:
            yield Problem(f"its adversarial label is its true one, {label}", where)
        if not 0 <= wanted < classes:
            yield Problem(f"adversarial label {wanted}", where, f"Use 0..{classes - 1}")
        if not group:
            yield Problem("no poison works for it", where)
        outside = [place for place in group if not 0 <= place < len(poisons)]
        if outside:
            yield Problem(f"position {outside[0]} in its group", where, f"{len(poisons)} poisons")
            continue
        for place in group:
            if (given := int(poisons.y[place])) != wanted:
                what = f"poison {poisons.ids[place]} has label {given}, not {wanted}"
                yield Problem(what, where, "Poisons keep their labels: choose others")
    uses = Counter(place for group in groups for place in group)
    for place, times in sorted(uses.items()):
        if times > 1:
            what = f"position {place} is in the groups {times} times"
            yield Problem(what, fix="A poison works once, for one target")
    x = poisons.batch().x
    if x.numel() and not bool(((x >= 0) & (x <= 1)).all()):
        yield Problem("a pixel of the poisons is outside of [0, 1]", fix="Give clean pictures")
