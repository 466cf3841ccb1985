"""A device whose memory gives out: what autograd keeps and what a forward is given count."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)


class Memory:
    """How much was kept for backward passes at once, at most, and how often it gave out."""

    def __init__(self, kept: float, rows: float) -> None:
        self.allowed, self.rows = kept, rows
        self.kept = self.most = self.gave_out = 0

    def pack(self, tensor: Tensor) -> Held:
        if isinstance(tensor, nn.Parameter):
            return Held(tensor)  # it lies there in any case
        self.kept += tensor.nbytes
        held = Held(tensor)
        weakref.finalize(held, self._free, tensor.nbytes)
        self.most = max(self.most, self.kept)
        return held

    def after_forward(self, *_: object) -> None:
        # Not while packing: autograd is in the middle of something.
        if self.kept > self.allowed:
            self._give_out()

    def before_forward(self, module: nn.Module, inputs: tuple[object, ...]) -> None:
        rows = len(inputs[0]) if inputs and isinstance(inputs[0], Tensor) else 0
        if not torch.is_grad_enabled() and rows > self.rows:
            self._give_out()

    def _free(self, size: int) -> None:
        self.kept -= size

    def _give_out(self) -> None:
        self.gave_out += 1
        raise torch.OutOfMemoryError("simulated")


class Held:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()  # with its graph, it would keep that alive


@contextmanager
def cramped(*, kept: float = float("inf"), rows: float = float("inf")) -> Iterator[Memory]:
    """Give out where autograd keeps more than `kept` bytes, or a layer is given more `rows`.

    What is kept in main memory by `save_on_cpu` does not count, since its own hooks replace ours.
    The bound on rows holds where nothing is kept.
    """
    memory = Memory(kept, rows)
    hooks = [
        register_module_forward_pre_hook(memory.before_forward),
        register_module_forward_hook(memory.after_forward),
    ]
    try:
        with torch.autograd.graph.saved_tensors_hooks(memory.pack, lambda held: held.tensor):
            yield memory
    finally:
        for hook in hooks:
            hook.remove()
