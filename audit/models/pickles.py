"""What torch.save wrote, tensors alone: nothing in the file is run, and no foreign class is made.

torch's reader with `weights_only=True` makes tensors, numbers, texts and plain containers. Where a
training script kept its arguments or scores beside the weights, a stand-in takes the place of each
such object. Whole networks are refused: to make one is to run its author's code.
"""

from __future__ import annotations

import _compat_pickle
import pickle
import pickletools
import re
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from poison_audit.errors import InputError, Problem
from poison_audit.models.formats import saved_again

SETS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "params",
    "weights", "ema", "model_ema", "ema_state_dict", "state_dict_ema", "params_ema",
)  # fmt: skip
"""What training scripts call a network's tensors in what they save."""

_ASIDE = re.compile(r"optim|^opt$|sched|scaler|grad|rng|random|loss|criterion|meter|callback|hyper")
"""What holds tensors beside the network's."""
_DATA = {"argparse", "collections", "datetime", "decimal", "enum", "fractions", "pathlib", "types",
         "uuid", "zoneinfo"}  # fmt: skip
"""Modules of Python's own whose objects are data. Of any other there is no telling: `os.system`."""
_HARMLESS = (
    "collections.OrderedDict", "_codecs.encode",
    *(f"builtins.{name}" for name in (
        "set", "frozenset", "bytearray", "complex", "slice", "range", "object", "int", "float",
        "bool", "str", "list", "dict", "tuple",
    )),
)  # fmt: skip
"""What torch's reader makes itself, or could."""
_MAPPING = re.compile(r"(dict|box|munch|bunch|cfgnode|counter|config)$", re.IGNORECASE)
"""What classes are called that are mappings."""
_NETWORKS = ("torch.nn.modules.", "torch.fx.", "torch.jit.", "torch.nn.parallel.")
_DEPTH = 4
# What torch.load raises on damaged or refused files: there is no common base below Exception.
_UNREADABLE = (
    pickle.UnpicklingError, struct.error, ArithmeticError, AssertionError, AttributeError, EOFError,
    LookupError, OSError, RuntimeError, TypeError, ValueError,
)  # fmt: skip


class _StandIn:
    """Takes the place of an object that is not made, whatever it was made of."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


class _Filled:
    """Takes the place of a mapping that is filled after it was made."""

    def __new__(cls, *_: object, **__: object) -> Any:
        """Return what torch's reader lets be filled."""
        return OrderedDict()


@dataclass(frozen=True, slots=True)
class _Content:
    """What a pickle would make, read from its opcodes without making it."""

    root: str
    """The first class or function by its full name; empty: a plain container comes first."""
    names: tuple[str, ...]
    """Every class and function."""
    keys: tuple[str, ...]
    """Every text."""


def read_pickle(file: Path, *, key: str | None = None) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return a network's tensors by name, and what was left out, in sentences.

    Args:
        file: what torch.save wrote, in any of its formats.
        key: the entry that holds them, as `--state-key` takes it; None: it is looked for.

    Raises:
        InputError: it is damaged, it holds more than tensors, or several sets of tensors.
    """
    where = str(file)
    try:
        content = _content(file)
    except (*_UNREADABLE, zipfile.BadZipFile, RecursionError, MemoryError) as error:
        raise _damaged(error, where) from error
    _refuse(content, file)
    foreign = [name for name in content.names if _is_foreign(name)]
    stand_ins: Any = [(_Filled if _MAPPING.search(name) else _StandIn, name) for name in foreign]
    try:
        # Of a path torch.load looks at the suffix.
        with torch.serialization.safe_globals(stand_ins), file.open("rb") as stream:
            loaded = torch.load(stream, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        # torch's own message advises to load with weights_only=False: not repeated here.
        raise _damaged(error, where) from error
    if isinstance(loaded, _StandIn):
        raise InputError(_whole(content, file))
    tensors = _named_tensors(_chosen(loaded, key, where), where)
    made = sorted({name for name in foreign if name not in _HARMLESS})
    told = f"objects beside the weights were not read: {', '.join(made[:5])}"
    return tensors, (told,) if made else ()


def _is_foreign(name: str) -> bool:
    return not name.startswith("torch.") or name.startswith(("torch.optim.", "torch.utils.data."))


def _damaged(error: Exception, where: str) -> InputError:
    blocked = re.search(r"GLOBAL (\S+) was not an allowed", str(error))
    told = blocked[1] if blocked else type(error).__name__
    what = f"is damaged, or holds more than tensors ({told})"
    return InputError(Problem(what, where, "Save the network's state_dict() as safetensors."))


def _content(file: Path) -> _Content:
    names: list[str] = []
    texts: list[str] = []
    memo: dict[int, str] = {}
    recent: list[str] = []
    first, last = "", ""
    for opcode, argument, _ in _opcodes(file):
        name = ""
        if opcode.name == "GLOBAL":
            name = _of_today(*argument.split(" ", 1))
        elif opcode.name == "STACK_GLOBAL":
            name = ".".join(recent[-2:])
        elif isinstance(argument, str):
            texts.append(argument)
            recent, last = [*recent[-1:], argument], argument
        elif opcode.name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[argument] = last
        elif opcode.name == "MEMOIZE":
            memo[len(memo)] = last
        elif opcode.name in ("BINGET", "LONG_BINGET", "GET"):
            recent = [*recent[-1:], memo.get(argument, "")]
        if name:
            names.append(name)
        if not first and opcode.name not in ("PROTO", "FRAME"):
            first = opcode.name
    # A class that comes after a container is in it.
    root = "" if first == "EMPTY_DICT" or not names or names[0] in _HARMLESS else names[0]
    return _Content(root, tuple(dict.fromkeys(names)), tuple(texts))


def _of_today(module: str, name: str) -> str:
    """Return a full name where a pickle may spell it as Python 2 did."""
    mapping: Any = _compat_pickle
    module, name = mapping.NAME_MAPPING.get((module, name), (module, name))
    return f"{mapping.IMPORT_MAPPING.get(module, module)}.{name}"


def _opcodes(file: Path) -> Iterator[tuple[Any, Any, Any]]:
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            inside = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            with archive.open(inside) as stream:
                yield from pickletools.genops(stream)
        return
    with file.open("rb") as stream:
        yield from _opcodes_of_old(stream, str(file))


def _opcodes_of_old(stream: BinaryIO, where: str) -> Iterator[tuple[Any, Any, Any]]:
    # Before the content come three small pickles: a magic number, a version, the machine.
    magic = [argument for opcode, argument, _ in pickletools.genops(stream) if argument is not None]
    if magic[-1:] != [0x1950A86A20F9469CFC6C]:
        what = "is a pickle that torch.save did not write"
        fix = "Save the network's state_dict() by torch.save, or as safetensors."
        raise InputError(Problem(what, where, fix))
    for _ in range(2):
        for _ in pickletools.genops(stream):
            pass
    yield from pickletools.genops(stream)


def _refuse(content: _Content, file: Path) -> None:
    """Refuse what holds a network, or what no honest checkpoint holds."""
    if quantised := [n for n in content.names if n.startswith("torch.ao.") or "quantized" in n]:
        what = f"holds a quantised network ({quantised[0]})"
        fix = "Audit the checkpoint as it was before it was quantised."
        raise InputError(Problem(what, str(file), fix))
    if any(name.startswith(_NETWORKS) for name in content.names):
        raise InputError(_whole(content, file))
    own = {name: name.partition(".")[0] for name in content.names if name not in _HARMLESS}
    strange = [
        name for name, module in own.items()
        if module not in _DATA and module in sys.stdlib_module_names
    ]  # fmt: skip
    if strange:
        what = f"holds more than tensors: {', '.join(sorted(strange)[:5])}"
        fix = "Save the network's state_dict() as safetensors."
        raise InputError(Problem(what, str(file), fix))


def _whole(content: _Content, file: Path) -> Problem:
    """Return the problem of a file that holds a network, with the command that saves its tensors.

    A class before any container is the network; else it stands in a container, under a usual key.
    """
    found = next((key for key in content.keys if key in SETS), None)
    entry = "" if content.root or found is None else f"[{found!r}]"
    aside = ("torch.", "collections.", "builtins.")
    ours = [name for name in content.names if not name.startswith(aside)]
    name = next(iter(ours), content.root) or next(
        (name for name in content.names if name.startswith(_NETWORKS)), "a part of one"
    )
    what = f"holds a whole network ({name}), and to make one runs its author's code"
    fix = saved_again(file, entry)
    return Problem(what, str(file), f"{fix}, where that code can be imported")


def _chosen(loaded: Any, key: str | None, where: str) -> Mapping[Any, Any]:
    sets = dict(_sets(loaded, ()))
    if key is not None:
        if key not in sets:
            return _under(sets, key, where)
        return sets[key]
    if not sets:
        keys = ", ".join(map(str, loaded))[:200] if isinstance(loaded, dict) else ""
        told = f" with the keys {keys}" if keys else ""
        what = f"holds a {type(loaded).__name__}{told}, and in it no state dict"
        raise InputError(Problem(what, where, "Save the network's state_dict()."))
    first, *others = sets.values()
    if any(not _same(first, other) for other in others):
        what = f"holds several sets of tensors that differ: {', '.join(sets)}"
        fix = "Say which one is deployed: --state-key NAME, or [model] state_key in audit.toml."
        raise InputError(Problem(what, where, fix))
    return first


def _under(sets: Mapping[str, Mapping[Any, Any]], key: str, where: str) -> Mapping[Any, Any]:
    """Return the tensors whose names begin with `key` and a dot, in the one set that there is."""
    for held in sets.values():
        inside = {n: t for n, t in held.items() if isinstance(n, str) and n.startswith(f"{key}.")}
        if inside:
            return inside
    what = f"has no entry {key!r} that holds tensors"
    raise InputError(Problem(what, where, f"It holds: {', '.join(sets) or 'none'}."))


def _sets(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Yield every mapping from names to tensors, by its keys joined with dots."""
    if not isinstance(value, dict) or len(path) > _DEPTH:
        return
    inside = [
        found
        for key, inner in value.items()
        if isinstance(key, str) and not _ASIDE.search(key.lower())
        for found in _sets(inner, (*path, key))
    ]
    yield from inside
    if not inside and any(isinstance(inner, Tensor) and inner.ndim for inner in value.values()):
        yield ".".join(path), value


def _same(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> bool:
    return one.keys() == other.keys() and all(
        isinstance(a, Tensor) and isinstance(b := other[name], Tensor) and a.shape == b.shape
        and bool((a == b).all())
        for name, a in one.items()
    )  # fmt: skip


def _named_tensors(content: Mapping[Any, Any], where: str) -> dict[str, Tensor]:
    strange = [
        f"{name} ({type(value).__name__})"
        for name, value in content.items()
        if not (isinstance(name, str) and isinstance(value, Tensor))
        and not (isinstance(name, str) and name.endswith("_extra_state"))
    ]
    if strange:
        what = f"holds entries that are no named tensors: {', '.join(sorted(strange)[:20])}"
        raise InputError(Problem(what, where, "Save the network's state_dict() alone."))
    return {name: t.detach() for name, t in content.items() if isinstance(t, Tensor)}
