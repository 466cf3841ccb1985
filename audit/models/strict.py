"""Putting tensors into a network so that every one of them has its place, or nothing is loaded."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from poison_audit.errors import InputError, Problem, Problems
from poison_audit.models.weights import FLOATS, listed
from poison_audit.models.wrappers import bare_names, shared_prefix


def load_strict(module: nn.Module, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Copy `tensors` into `module`, which must have exactly these, in these shapes.

    Two kinds may be absent: BatchNorm's count of batches, which eval mode never reads, and a
    tensor that is tied to one that is there. Where all names share a prefix, here or there, it is
    bridged.

    Args:
        module: is changed in place, or left alone when an error is raised.
        tensors: floating-point ones of any width are read into the module's own.

    Raises:
        InputError: everything that does not fit, by name.
    """
    own: dict[str, Tensor] = module.state_dict()
    tensors = _bridged(tensors, own)
    first, placed = first_of_ties(own), {name: t for name, t in tensors.items() if name in own}
    misshapen = [
        f"{name} ({tuple(tensor.shape)}, not {tuple(own[name].shape)})"
        for name, tensor in placed.items()
        if tensor.shape != own[name].shape
    ]
    mistyped = [
        f"{name} ({str(tensor.dtype).removeprefix('torch.')})"
        for name, tensor in placed.items()
        if (tensor.dtype in FLOATS) != (own[name].dtype in FLOATS)
    ]
    present = {first[name] for name in placed}
    missing = [
        name
        for name in own
        if first[name] not in present and not name.endswith("num_batches_tracked")
    ]
    if missing and len(networks := _networks(tensors, own)) > 1:
        what = f"holds {len(networks)} networks: {listed(networks)}"
        fix = "Say which one is deployed: --state-key NAME, or [model] state_key in audit.toml."
        raise InputError(Problem(what, where, fix))
    Problems(
        Problem(f"{len(names)} tensors {what}: {listed(names)}", where, fix)
        for what, names, fix in (
            ("are missing", missing, "Is it another architecture?"),
            ("have no place", [name for name in tensors if name not in own], ""),
            ("have another shape", misshapen, "Is it another architecture?"),
            ("are of another type", mistyped, "Dequantise the checkpoint first."),
            ("are tied but differ", _torn(first, tensors), "The file is not of this architecture."),
        )
        if names
    ).raise_any()
    module.load_state_dict(tensors, strict=False)


def _networks(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Return the prefixes under which whole networks of this kind stand."""
    needed = [name for name in own if not name.endswith("num_batches_tracked")]
    ends = (name.removesuffix(f".{needed[0]}") for name in tensors if name.endswith(needed[0]))
    return sorted({p for p in ends if p and all(f"{p}.{name}" in tensors for name in needed)})


def _bridged(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors by the module's own names, if all that differs is what all names begin with.

    The checkpoint's names lost what wrappers put before them; the module may be wrapped itself.
    """
    named = {bare: name for name, bare in bare_names(own).items()}
    theirs, ours = shared_prefix(tensors), shared_prefix(named)
    if {name.removeprefix(theirs) for name in tensors} & {n.removeprefix(ours) for n in named}:
        tensors = {ours + name.removeprefix(theirs): tensor for name, tensor in tensors.items()}
    return {named.get(name, name): tensor for name, tensor in tensors.items()}


def first_of_ties(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return, for each name, the first name in sorted order that holds the same memory."""
    firsts: dict[object, str] = {}
    names: dict[str, str] = {}
    for name in sorted(tensors):
        tensor = tensors[name]
        memory = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride())
        # An empty tensor has no memory to share.
        names[name] = firsts.setdefault(memory if tensor.numel() else name, name)
    return names


def _torn(first: Mapping[str, str], tensors: Mapping[str, Tensor]) -> list[str]:
    torn = []
    for name, leader in first.items():
        if name != leader and name in tensors and leader in tensors:
            same = tensors[name].shape == tensors[leader].shape
            if not (same and bool((tensors[name] == tensors[leader]).all())):
                torn.append(f"{leader} and {name}")
    return torn
