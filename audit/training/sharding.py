"""Training steps shared among processes: for models whose training does not fit on one device.

Every process that `torchrun` started runs the same audit. In a descent each holds a part of every
parameter, of its gradient and of the optimiser's state (FSDP), and takes its part of every batch;
elsewhere all of them compute the same. The first process alone writes.

Source: Rajbhandari et al. 2020, ZeRO, arXiv:1910.02054, and Zhao et al. 2023, PyTorch FSDP,
arXiv:2304.11277, as `torch.distributed.fsdp.fully_shard` has it.

The mean over a batch is the mean over the processes' parts, so that a step is the same up to
rounding; dropout and added noise are drawn by each process for its own part. BatchNorm's batch
statistics would be those of a part: such models are refused.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from poison_audit.errors import InputError, PlanError, Problem
from poison_audit.models.model import Batch


def processes() -> int:
    """Return how many processes share the training steps: 1 unless `crew` started more."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if processes() > 1 else 0


@contextmanager
def crew(device: torch.device) -> Iterator[int]:
    """Join the processes that torchrun started, this one too; give its number.

    Args:
        device: what `--device` names. Of CUDA each process on a machine gets a card of its own.

    Raises:
        InputError: torchrun did not start this process, or there is no card for it.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        fix = "Start it so: torchrun --nproc-per-node 2 --no-python poison-audit check ... --shard"
        raise InputError(Problem("torchrun did not start this process", "--shard", fix))
    if device.type == "cuda":
        torch.cuda.set_device(_own_card(device))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield dist.get_rank()
    finally:
        dist.destroy_process_group()


def _own_card(device: torch.device) -> int:
    """Return the number of this process's card; InputError: there is none of its own."""
    own, here = (int(os.environ.get(f"LOCAL_{name}", fallback))
                 for name, fallback in (("RANK", "0"), ("WORLD_SIZE", "1")))  # fmt: skip
    cards = torch.cuda.device_count()
    if device.index is not None and here > 1:
        what = f"names one card, and {here} processes on this machine need one each"
        raise InputError(Problem(what, f"--device {device}", "Give cuda, or cpu"))
    if here > cards:
        what = f"{here} processes on this machine need a card each, and it has {cards}"
        fix = f"Start {cards}: torchrun --nproc-per-node {cards}, or give --device cpu"
        raise InputError(Problem(what, "--shard", fix))
    return own if device.index is None else device.index


def check_shardable(module: nn.Module) -> None:
    """Refuse a model that normalises by statistics of the whole batch, by PlanError."""
    if any(isinstance(part, nn.modules.batchnorm._NormBase) for part in module.modules()):
        what = "the model has BatchNorm, whose statistics would be those of a part of each batch"
        raise PlanError(Problem(what, "--shard", "Leave it out: such models fit on one device"))


Through = Callable[[Callable[[nn.Module], Tensor]], Tensor]
"""Computes a function of the network that is trained, and returns its result."""


@contextmanager
def sharded(module: nn.Module) -> Iterator[tuple[nn.Module, Through]]:
    """Give what is trained in place of `module`, which has the result afterwards.

    That is `module` itself, unless processes share it. A block of a list of layers is gathered
    when it is computed, and let go of after; what stands outside of lists is gathered at once.
    """
    if processes() == 1:
        yield module, lambda compute: compute(module)
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(next(module.parameters()).device.type, (processes(),))
    working = copy.deepcopy(module)
    for part in list(working.modules()):
        if isinstance(part, nn.ModuleList):
            for block in part:
                fully_shard(block, mesh=mesh)
    whole = _Whole(working)
    fully_shard(whole, mesh=mesh)
    yield working, whole
    with torch.no_grad():
        places = dict(module.named_parameters())
        parts: Iterable[tuple[str, Any]] = working.named_parameters()
        for name, tensor in parts:
            places[name].copy_(tensor.full_tensor() if is_shard(tensor) else tensor)
        buffers = dict(working.named_buffers())
        for name, buffer in module.named_buffers():
            buffer.copy_(buffers[name])


class _Whole(nn.Module):
    """A network with everything that is computed by it: adapters look up its embeddings, too."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, compute: Callable[[nn.Module], Tensor]) -> Tensor:
        """Return what `compute` makes of the network, whose parameters are there meanwhile."""
        return compute(self.inner)


def own_part(batch: Batch) -> tuple[Batch, float]:
    """Return this process's rows of a batch, and what its sum of losses is to be multiplied by.

    The mean over processes of these products is the mean loss of the batch.
    """
    n, world = len(batch), processes()
    rows = range(n)[rank() :: world]
    if not len(rows):  # fewer samples than processes: a forward pass all the same, for nothing
        return batch.part(slice(0, 1)), 0.0
    return batch.part(slice(rows.start, None, world)), world / n


def own_shard(tensor: Tensor) -> Tensor:
    """Return the part of a sharded tensor that lies here, in place; a whole tensor is its own."""
    whole: Any = tensor
    local: Tensor = whole.to_local() if is_shard(tensor) else tensor
    return local


def is_shard(tensor: Tensor) -> bool:
    """Return whether only a part of a tensor lies here."""
    # DTensor's module takes long to import, for something that few audits need.
    return hasattr(tensor, "full_tensor")


def mean_of_all(value: Tensor) -> Tensor:
    """Return the mean over the processes of a scalar."""
    if processes() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / processes()


def told_by_the_first(value: str) -> str:
    """Return what the first process says, in all of them."""
    told = [value]
    dist.broadcast_object_list(told)
    return told[0]


def share_cells(out: Path | None, folder: Path) -> None:
    """Give every process the cells of the first one's run directory, so that all skip the same.

    Args:
        out: the run directory in the first process, else None.
        folder: where the others put them.
    """
    told: list[dict[str, str] | None] = [None]
    if out is not None:
        cells = (path for path in (out / "cells").glob("*.json") if path.is_file())
        told = [{path.name: path.read_text("utf-8", errors="replace") for path in cells}]
    dist.broadcast_object_list(told)
    if out is None:
        (folder / "cells").mkdir(parents=True)
        for name, text in (told[0] or {}).items():
            (folder / "cells" / name).write_text(text, encoding="utf-8")
