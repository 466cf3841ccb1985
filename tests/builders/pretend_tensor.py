"""Tensors and generators that say they are on `cuda:0`, and are not.

A tensor is a wrapper subclass whose numbers are a CPU tensor inside. C++ never hears of CUDA, so
any build of torch will do; whatever asks in Python is told `cuda:0`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

CUDA = torch.device("cuda", 0)


class MixedError(RuntimeError):
    """What CUDA would have refused."""


class Pretend(torch.Tensor):
    """A tensor on the pretend device."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Pretend:
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, layout=inner.layout, device="cpu", requires_grad=False,
        )  # fmt: skip

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def is_pinned(self, *_: Any) -> bool:
        return False

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Pretend({self.inner!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Pretend:
        if id(self) not in memo:
            new = Pretend(self.inner.detach().clone())
            if getattr(self, "_is_param", False):
                new._is_param = True
            memo[id(self)] = new.requires_grad_(self.requires_grad)
        return memo[id(self)]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise AssertionError(f"{func} of a tensor whose pretend device is gone")

    __torch_function__ = torch._C._disabled_torch_function_impl


_Generator = torch.Generator
# By C++ object, since an operation is given another Python object of it; kept, or another
# generator might come to lie there.
_ours: dict[int, torch.Generator] = {}


def number_of(generator: Any) -> int:
    """Return the address of a generator's C++ object."""
    return int(generator._cdata)


class PretendGenerator(_Generator):
    """A generator of the pretend device."""

    def __init__(self, *_: Any) -> None:
        _ours[number_of(self)] = self

    device = property(lambda self: CUDA)


class AnyGenerator(_Generator):
    """What `torch.Generator` is meanwhile: a class, as annotations say `torch.Generator | None`."""

    def __new__(cls, device: Any = "cpu") -> Any:
        return PretendGenerator() if names_cuda(device) else _Generator(device)


def on_device(generator: torch.Generator) -> bool:
    """Return whether a generator is the pretend device's."""
    return number_of(generator) in _ours


def names_cuda(device: Any) -> bool:
    """Return whether a device, or its name, is CUDA's."""
    return device is not None and torch.device(device).type == "cuda"


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors among arguments."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors_in(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from tensors_in(each)


def mapped(change: Any, value: Any) -> Any:
    """Return arguments with each tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        every = [mapped(change, each) for each in value]
        return type(value)(*every) if hasattr(value, "_fields") else type(value)(every)
    if isinstance(value, dict):
        return {key: mapped(change, each) for key, each in value.items()}
    return value


_module_to = nn.Module.to


def module_to(self: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
    """`nn.Module.to`, which would put the data of wrappers into plain parameters."""
    device, dtype, _, _ = torch._C._nn._parse_to(*args, **kwargs)
    if device is None:
        return _module_to(self, *args, **kwargs)
    seen: dict[int, Any] = {}  # tied parameters stay tied

    def moved(t: Any) -> Any:
        if t is None:
            return None
        if id(t) not in seen:
            to = dtype if t.is_floating_point() else None
            new = t.detach().to(device=device, dtype=to)
            is_parameter = isinstance(t, nn.Parameter)
            seen[id(t)] = nn.Parameter(new, t.requires_grad) if is_parameter else new
        return seen[id(t)]

    for part in self.modules():
        for held in (part._parameters, part._buffers):
            for name, tensor in list(held.items()):
                held[name] = moved(tensor)
    return self
