"""What a pretend CUDA device refuses, counts and lacks memory for: every operation passes here."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

from builders.pretend_tensor import (
    MixedError,
    Pretend,
    PretendGenerator,
    mapped,
    on_device,
    tensors_in,
)

aten = torch.ops.aten
INDEXED = {
    "index", "index_put_", "index_put", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put",
}  # fmt: skip
WAITS = {
    "_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal",
    "is_nonzero", "bincount", "unique_consecutive",
}  # fmt: skip
RANDOM = {
    "native_dropout", "bernoulli_", "bernoulli", "normal_", "uniform_", "random_", "randn_like",
    "rand_like",
}  # fmt: skip
UNORDERED = {
    "index_add_", "index_add", "scatter_add", "scatter_add_", "scatter_reduce", "put_", "cumsum",
    "_adaptive_avg_pool2d_backward", "adaptive_max_pool2d_backward", "avg_pool3d_backward",
    "max_pool3d_with_indices_backward", "upsample_bilinear2d_backward", "histc", "kthvalue",
    "upsample_bicubic2d_backward", "reflection_pad2d_backward", "replication_pad2d_backward",
    "embedding_dense_backward", "_embedding_bag_dense_backward", "median", "nll_loss2d_backward",
    "grid_sampler_2d_backward", "_scaled_dot_product_flash_attention_for_cpu_backward",
}  # fmt: skip
"""What `torch.use_deterministic_algorithms` lists, as far as CUDA's kernels add by atomics, and the
backward passes of attention and of a table of embeddings."""
CONVOLVES = {"convolution", "convolution_backward"}
PINNED = {aten.empty.memory_format, aten.empty_strided.default}
STRICT = {"cat", "stack", "gather", "index_select", "scatter", "mm", "addmm", "bmm", "embedding"}
"""Operations that refuse a CPU scalar as well."""


class Device(TorchDispatchMode):
    """What happened on the device."""

    def __init__(self, package: str) -> None:
        super().__init__()
        self.package = package
        self.waits: Counter[tuple[str, str]] = Counter()
        self.unordered: Counter[tuple[str, str]] = Counter()
        self.loose: Counter[tuple[str, str]] = Counter()
        self.tf32: Counter[tuple[str, str]] = Counter()
        self.made = 0
        """Operations so far that took memory."""
        self.fails: dict[int, Exception] = {}
        """What is raised at the operation of that number, counted as `made`."""
        self.scatters = False
        """Whether what is added in no fixed order comes out otherwise each time."""
        self.generator = PretendGenerator()
        self.generator.manual_seed(0)
        self._sending: str | None = None
        self._making = False
        self._times = 0
        self._within = 0  # calls from Python that were given a tensor of the device

    def forget(self) -> None:
        """Count from 0 again."""
        for counter in (self.waits, self.unordered, self.loose, self.tf32):
            counter.clear()
        self.made = 0

    def line(self) -> str:
        """Return the innermost line of the package that is at work."""
        frame = sys._getframe(2)
        while frame is not None:
            name = frame.f_code.co_filename
            if self.package in name:
                return f"{name.split(self.package)[-1]}:{frame.f_lineno} {frame.f_code.co_name}"
            frame = frame.f_back  # type: ignore[assignment]
        return "elsewhere"

    def wait(self, what: str) -> None:
        """Count a wait of the host's."""
        self.waits[self.line(), what] += 1

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [*tensors_in(args), *tensors_in(kwargs)]
        ours = any(isinstance(t, Pretend) for t in tensors)
        generator = kwargs.get("generator")
        if not ours and self._sending is None:
            return self._on_cpu(func, args, kwargs, tensors)
        name = func.overloadpacket.__name__
        if generator is not None and not on_device(generator):
            raise MixedError(f"{func}: expected a generator of cuda, got one of cpu")
        if self._sending is None:
            self._check(func, name, args, tensors)
        self._watch(name, args)
        plain = lambda t: t.inner if isinstance(t, Pretend) else t  # noqa: E731
        if self._allocates(func):
            self.made += 1
            if self.made in self.fails:
                raise self.fails.pop(self.made)
        drawing = name in RANDOM and generator is None
        with self.global_generator() if drawing else nullcontext():
            out = func(*mapped(plain, args), **mapped(plain, kwargs))
        if self.scatters and name in UNORDERED:
            self._times += 1
            share = 1 + 1e-6 * (self._times % 7)
            change = torch.Tensor.mul_ if func._schema.is_mutable else torch.mul
            out = mapped(lambda t: change(t, share) if t.is_floating_point() else t, out)
        if self._sending == "cpu":
            return out
        if name == "copy_" and not isinstance(args[0], Pretend):
            return args[0]
        return return_and_correct_aliasing(func, args, kwargs, mapped(Pretend, out))

    def _on_cpu(self, func, args, kwargs, tensors):
        generator = kwargs.get("generator")
        if generator is not None and on_device(generator) and not self._making:
            raise MixedError(f"{func}: expected a generator of cpu, got one of cuda")
        pinned = kwargs.pop("pin_memory", False) if func in PINNED else False
        out = func(*args, **kwargs)
        if pinned:
            out._pinned = True
        # Made in C++ with the options of a device tensor, as by one_hot.
        inside = self._within and not tensors and isinstance(out, Tensor) and not pinned
        return Pretend(out) if inside else out

    @staticmethod
    def _allocates(func: Any) -> bool:
        returns = func._schema.returns
        return bool(returns) and all(each.alias_info is None for each in returns)

    def _check(self, func, name, args, tensors) -> None:
        others = [t for t in tensors if not isinstance(t, Pretend)]
        if name == "copy_":
            if isinstance(args[1], Pretend) is not isinstance(args[0], Pretend):
                came = isinstance(args[1], Pretend)
                self.wait("to main memory" if came else "from pageable memory")
        elif name in INDEXED:
            self._check_index(func, name, args)
        elif name != "_foreach_copy_" and others:
            changed = func._schema.is_mutable and not isinstance(args[0], Pretend)
            bad = [t for t in others if t.dim() or name in STRICT or changed]
            if bad:
                what = f"tensors on cuda:0 and on cpu, {tuple(bad[0].shape)}"
                raise MixedError(f"{func}: {what}")

    def _check_index(self, func, name, args) -> None:
        if not isinstance(args[0], Pretend):
            raise MixedError(f"{func}: a CPU tensor, and CUDA indices or values")
        if "put" in name and not isinstance(args[2], Pretend) and args[2].dim():
            raise MixedError(f"{func}: CPU values put into a CUDA tensor")
        for index in args[1]:
            if index is not None and not isinstance(index, Pretend):
                self.wait("index from main memory")
            elif index is not None and index.dtype in (torch.bool, torch.uint8):
                self.wait("mask as index")

    def _watch(self, name: str, args: Any) -> None:
        if name in WAITS:
            self.wait(name)
        if name in UNORDERED:
            self.unordered[self.line(), name] += 1
        if name in CONVOLVES:
            if not torch.backends.cudnn.deterministic:
                self.loose[self.line(), name] += 1
            if torch.backends.cudnn.allow_tf32 and args[0].dtype == torch.float32:
                self.tf32[self.line(), name] += 1

    @contextmanager
    def global_generator(self) -> Iterator[None]:
        """Draw from the device's own global generator."""
        before = torch.default_generator.get_state()
        torch.default_generator.set_state(self.generator.get_state())
        try:
            yield
        finally:
            self.generator.set_state(torch.default_generator.get_state())
            torch.default_generator.set_state(before)

    def send(self, tensor: Tensor, *, dtype: Any = None, quiet: bool = True) -> Tensor:
        """Return a CPU tensor on the device; not `quiet`: the host waits for it."""
        if not quiet and tensor.numel():
            self.wait("from pageable memory")
        return self._copied(tensor, "cuda", dtype)

    def fetch(self, tensor: Tensor, *, dtype: Any = None) -> Tensor:
        """Return a tensor of the device on the CPU."""
        if tensor.numel():
            self.wait("to main memory")
        return self._copied(tensor, "cpu", dtype)

    def _copied(self, tensor: Tensor, where: str, dtype: Any) -> Tensor:
        self._sending = where
        try:
            return aten._to_copy.default(tensor, dtype=dtype)
        finally:
            self._sending = None

    def factory(self, func, name, args, kwargs):
        """Call a factory that was given a device: CUDA's."""
        generator = kwargs.get("generator")
        if generator is not None and not on_device(generator):
            raise MixedError(f"{name}: expected a generator of cuda, got one of cpu")
        kwargs = {**kwargs, "device": "cpu"}
        draws = name.startswith("rand") and generator is None
        self._making = True
        try:
            with self.global_generator() if draws else nullcontext():
                out = func(*args, **kwargs)
        finally:
            self._making = False
        return self.send(out, quiet=name not in ("tensor", "as_tensor"))

    @contextmanager
    def called(self, given: bool) -> Iterator[None]:
        """Know that a call from Python is at work that was given a tensor of the device."""
        self._within += given
        try:
            yield
        finally:
            self._within -= given
