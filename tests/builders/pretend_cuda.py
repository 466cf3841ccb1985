"""A pretend CUDA device for machines without one: whatever is computed on it is watched.

A function mode serves `.to`, factories and `.numpy()`; a dispatch mode sees every operation,
forward and backward, and
 - raises `MixedError` where CUDA would refuse: tensors of two devices (CPU scalars and CPU indices
   pass), a generator of the wrong device, `.numpy()` of a device tensor;
 - counts, by line of the audited package, what makes the host wait for the device, the operations
   whose CUDA kernels add in no fixed order, and convolutions outside of cuDNN's deterministic mode
   or with TensorFloat-32 allowed;
 - runs out of memory when it is told to.

The device's global generator is its own: dropout on it draws there, what the CPU's would draw with
the same seed. Numbers are the CPU's, so nothing here says what a real device would round otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from builders.pretend_device import Device
from builders.pretend_tensor import AnyGenerator, Pretend, module_to, names_cuda, tensors_in


class Asked(TorchFunctionMode):
    """Serves what names a device, before C++ hears of it."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, device = kwargs or {}, self.device
        name = getattr(func, "__name__", "")
        ours = bool(args) and isinstance(args[0], Pretend)
        if ours and name in ("numpy", "__array__"):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if ours and name == "tolist":
            device.wait("to main memory")
            return args[0].inner.tolist()
        if name == "pin_memory":
            if ours:
                raise RuntimeError("cannot pin a tensor of cuda: only dense CPU tensors can be")
            new = args[0].clone()
            new._pinned = True
            return new
        if ours and name == "new_tensor":
            return device.send(args[0].inner.new_tensor(*args[1:], **kwargs), quiet=False)
        if name != "_parse_to" and names_cuda(kwargs.get("device")):
            return device.factory(func, name, args, kwargs)
        given = any(isinstance(t, Pretend) for t in tensors_in((args, kwargs)))
        if not given:
            return func(*args, **kwargs)
        with device.called(given):
            return func(*args, **kwargs)

    def to(self, name: str, tensor: Tensor, args: Any, kwargs: Any) -> Tensor:
        """`Tensor.to`, `.cpu` and `.cuda`."""
        device, ours = self.device, isinstance(tensor, Pretend)
        other = next((a for a in (*args, kwargs.get("other")) if isinstance(a, Tensor)), None)
        quiet = kwargs.get("non_blocking", False)
        if name in ("cpu", "cuda"):
            where, dtype = name, None
        elif other is not None:
            where, dtype = other.device, other.dtype
        else:
            bare = {key: value for key, value in kwargs.items() if key != "copy"}
            where, dtype, quiet, _ = torch._C._nn._parse_to(*args, **bare)
        if where is not None and not ours and not names_cuda(where):
            return _tensor_to(tensor, *args, **kwargs)
        if where is None or names_cuda(where) is ours:
            return tensor if dtype in (None, tensor.dtype) else _tensor_to(tensor, dtype=dtype)
        if ours:
            return device.fetch(tensor, dtype=dtype)
        return device.send(tensor, dtype=dtype, quiet=quiet and getattr(tensor, "_pinned", False))


def _nothing(_: Any) -> None:
    """Do nothing."""


_tensor_to = torch.Tensor.to
_autocast = torch.autocast


class Autocast(_autocast):
    """The same for the pretend device as for the CPU, whose list of operations it takes."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        if device_type == "cuda" and kwargs.get("enabled", True) is False:
            kwargs.pop("dtype", None)
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


@contextmanager
def pretend_cuda(
    package: str = "/poison_audit/", *, capability: tuple[int, int] = (7, 5), free: int = 64 << 30
) -> Iterator[Device]:
    """Give the device, on which whatever asks for CUDA computes meanwhile.

    Args:
        package: part of the paths of the files whose lines are named.
        capability: below 8, training steps are in float32.
        free: bytes of memory that the device says it has.
    """
    device = Device(package)
    state = device.generator

    def synchronize(*_: Any) -> None:
        device.wait("synchronize")

    said = {
        "_lazy_init": lambda: None, "is_available": lambda: True, "device_count": lambda: 1,
        "current_device": lambda: 0, "set_device": lambda *_: None, "synchronize": synchronize,
        "empty_cache": lambda: None, "mem_get_info": lambda *_: (free, free),
        "get_device_capability": lambda *_: capability, "get_device_name": lambda *_: "pretend",
        "reset_peak_memory_stats": lambda *_: None, "max_memory_allocated": lambda *_: 1,
        "is_current_stream_capturing": lambda: False, "is_bf16_supported": lambda *_, **__: True,
        "default_generators": (state,), "get_rng_state": lambda *_: state.get_state(),
        "set_rng_state": lambda new, *_: state.set_state(new),
    }  # fmt: skip
    with ExitStack() as stack:
        for name, value in said.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        stack.enter_context(mock.patch.object(torch, "Generator", AnyGenerator))
        stack.enter_context(mock.patch.object(torch, "autocast", Autocast))
        stack.enter_context(mock.patch.object(nn.Module, "to", module_to))
        for name in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):
            if hasattr(torch.optim.Optimizer, name):  # asks the driver
                asks_not = mock.patch.object(torch.optim.Optimizer, name, _nothing)
                stack.enter_context(asks_not)
        asked = Asked(device)
        for name in ("to", "cpu", "cuda"):
            moved = lambda self, *a, _name=name, **k: asked.to(_name, self, a, k)  # noqa: E731
            stack.enter_context(mock.patch.object(torch.Tensor, name, moved))
        stack.enter_context(device)
        stack.enter_context(asked)
        yield device
