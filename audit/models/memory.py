"""When a device's memory gives out: evaluate fewer samples at once, keep less of a step on it.

Neither changes a figure by more than rounding. A sample's answer in eval mode owes nothing to the
rest of its batch, so a batch may be halved. A training step's gradient may owe something to it
(BatchNorm, dropout's draws), so its batch stays whole, and what the backward pass needs is kept in
main memory meanwhile: slower, and the same bits.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from poison_audit.models.model import Batch

Result = TypeVar("Result")


@dataclass(slots=True)
class Limit:
    """How many samples are evaluated at once."""

    size: int | None = None
    """The largest batch that memory held since it first gave out; None: it never did."""


_limit: ContextVar[Limit] = ContextVar("_limit")


@contextmanager
def limited() -> Iterator[Limit]:
    """Remember, until the end, how far `in_parts` had to back off."""
    token = _limit.set(Limit())
    try:
        yield _limit.get()
    finally:
        _limit.reset(token)


def in_parts(compute: Callable[[Batch], Tensor], batch: Batch) -> Tensor:
    """Return `compute(batch)`, computed on halves, quarters, .. of it if memory does not hold it.

    Args:
        compute: gives one row a sample, which does not depend on the other samples; draws nothing.
        batch: not empty.

    Raises:
        torch.OutOfMemoryError: memory does not hold a single sample.
    """
    limit = _limit.get(Limit())
    size = min(limit.size or len(batch), len(batch))
    while True:
        try:
            with lacking():
                if size == len(batch):
                    return compute(batch)
                starts = range(0, len(batch), size)
                return torch.cat([compute(batch.part(slice(i, i + size))) for i in starts])
        except torch.OutOfMemoryError:
            if size == 1:
                raise
        # Not in the handler: while it runs, its traceback holds what was allocated.
        size = limit.size = (size + 1) // 2
        release()


LACKING = (
    "ALLOC_FAILED", "ALLOCATION_FAILED", "CUDA error: out of memory",
    "CUBLAS_STATUS_NOT_INITIALIZED", "valid cuDNN algorithm", "DefaultCPUAllocator",
)  # fmt: skip
"""What libraries say that allocate by themselves, when memory gives out: cuDNN of its workspace,
cuBLAS of its handle and workspace, the driver, and the allocator of main memory."""


@contextmanager
def lacking() -> Iterator[None]:
    """Raise torch.OutOfMemoryError for whatever error says that memory gave out.

    PyTorch's own allocator raises it; libraries' errors arrive as any RuntimeError.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if any(told in str(error) for told in LACKING):
            raise torch.OutOfMemoryError(str(error)) from error
        raise


def once_more(compute: Callable[[], Result]) -> Result:
    """Return `compute()`, begun again once if memory gave out; it changes nothing until it ends."""
    try:
        with lacking():
            return compute()
    except torch.OutOfMemoryError:
        pass  # what it allocated is held until here
    release()
    with lacking():
        return compute()


def has_room(data: Tensor, device: torch.device | str) -> bool:
    """Return whether data may stay on a device: it takes at most a quarter of what is free."""
    device = torch.device(device)
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return 4 * data.numel() * data.element_size() <= free


def release() -> None:
    """Free what lies in reference cycles, and what PyTorch keeps for later allocations."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def kept_in_main_memory(device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which a forward pass keeps what its backward needs in main memory."""
    if device.type != "cuda":
        return torch.autograd.graph.save_on_cpu()
    return torch.autograd.graph.saved_tensors_hooks(_kept, _back)


def _kept(tensor: Tensor) -> tuple[torch.device, Tensor]:
    """Return a tensor in pinned main memory, laid out alike: PyTorch's own hooks lay it out anew.

    The product of a transposed matrix is another kernel than that of its copy, and rounds
    otherwise.
    """
    strides = tensor.contiguous().stride() if 0 in tensor.stride() else tensor.stride()
    kept = torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, pin_memory=True)
    kept.copy_(tensor)
    return tensor.device, kept


def _back(kept: tuple[torch.device, Tensor]) -> Tensor:
    device, tensor = kept
    return tensor.to(device, non_blocking=True)


class Undo:
    """What a failed step may have changed: buffers that a forward pass writes, and generators."""

    def __init__(self, module: nn.Module, generators: Mapping[str, torch.Generator]) -> None:
        groups: dict[torch.dtype, list[Tensor]] = {}
        for part in module.modules():
            if part.training:
                for buffer in part.buffers(recurse=False):
                    groups.setdefault(buffer.dtype, []).append(buffer)
        self._buffers = list(groups.values())
        self._copies = [[buffer.clone() for buffer in group] for group in self._buffers]
        self._generators = generators
        self._states: dict[str, Tensor] = {}

    @torch.no_grad()
    def remember(self) -> None:
        """Take what is there now."""
        for copies, buffers in zip(self._copies, self._buffers, strict=True):
            torch._foreach_copy_(copies, buffers)  # one launch, not one a layer
        self._states = {name: source.get_state() for name, source in self._generators.items()}

    @torch.no_grad()
    def restore(self) -> None:
        """Put back what was there when it was last remembered."""
        for copies, buffers in zip(self._copies, self._buffers, strict=True):
            torch._foreach_copy_(buffers, copies)
        for name, source in self._generators.items():
            source.set_state(self._states[name])
