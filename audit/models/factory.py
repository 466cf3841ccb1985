"""A user's own architecture: a function named on the command line, since it runs code."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from poison_audit.errors import InputError, Problem, did_you_mean

FACTORY = "factory:"
"""What the name of an architecture begins with that a factory builds."""
_WHERE = "--factory"
_FIX = "Give package.module:function, which takes no arguments and returns a torch.nn.Module."


_HELD: dict[str, Callable[[], nn.Module]] = {}
"""Functions that a user's own code gave, by name: no file and no flag put one here."""


@contextmanager
def held_factory(name: str, build: Callable[[], nn.Module]) -> Iterator[str]:
    """Let a function that the caller has in its hands be named as a factory, within.

    Args:
        name: as messages and reports call it.
        build: takes no arguments, returns a newly initialised network.
    """
    before = _HELD.get(name)
    _HELD[name] = build
    try:
        yield name
    finally:
        _HELD.pop(name)
        if before is not None:
            _HELD[name] = before


def import_factory(name: str) -> Callable[[], nn.Module]:
    """Return the function that builds a user's network.

    The current directory is searched first, during the import only.

    Args:
        name: `package.module:function`.

    Raises:
        InputError: it cannot be imported, or cannot be called without arguments.
    """
    if (held := _HELD.get(name)) is not None:
        return lambda: _checked(held(), name)
    module_name, colon, function_name = name.partition(":")
    if not (module_name and colon and function_name):
        raise InputError(Problem(f"{name!r} names no function", _WHERE, _FIX))
    try:
        with _current_directory_importable():
            module = importlib.import_module(module_name)
    except (ImportError, SyntaxError) as error:
        what = f"module {module_name!r} cannot be imported ({error})"
        raise InputError(Problem(what, _WHERE, _FIX)) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        what = f"module {module_name!r} has no function {function_name!r}"
        raise InputError(Problem(what, _WHERE, did_you_mean(function_name, known)))
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError) as error:
        what = f"{name} cannot be called without arguments ({error})"
        raise InputError(Problem(what, _WHERE, _FIX)) from error

    def build() -> nn.Module:
        return _checked(function(), name)

    return build


def user_code() -> str:
    """Return the SHA-256 of all code in use that is the user's: not Python's, installed or ours.

    A factory's module is among it, and all that was imported by it, or since; what it reads
    otherwise is not.
    """
    digest = hashlib.sha256()
    for name, module in sorted(sys.modules.items()):
        if (file := _own_file(name, module)) is not None:
            digest.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _own_file(name: str, module: object) -> Path | None:
    # Asked of its dictionary: to ask some modules for an attribute makes them import more.
    told = vars(module).get("__file__") if isinstance(module, ModuleType) else None
    if not isinstance(told, str) or name.partition(".")[0] in ("poison_audit", "__main__"):
        return None
    file = Path(told).absolute()
    installed = {"site-packages", "dist-packages"} & set(file.parts)
    if installed or file.is_relative_to(sysconfig.get_path("stdlib")) or not file.is_file():
        return None
    return file


def head_size(module: nn.Module, name: str) -> int:
    """Return the outputs of the last linear layer, else of the last convolution; or InputError."""
    for kind in (nn.Linear, nn.Conv2d):
        layers = [part for part in module.modules() if isinstance(part, kind)]
        if layers:
            return layers[-1].weight.shape[0]
    raise InputError(Problem(f"{name} has no linear layer that gives logits", _WHERE, _FIX))


def first_channels(module: nn.Module) -> int | None:
    """Return the channels that a network's first convolution takes; None if it has none."""
    convolutions = (part for part in module.modules() if isinstance(part, nn.Conv2d))
    return next((part.in_channels for part in convolutions), None)


def _checked(module: Any, name: str) -> nn.Module:
    if not isinstance(module, nn.Module):
        what = f"{name} returned a {type(module).__name__}"
        raise InputError(Problem(what, _WHERE, _FIX))
    if any(is_lazy(tensor) for tensor in (*module.parameters(), *module.buffers())):
        what = f"{name} returned a network with lazy layers, which have no shape yet"
        raise InputError(Problem(what, _WHERE, "Call it once on a sample before returning it."))
    if not list(module.parameters()):
        raise InputError(Problem(f"{name} returned a network without parameters", _WHERE, _FIX))
    return module.float().cpu()


@contextmanager
def _current_directory_importable() -> Iterator[None]:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.path.remove(here)
