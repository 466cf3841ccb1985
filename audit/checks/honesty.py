"""Honesty: whether a model's answers can be believed at all, before anything is read from them.

Probes take for granted that a network is a function of its input: that it answers the same when it
is asked again, alone or among others, and whether or not somebody differentiates it, and that its
gradients are those of its answers. A user's own architecture (`--factory`) is code, and may be
otherwise, by mistake or on purpose. What is found here makes every measurement of that model
suspect, so that nothing passes on it.

This finds what a network does when it is asked as the probes ask it. It is no proof against code
that was written to deceive these very checks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from poison_audit.models.memory import release
from poison_audit.models.model import Batch, Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.records import Measurement
from poison_audit.training.scoring import exact

SAMPLES = 16
"""Test samples that are asked."""
DIRECTIONS = 4
"""Random directions in which the gradient of each is compared with a difference of answers."""
STEP = 0.01
"""Length of a step in such a direction, of the input's own root mean square."""
CLOSE = 1e-3
"""Largest difference between two ways to the same logits, relative to the largest logit."""
MOST_VANISHED = 0.05
"""Largest share of inputs whose gradient may be zero or not finite, though the answer moves."""
LEAST_AGREEMENT = 0.5
"""Least correlation of gradients with differences, and of training mode with eval mode."""
PASSES = 32
"""Passes in training mode that are averaged, where it answers at random."""
KNOWN = ("torchvision", "transformers", "poison_audit")
"""Packages whose networks' training mode is known: dropout and batch statistics, and no more."""


def believed(measurement: Measurement, doubt: str | None) -> Measurement:
    """Return a measurement, suspect if there is a doubt about the model it was taken from."""
    if doubt is None or measurement.evidence is None:
        return measurement
    earlier = measurement.suspect
    return replace(measurement, suspect=doubt if earlier is None else f"{earlier}; {doubt}")


def distrust(model: Model, samples: Samples, rng: Rng) -> str | None:
    """Say why a model's answers cannot be believed, without a full stop; None: nothing is wrong.

    Args:
        model: any; its bits stay what they are.
        samples: clean test samples, of which a few are asked.
        rng: draws the directions.

    Raises:
        torch.OutOfMemoryError: memory does not hold what one sample takes.
    """
    count = min(SAMPLES, len(samples))
    while True:
        places = torch.linspace(0, len(samples) - 1, count).round().long()
        try:
            return _distrust(model, samples.at(places).batch(), rng)
        except torch.OutOfMemoryError:
            if count == 1:
                raise
        count //= 2
        release()


def _distrust(model: Model, batch: Batch, rng: Rng) -> str | None:
    with exact(model.module) as module:
        with torch.no_grad():
            batch = model.inputs(module, batch)
            answers = model.logits(module, batch)
            if not bool(torch.isfinite(answers).all()):
                return "its logits are not finite"
            again = model.logits(module, replace(batch, x=batch.x.clone()))
            alone = torch.cat(
                [model.logits(module, batch.part(slice(i, i + 1))) for i in range(len(batch))]
            )
        if not _near(answers, again):
            return "it answers the same input differently each time it is asked"
        if not _near(answers, alone):
            return "its answer to an input depends on what else is in the batch"
        x = batch.x.detach().clone().requires_grad_(True)
        watched = model.logits(module, replace(batch, x=x))
        if not _near(answers, watched):
            return "it answers differently when its input is differentiated"
        told = _training_mode(model, module, batch, answers)
        if told is not None:
            return told
        return _gradients(model, module, replace(batch, x=x), watched, rng)


def _near(one: Tensor, other: Tensor) -> bool:
    scale = float(one.detach().abs().max())
    return bool((one - other).detach().abs().max() <= CLOSE * scale)


def _training_mode(model: Model, module: nn.Module, batch: Batch, answers: Tensor) -> str | None:
    """Compare training mode, with everything that is meant to differ held in eval mode."""
    if type(module).__module__.partition(".")[0] in KNOWN or not _looks_at_training(module):
        return None
    with _as_if_training(module), torch.no_grad(), torch.random.fork_rng():
        first = model.logits(module, batch)
        if _near(answers, first):
            return None
        others = torch.stack([model.logits(module, batch) for _ in range(PASSES)])
    if not _near(first, others[0]) and _alike(answers, others.mean(0)) >= LEAST_AGREEMENT:
        return None  # dropout that is a function, and no layer: on average it changes nothing
    return "it answers differently in training mode, though its layers are as in eval mode"


def _alike(one: Tensor, other: Tensor) -> float:
    """Return the correlation of two networks' logits, each sample's about their mean."""
    a, b = (part.double() - part.double().mean(1, keepdim=True) for part in (one, other))
    return float((a * b).sum() / (a.norm() * b.norm()).clamp(min=1e-12))


def _looks_at_training(module: nn.Module) -> bool:
    # A Sequential of torch's own layers has no code of its own that could look.
    return any(not type(part).__module__.startswith("torch.nn") for part in module.modules())


@contextmanager
def _as_if_training(module: nn.Module) -> Iterator[None]:
    """Put modules into training mode, except layers of torch and torchvision, and of statistics."""
    modes = {part: part.training for part in module.modules()}
    try:
        for part in modes:
            package = type(part).__module__
            layer = package.startswith(("torch.nn.", "torchvision.")) and part is not module
            keeps_statistics = any(True for _ in part.buffers(recurse=False))
            part.training = not (layer or keeps_statistics)
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def _gradients(
    model: Model, module: nn.Module, batch: Batch, answers: Tensor, rng: Rng
) -> str | None:
    """Compare the gradient of each input's margin with differences of it, in random directions."""
    margins = _margins(answers, batch.y)
    if not margins.requires_grad:
        return "its answers cannot be differentiated by its input"
    (gradient,) = torch.autograd.grad(margins.sum(), batch.x, allow_unused=True)
    if gradient is None:
        return "its answers cannot be differentiated by its input"
    x = batch.x.detach()
    real = torch.ones_like(x) if batch.mask is None else batch.mask[:, :, None].to(x.dtype)
    size = (x.square() * real).mean().sqrt().clamp(min=1e-6)
    generator = rng.torch(x.device)
    slopes, changes = [], []
    for _ in range(DIRECTIONS):
        way = real * torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        step = STEP * size * way
        with torch.no_grad():
            up, down = (
                _margins(model.logits(module, replace(batch, x=moved)), batch.y)
                for moved in (x + step, x - step)
            )
        slopes.append((gradient * 2 * step).flatten(1).double().sum(1))
        changes.append(up - down)
    return _compared(gradient, torch.stack(slopes), torch.stack(changes), margins.detach())


def _compared(gradient: Tensor, slopes: Tensor, changes: Tensor, margins: Tensor) -> str | None:
    """Say what is wrong between slopes and changes of margins, both (directions, samples)."""
    # float32 keeps seven digits of a logit: what is below that is rounding, not change.
    moves = changes.abs().amax(0) > 1e-5 * margins.abs().max()
    if not bool(moves.any()):
        return None
    flat = gradient.flatten(1)
    gone = moves & ~((flat != 0).any(1) & torch.isfinite(flat).all(1))
    if int(gone.sum()) > MOST_VANISHED * int(moves.sum()):
        return (
            f"the gradient is zero or not finite at {int(gone.sum())} of {int(moves.sum())} inputs "
            "whose answers change when they are changed"
        )
    kept = moves & ~gone
    # Ranks of one sample against another's would do as well; a share of the scale keeps outliers,
    # kinks of ReLU, from deciding.
    scale = changes[:, kept].abs().median().clamp(min=1e-12)
    a, b = (torch.tanh(part[:, kept] / scale).flatten() for part in (slopes, changes))
    agreement = float((a * b).sum() / (a.norm() * b.norm()).clamp(min=1e-12))
    if agreement < LEAST_AGREEMENT:
        return f"its gradients are not those of its answers (correlation {agreement:.2f})"
    return None


def _margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the margin of a fixed class over the others' mean, which never saturates, float64."""
    out = logits.double()
    true = out.gather(1, labels[:, None]).squeeze(1)
    return true - (out.sum(1) - true) / max(1, out.shape[1] - 1)
