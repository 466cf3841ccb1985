"""Which parts of a network are trained, and which modes that puts the others in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from torch import nn

from poison_audit.errors import PlanError, Problem
from poison_audit.models.model import Model

BatchNorm = Literal["eval", "train", "joint"]
"""What BatchNorm normalises by in a training step: its running statistics; those of each batch; of
all batches of the step together. `descend` says what each does."""


def has_batch_norm(module: nn.Module) -> bool:
    """Return whether what a network answers to a sample may depend on the rest of its batch."""
    return any(isinstance(part, nn.modules.batchnorm._NormBase) for part in module.modules())


def check_batches(module: nn.Module, batch_norm: BatchNorm, *sizes: int) -> None:
    """Refuse a batch of one sample where BatchNorm is to normalise by it, by PlanError.

    Args:
        module: what is to be trained.
        batch_norm: as `descend` takes it.
        sizes: of the batches of a step.
    """
    alone = min(sizes) if batch_norm == "train" else sum(sizes)
    if batch_norm != "eval" and alone < 2 and has_batch_norm(module):
        what = f"BatchNorm cannot normalise by one sample (batch_norm = {batch_norm})"
        raise PlanError(Problem(what, fix="Set batch_norm to eval"))


def last_blocks(model: Model, k: int) -> tuple[str, ...]:
    """Return the parameter names of the last `k` blocks; PlanError if it has fewer than `k`."""
    if not 1 <= k <= len(model.blocks):
        what = f"k = {k}, but the model has {len(model.blocks)} blocks"
        raise PlanError(Problem(what, fix=f"Use 1..{len(model.blocks)}"))
    return tuple(name for block in model.blocks[-k:] for name in block)


def stateful_parts(module: nn.Module, names: Iterable[str]) -> set[str]:
    """Return the names of the parts whose buffers belong to these parameters.

    A part goes with the parameters that it holds itself. One that holds none (BatchNorm without
    affine parameters) belongs to no block, so it goes only with all parameters together.
    """
    wanted = set(names)
    parameters = dict(module.named_parameters())
    chosen = {id(parameter) for name, parameter in parameters.items() if name in wanted}
    every = len(chosen) == len(parameters)
    found = set()
    for name, part in module.named_modules():
        own = [id(parameter) for parameter in part.parameters(recurse=False)]
        if chosen.intersection(own) or (every and not own):
            found.add(name)
    return found


def choose(module: nn.Module, names: Iterable[str] | None) -> dict[str, nn.Parameter]:
    """Return the named parameters (None: all), which alone are to get gradients."""
    everything = dict(module.named_parameters())
    wanted = set(everything if names is None else names)
    if unknown := wanted - set(everything):
        raise ValueError(f"no such parameters: {', '.join(sorted(unknown))}")
    for name, parameter in everything.items():
        parameter.requires_grad_(name in wanted)
    return {name: parameter for name, parameter in everything.items() if name in wanted}


def set_modes(
    module: nn.Module, chosen: dict[str, nn.Parameter], *, batch_statistics: bool
) -> None:
    """Put the parts that hold chosen parameters into training mode, and the others into eval."""
    trained = {id(parameter) for parameter in chosen.values()}

    # A part without parameters (dropout) does as the part around it does.
    def walk(part: nn.Module, around: bool) -> None:
        own = [id(parameter) for parameter in part.parameters()]
        part.training = not trained.isdisjoint(own) if own else around
        for child in part.children():
            walk(child, part.training)

    walk(module, True)
    counting = stateful_parts(module, chosen) if batch_statistics else set()
    for name, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._NormBase):
            part.training = name in counting
