"""Pickles that people keep tables and lists in: plain values and arrays are read, never code."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poison_audit.case.filetext import read_bytes
from poison_audit.errors import InputError, Problem

TORCH = (".pt", ".pth")
PLAIN = (".pkl", ".pickle")
# What loaders of pickles raise on damaged or refused content: no common base below Exception.
_UNREADABLE = (
    pickle.UnpicklingError, struct.error, ArithmeticError, AssertionError, AttributeError, EOFError,
    LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
_CODES = ("u1", "i1", "b1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8")
"""The types whose arrays are read, as NumPy spells them."""


def read_torch(path: Path, *, allow_pickle: bool, fix: str) -> Any:
    """Return what `torch.save` wrote: tensors in plain containers, or a `TensorDataset`.

    Args:
        path: the file.
        allow_pickle: whether it may be read.
        fix: what to save instead.

    Raises:
        InputError: it may not be read, is damaged, or holds more than that.
    """
    where = str(path)
    check_allowed(where, fix, allow_pickle=allow_pickle)
    raw = read_bytes(path)
    # A TensorDataset holds its tensors and nothing else.
    torch.serialization.add_safe_globals([torch.utils.data.TensorDataset])
    try:
        found = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
        # A damaged one may lack them.
        return list(found.tensors) if isinstance(found, torch.utils.data.TensorDataset) else found
    except _UNREADABLE as error:
        # torch's own message advises to load with weights_only=False: not repeated here.
        what = f"is damaged, or holds more than tensors ({type(error).__name__})"
        raise InputError(Problem(what, where, fix)) from error


def read_pickle(path: Path, *, allow_pickle: bool, fix: str) -> Any:
    """Return what a pickle holds: plain values, containers and NumPy arrays of numbers.

    No name in it is ever looked up, but for those that arrays are made of, and what stands for
    them is this module's own.

    Raises:
        InputError: as `read_torch` says.
    """
    where = str(path)
    check_allowed(where, fix, allow_pickle=allow_pickle)
    raw = read_bytes(path)
    try:
        return _settled(_Plain(io.BytesIO(raw), encoding="latin1").load())
    except (*_UNREADABLE, RecursionError) as error:
        what = f"is damaged, or holds more than arrays and plain values ({error!s:.200})"
        raise InputError(Problem(what, where, fix)) from error


def check_allowed(where: str, fix: str, *, allow_pickle: bool) -> None:
    """Raise InputError where pickles may not be read."""
    if not allow_pickle:
        what = "is a pickle, which can run code when it is read"
        raise InputError(
            Problem(what, where, f"--allow-pickle reads arrays and plain values alone. Or: {fix}")
        )


def plain(found: Any) -> Any:
    """Return tensors and arrays as lists, where they are the whole or stand under a key.

    What stands deeper is left out: a small pickle can hold one list a thousand times.
    """
    if isinstance(found, Mapping):
        inner = {name: each for name, each in found.items() if not isinstance(each, Mapping)}
        return {str(name): _row(each) for name, each in inner.items()}
    return _row(found)


def _row(found: Any) -> Any:
    if isinstance(found, Tensor):
        found = (found.float() if found.dtype == torch.bfloat16 else found).detach().numpy()
    if isinstance(found, np.ndarray):
        # numpy.argwhere gives a column.
        array = found.reshape(-1) if found.ndim == 2 and 1 in found.shape else found
        return array.tolist() if array.dtype.kind in "biufUS" else None
    if isinstance(found, list | tuple | set | frozenset):
        return [_value(each) for each in found]
    return _value(found)


def _value(found: Any) -> Any:
    if isinstance(found, Tensor):
        found = found.detach().numpy() if found.dtype != torch.bfloat16 else found.float().numpy()
    if isinstance(found, np.ndarray | np.generic) and found.size == 1:
        return found.item()
    if isinstance(found, bytes):
        return found.decode("latin1")
    return found if found is None or isinstance(found, str | int | float) else []


class _Kind:
    """What stands for a NumPy dtype: its type, then its byte order."""

    def __init__(self, code: object, *_: object) -> None:
        if code not in _CODES:
            what = f"an array of {code!r:.40}, which is no number"
            raise pickle.UnpicklingError(what)
        self.dtype = np.dtype(str(code))

    def fill(self, state: Any) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])

    def array(self, data: Any) -> NDArray[Any]:
        raw = data.encode("latin1") if isinstance(data, str) else bytes(data)
        return np.frombuffer(raw, dtype=self.dtype).copy()


class _Array:
    """What stands for a NumPy array: nothing, then its numbers."""

    def __init__(self, *_: object) -> None:
        self.value: NDArray[Any] = np.zeros(0)

    def fill(self, state: Any) -> None:
        _, shape, kind, is_fortran, data = state
        self.value = kind.array(data).reshape(shape, order="F" if is_fortran else "C")


def _buffered(data: Any, kind: _Kind, shape: Any, order: str) -> NDArray[Any]:
    """Stand for `numpy._core.numeric._frombuffer`, by which protocol 5 writes arrays."""
    return kind.array(data).reshape(shape, order="F" if order == "F" else "C")


def _scalar(kind: _Kind, data: Any) -> Any:
    return kind.array(data)[0].item()


def _latin(text: str, coding: str) -> bytes:
    """Stand for `_codecs.encode`, by which Python 3 writes bytes for Python 2."""
    if coding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(coding)
    return text.encode("latin1")


def _unique(values: Any = ()) -> list[Any]:
    """Stand for a set; its members stay a list, so that none of them is hashed."""
    return list(values)


def _ordered() -> dict[str, Any]:
    return {}


_NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _latin,
    ("collections", "OrderedDict"): _ordered,
    ("builtins", "set"): _unique,
    ("__builtin__", "set"): _unique,
}
for _core in ("numpy.core", "numpy._core"):
    _NAMES[f"{_core}.multiarray", "_reconstruct"] = _Array
    _NAMES[f"{_core}.multiarray", "scalar"] = _scalar
    _NAMES[f"{_core}.numeric", "_frombuffer"] = _buffered


class _Plain(pickle._Unpickler):
    """Python's own unpickler, without what calls, looks up or hashes what a file names.

    The one written in C would also reserve as much memory as a small file asks for.
    """

    stack: list[Any]
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]

    dispatch: ClassVar[dict[int, Any]] = {
        code: load
        for code, load in pickle._Unpickler.dispatch.items()
        if bytes([code])
        not in (
            pickle.PERSID, pickle.BINPERSID, pickle.INST, pickle.OBJ, pickle.NEWOBJ,
            pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.NEXT_BUFFER,
            pickle.READONLY_BUFFER, pickle.FROZENSET,
        )
    }  # fmt: skip

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            what = f"it names {module}.{name}"
            raise pickle.UnpicklingError(what)
        return _NAMES[module, name]

    def _call(self) -> None:
        given, called = self.stack.pop(), self.stack[-1]
        if not any(called is known for known in _NAMES.values()):
            what = "it calls what is no part of an array"
            raise pickle.UnpicklingError(what)
        self.stack[-1] = called(*given)

    def _fill(self) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if not isinstance(made, _Kind | _Array):
            what = f"it changes a {type(made).__name__}"
            raise pickle.UnpicklingError(what)
        made.fill(state)

    def _put(self, pairs: list[Any], found: Any) -> None:
        # Hashing a tuple of tuples of tuples may never end.
        if not isinstance(found, dict) or not all(isinstance(k, str | int) for k in pairs[::2]):
            what = "a key is no text and no integer"
            raise pickle.UnpicklingError(what)
        found.update(zip(pairs[::2], pairs[1::2], strict=True))

    def _put_one(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._put([key, value], self.stack[-1])

    def _put_several(self) -> None:
        pairs = self.pop_mark()
        self._put(pairs, self.stack[-1])

    def _put_all(self) -> None:
        pairs, found = self.pop_mark(), dict[Any, Any]()
        self._put(pairs, found)
        self.append(found)

    def _start_set(self) -> None:
        self.append([])

    def _add(self) -> None:
        members = self.pop_mark()
        self.stack[-1].extend(members)

    def _long_bytes(self) -> None:
        (length,) = struct.unpack("<Q", self.read(8))
        if length >= 1 << 40 or len(data := self.read(length)) != length:
            what = "it ends too early"
            raise pickle.UnpicklingError(what)
        self.append(data)

    dispatch |= {
        pickle.REDUCE[0]: _call,
        pickle.BUILD[0]: _fill,
        pickle.SETITEM[0]: _put_one,
        pickle.SETITEMS[0]: _put_several,
        pickle.DICT[0]: _put_all,
        pickle.EMPTY_SET[0]: _start_set,
        pickle.ADDITEMS[0]: _add,
        pickle.BYTEARRAY8[0]: _long_bytes,
    }


def _settled(found: Any) -> Any:
    """Return arrays instead of what stood for them: the whole, a list's, or an object's."""
    if isinstance(found, _Array):
        return found.value
    if isinstance(found, dict):
        return {
            name: each.value if isinstance(each, _Array) else each for name, each in found.items()
        }
    if isinstance(found, list | tuple):
        return [each.value if isinstance(each, _Array) else each for each in found]
    return found
