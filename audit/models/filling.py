"""Putting a checkpoint's tensors, and an adapter, into the network that they are of."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import torch
from torch import nn

from poison_audit.errors import InputError, Problem
from poison_audit.models import hugging_face
from poison_audit.models.factory import FACTORY
from poison_audit.models.identify import Network, canonical, identify
from poison_audit.models.lora import Adapter, merge
from poison_audit.models.network import taken_out
from poison_audit.models.strict import load_strict
from poison_audit.models.weights import Weights, read_weights


def filled(
    build: Callable[[], nn.Module], arch: str, weights: Weights, where: str
) -> tuple[nn.Module, Weights]:
    """Return the network with its tensors, and the weights as they were understood."""
    # Initialisers draw from the global generator, and the draws are overwritten.
    with torch.random.fork_rng(devices=[]):
        module = build()
        if arch.startswith(hugging_face.PREFIX):
            loaded = hugging_face.load_classifier(
                module, weights.tensors, where=where, adapter=weights.adapter
            )
            return loaded, weights
    module, weights = _strict(module, arch, weights, where)
    if weights.adapter is not None:
        merge(module, weights.adapter)
    return module, weights


def _strict(
    module: nn.Module, arch: str, weights: Weights, where: str
) -> tuple[nn.Module, Weights]:
    if not arch.startswith(FACTORY):
        try:
            load_strict(module, canonical(weights.tensors), where=where)
        except InputError as error:
            raise _of_another(arch, weights, where) or error from error
        return module, weights
    try:
        # A factory's names are the user's own, whatever they look like.
        load_strict(module, weights.tensors, where=where)
    except InputError as error:
        # It may build what stands behind a prefix, or behind a layer that normalises.
        inside = taken_out(weights, arch)
        with suppress(InputError):
            load_strict(module, inside.tensors, where=where)
            return module, inside
        raise _of_another(arch, inside, where) or error from error
    return module, weights


def stored_as(weights: Weights, arch: str) -> dict[str, str]:
    """Return what the checkpoint calls tensors that a network of pictures calls otherwise."""
    if arch.startswith(hugging_face.PREFIX):
        return {}
    names = {id(tensor): name for name, tensor in weights.tensors.items()}
    found = {name: names[id(t)] for name, t in canonical(weights.tensors).items()}
    return {name: theirs for name, theirs in found.items() if name != theirs}


def _of_another(arch: str, weights: Weights, where: str) -> InputError | None:
    """Return what says of which architecture the tensors are instead; None: of none."""
    names = [name for name in identify(weights.tensors) if name != arch]
    if not names:
        return None
    what = f"the tensors are not of {arch}: they fit {' and '.join(names)}"
    flag = "--factory" if arch.startswith(FACTORY) else "--arch"
    return InputError(Problem(what, where, f"Leave {flag} out, or give --arch {names[0]}."))


def of_base(network: Network, adapter: Adapter) -> nn.Module:
    """Return what an adapter's training began with: its base, and a new head where it needs one."""
    base, where = read_weights(adapter.base, allow_pickle=adapter.pickles), str(adapter.base)
    if network.arch.startswith(hugging_face.PREFIX):
        return hugging_face.load_classifier(
            network.build(), base.tensors, where=where, new_head=True
        )
    return filled(network.build, network.arch, base, where)[0]
