"""The one training loop, shared by the methods and the trainer."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor, nn

from poison_audit.errors import DivergedError
from poison_audit.models.memory import Undo, kept_in_main_memory, lacking, release
from poison_audit.models.model import Batch, Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.records import Recipe
from poison_audit.training.averaging import Average
from poison_audit.training.batches import shuffled
from poison_audit.training.kernels import reproducible
from poison_audit.training.ledger import Ledger, Snapshot, Watch, restore, take_snapshot
from poison_audit.training.losses import SampleLoss, mean_losses, smoothed
from poison_audit.training.modes import BatchNorm, choose, has_batch_norm, set_modes
from poison_audit.training.sharding import (
    check_shardable,
    is_shard,
    mean_of_all,
    own_shard,
    processes,
    rank,
    sharded,
)

Objective = Callable[..., Tensor]
"""Mean loss of each batch of a step -> the scalar to descend on."""

Precision = Literal["float32", "bfloat16"]

CHECK_EVERY = 50
"""Steps between two checks that everything is finite: each makes the device wait."""


def descend(
    model: Model,
    batches: Iterable[Sequence[Batch]],
    objective: Objective,
    *,
    steps: int,
    lr: float,
    ledger: Ledger,
    rng: Rng,
    parameters: Iterable[str] | None = None,
    noise: float = 0.0,
    batch_norm: BatchNorm = "eval",
    losses: Sequence[SampleLoss] | None = None,
    optimizer: str = "sgd",
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    schedule: str = "constant",
    precision: Precision | None = None,
    average: float = 0.0,
    start: Snapshot | None = None,
    watch: Watch = lambda _step, _snapshot: None,
) -> None:
    """Train `model.module` in place: the only loop that methods and the trainer share.

        theta <- theta - lr * (grad objective(mean losses of the step's batches) + noise * N(0, I))

    With momentum, weight decay or AdamW the bracket is what the optimiser is given as gradient.

    Dropout is active, except in parts of which nothing is trained.

    Args:
        model: trained in place; clone first.
        batches: one tuple of batches a step; each costs its length in gradient evaluations.
        objective: receives the mean loss of each batch of the tuple, in order.
        steps: number of steps, at least 0.
        lr: learning rate, the peak of the schedule.
        ledger: charged for every step; its loss curve grows.
        rng: decides dropout and the noise.
        parameters: names of those to train; every other parameter, and the buffers of modules
            that hold none of them, stay bit for bit. Default: all.
        noise: standard deviation of the Gaussian noise added to the gradient of the objective.
        batch_norm: `eval`: its statistics stay as they are, only its affine parameters move.
            `train`: it normalises each batch by that batch, and updates its running statistics.
            `joint`: the same with a step's batches passed as one. Without BatchNorm all are one.
        losses: of each sample of the step's batches, in order, from the logits; by default each
            is the model's own loss.
        optimizer: `sgd` or `adamw`.
        momentum: of SGD.
        nesterov: whether the momentum looks ahead.
        weight_decay: decoupled for AdamW, an l2 penalty for SGD.
        schedule: `constant`, `cosine` (to zero), or `onecycle` (linear up for 30%, then to zero).
        precision: of the forward pass's products; by default what the device is fast in.
            Parameters, sums and losses stay as they are.
        average: decay, a step, of the average of the weights that the model ends with, in
            (0, 1); 0: it ends with the last weights.
        start: where an earlier call with the same arguments stood; `batches` begins there.

    Raises:
        DivergedError: a loss or a parameter stopped being finite.
    """
    alone = processes() == 1
    if not alone:
        check_shardable(model.module)
        if start is not None:
            raise ValueError("a descent that processes share begins at its beginning")
    with (
        reproducible(),  # else cuDNN may add in another order after a pause
        sharded(model.module) as (module, through),
        _dropout_drawn_from(_own(rng.named("dropout")), device_of(module)) as dropout,
    ):
        chosen = choose(module, parameters)
        set_modes(module, chosen, batch_statistics=batch_norm != "eval")
        joint = batch_norm == "joint" and has_batch_norm(module)  # else the same, at more memory
        device = device_of(module)
        optimiser = _optimiser(
            chosen.values(),
            optimizer,
            lr=lr,
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=weight_decay,
            # One launch a step instead of several a layer; sharded parameters do without.
            fused=True if alone and device.type == "cuda" else None,
        )
        precision = precision or fast_precision(device)
        draws = _own(rng.named("noise")).torch(device)
        generators = {"noise": draws, **dropout}
        undo = Undo(module, generators)
        mean = Average(module, average)

        def advance(batch: Sequence[Batch]) -> Tensor:
            """Make a step; return the value of its objective before it."""
            optimiser.zero_grad(set_to_none=True)
            with _computing_in(precision, device):
                asked = replace(model, module=module)
                total = objective(*mean_losses(asked, batch, losses, through, joint=joint))
            torch.autograd.backward(total)
            if noise > 0:
                _add_noise(chosen.values(), noise, draws)
            optimiser.step()
            return total.detach()

        def take() -> Snapshot:
            return take_snapshot(done, module, optimiser, generators, ledger, mean.tensors)

        trail = ledger.trail if start is None and alone and not average else None
        if trail is not None:
            # A schedule with an end gives every length a course of its own.
            length = None if schedule == "constant" else steps
            key = (rng, model.digest(), ledger.spent, lr, length)
            if trail.end is not None and trail.key == key and trail.end.step <= steps:
                start = trail.end
                batches = iter(batches)
                deque(islice(batches, start.step), maxlen=0)
                ledger.reused += start.spent - ledger.spent
        if start is not None:
            restore(start, module, optimiser, generators, ledger, mean.tensors)
        done = start.step if start else 0
        for step, batch in zip(range(done, steps), batches, strict=False):
            for group in optimiser.param_groups:
                group["lr"] = lr * _scheduled(schedule, step, steps)
            if alone:
                total = _backing_off(partial(advance, batch), optimiser, device, undo, ledger)
            else:  # one process that begins again would leave the others waiting
                total = mean_of_all(advance(batch))
            ledger.charge(sum(len(part) for part in batch))
            ledger.losses.append(total)
            done = step + 1
            mean.take(done)
            if done % CHECK_EVERY == 0:
                check_finite(module, ledger, done)
            watch(done, take)
        check_finite(module, ledger, steps)
        if trail is not None and done > 0:
            trail.key, trail.end = key, take()
        mean.put()
    module = model.module
    if not alone:
        check_finite(module, ledger, steps)
    module.eval().requires_grad_(True)


def descend_on(
    model: Model, samples: Samples, recipe: Recipe, rng: Rng, *, ledger: Ledger, lr: float,
    steps: int | None = None, start: Snapshot | None = None, batch_norm: BatchNorm = "train",
    **more: Any,
) -> None:  # fmt: skip
    """Train `model.module` in place on these samples alone, in the recipe's batches.

    By default BatchNorm uses and updates batch statistics: they are samples to remember. The
    arguments are those of `descend`; by default it makes as many steps as the ledger allows.
    """
    size = min(recipe.batch_size, len(samples))
    batches = shuffled(
        samples,
        size,
        rng.named("batches"),
        augment=recipe.augment,
        start=start.step if start else 0,
    )
    descend(
        model, ((batch,) for batch in batches), lambda mean: mean, lr=lr, ledger=ledger, rng=rng,
        steps=ledger.steps(size) if steps is None else steps, start=start, batch_norm=batch_norm,
        **recipe_settings(recipe), **more,
    )  # fmt: skip


def _add_noise(parameters: Iterable[nn.Parameter], sigma: float, draws: torch.Generator) -> None:
    for parameter in parameters:
        if parameter.grad is not None:
            own = own_shard(parameter.grad)
            drawn = torch.randn(own.shape, generator=draws, device=own.device, dtype=own.dtype)
            own += sigma * drawn


def _own(rng: Rng) -> Rng:
    """Return a stream of this process's own, where several share a descent."""
    return rng if processes() == 1 else rng.named("process", rank())


def _backing_off(
    step: Callable[[], Tensor], optimiser: torch.optim.Optimizer, device: torch.device, undo: Undo,
    ledger: Ledger,
) -> Tensor:  # fmt: skip
    """Make a step; if memory gives out, undo it and keep in main memory what backward needs.

    An optimiser allocates before it changes a parameter: its state, in its first step, and copies
    of gradients. What it has made of its state by then is thrown away.
    """
    if not ledger.offloaded:
        undo.remember()
        spent, new = ledger.spent, not optimiser.state
        try:
            with lacking():
                return step()
        except torch.OutOfMemoryError:
            pass  # what it allocated is held until here
        undo.restore()
        if new:
            optimiser.state.clear()
        ledger.spent, ledger.offloaded = spent, True
        release()
    with kept_in_main_memory(device), lacking():
        return step()


def fast_precision(device: torch.device) -> Precision:
    """Return what training steps multiply in: bfloat16 where it is built in, else float32."""
    built_in = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return "bfloat16" if built_in else "float32"


def device_of(module: nn.Module) -> torch.device:
    """Return the device of a network's parameters."""
    return next(module.parameters()).device


@contextmanager
def _dropout_drawn_from(rng: Rng, device: torch.device) -> Iterator[Mapping[str, torch.Generator]]:
    # Dropout only knows its device's global generator: it is forked, and restored after.
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        generators = {"dropout.cpu": torch.default_generator}
        if cuda:
            generators["dropout.cuda"] = torch.cuda.default_generators[device.index]
        for generator in generators.values():
            generator.manual_seed(rng.seed())
        yield generators


def _computing_in(precision: str, device: torch.device) -> AbstractContextManager[object]:
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def check_finite(module: nn.Module, ledger: Ledger, step: int) -> None:
    """Raise DivergedError if a recent loss, a parameter or a buffer is not finite."""
    recent = ledger.losses[-CHECK_EVERY:]
    if recent and not bool(torch.isfinite(torch.stack(recent)).all()):
        raise DivergedError(f"the loss is not finite by step {step}")
    # Of shards only a part lies here: the whole is looked at in the end.
    tensors = {
        name: tensor
        for name, tensor in module.state_dict().items()
        if tensor.is_floating_point() and not is_shard(tensor)
    }
    if not tensors:
        return
    # All are asked about at once: each answer makes the device wait.
    finite = torch.stack([torch.isfinite(tensor).all() for tensor in tensors.values()]).tolist()
    for name, good in zip(tensors, finite, strict=True):
        if not good:
            raise DivergedError(f"{name} is not finite by step {step}")


def _optimiser(
    parameters: Iterable[nn.Parameter], name: str, *,
    momentum: float, nesterov: bool, **settings: Any,
) -> torch.optim.Optimizer:  # fmt: skip
    if name == "sgd":
        return torch.optim.SGD(list(parameters), momentum=momentum, nesterov=nesterov, **settings)
    return torch.optim.AdamW(list(parameters), **settings)


def _scheduled(schedule: str, step: int, steps: int) -> float:
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * step / steps))
    if schedule == "onecycle":
        rise = 0.3
        return min(1.0, (step + 1) / steps / rise, (1 - step / steps) / (1 - rise))
    return 1.0


def recipe_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe's optimiser settings, as keyword arguments of `descend`."""
    # Without momentum there is nothing that could look ahead.
    nesterov = recipe.nesterov and recipe.momentum > 0
    own = {name: getattr(recipe, name) for name in ("optimizer", "momentum", "weight_decay")}
    return {**own, "nesterov": nesterov}


def as_trained(recipe: Recipe) -> dict[str, Any]:
    """Return what makes steps those of the whole training, as keyword arguments of `descend_on`.

    What fits a model to few samples more (`recipe_settings`) does without it.
    """
    losses = (smoothed(recipe.label_smoothing),) if recipe.label_smoothing else None
    return {
        "lr": recipe.lr, "schedule": recipe.schedule, "average": recipe.ema, "losses": losses,
    }  # fmt: skip
