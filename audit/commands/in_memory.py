"""A module in memory: which network it is, what builds it anew, and how results go back into it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from poison_audit.commands.held import MADE, bare, is_described
from poison_audit.errors import InputError, Problem, some
from poison_audit.models.factory import first_channels, held_factory
from poison_audit.models.identify import architecture, canonical, identify
from poison_audit.models.model import Model, evaluating
from poison_audit.models.saving import stored_names
from poison_audit.models.strict import load_strict
from poison_audit.models.text import REFUSALS
from poison_audit.models.wrappers import bare_names

SIDES = (32, 28, 64, 96, 224, 8)
"""Of pictures that a network is tried with, where no data in memory says."""
CLOSE = 1e-4
"""Largest difference of two networks that compute the same, relative to the largest logit."""


@contextmanager
def factory_of(
    model: Any,
    build: Callable[[], nn.Module] | None,
    *,
    arch: str | None,
    shape: tuple[int, ...] | None,
) -> Iterator[str | None]:
    """Give the name of the function that builds a model's network anew, within; None: none needed.

    A network that this package knows is built by it, if it answers as the module does: a fit of
    names and shapes alone is no proof.

    Args:
        model: a module, or a path, which needs none.
        build: what the caller says builds it.
        arch: what the caller says it is.
        shape: of a picture, channels first or last; None: not known.
    """
    if not isinstance(model, nn.Module):
        if build is None:
            yield None
            return
        with held_factory(_called(build), build) as name:
            yield name
        return
    module = bare(model)
    if build is None and (is_described(module) or arch or _is_known(module, shape)):
        yield None
        return
    kind = type(module)
    name = f"{kind.__module__}:{kind.__qualname__}" if build is None else _called(build)
    with held_factory(name, build or _anew(module)) as held:
        yield held


def _called(build: Callable[[], nn.Module]) -> str:
    kind: Any = build if hasattr(build, "__qualname__") else type(build)
    return f"{kind.__module__}:{kind.__qualname__}"


def _is_known(module: nn.Module, shape: tuple[int, ...] | None) -> bool:
    """Say whether a module computes what the architecture does that its tensors fit."""
    state = {name: tensor.detach().cpu() for name, tensor in module.state_dict().items()}
    names = identify(state)
    if len(names) != 1:
        return False
    tensors = canonical(state)
    with torch.random.fork_rng(devices=[]):
        known = architecture(names[0], tensors).build()
    try:
        load_strict(known, tensors, where="model")
    except InputError:
        return False
    rng = torch.Generator().manual_seed(0)
    channels = first_channels(known) or 3
    sides = [s[1:] if s[0] == channels else s[:2] for s in (shape,) if s and len(s) == 3]
    own = copy.deepcopy(module).cpu().float()
    for height, width in (*sides, *((side, side) for side in SIDES)):
        x = torch.rand(4, channels, height, width, generator=rng)
        with suppress(*REFUSALS), torch.no_grad(), evaluating(own), evaluating(known):
            mine, theirs = own(x), known(x)
            return bool((mine - theirs).abs().max() <= CLOSE * theirs.abs().max())
    return False


def _anew(module: nn.Module) -> Callable[[], nn.Module]:
    """Return what builds a module's network with new weights, by its layers' own initialisation."""
    kept = copy.deepcopy(module).cpu()
    left = [
        name
        for path, part in kept.named_modules()
        if _resets(part) is None
        for name in (f"{path}.{n}".lstrip(".") for n, _ in part.named_parameters(recurse=False))
    ]

    def build() -> nn.Module:
        if left:
            what = f"nobody says how {some(left)} are initialised"
            fix = "Give factory=, a function that returns the network newly initialised"
            raise InputError(Problem(what, "model", fix))
        fresh = copy.deepcopy(kept)
        for part in fresh.modules():
            if (reset := _resets(part)) is not None:
                reset()
        return fresh

    return build


def _resets(part: nn.Module) -> Callable[[], object] | None:
    names = ("reset_parameters", "_reset_parameters")
    return next((getattr(part, n) for n in names if callable(getattr(part, n, None))), None)


def put_back(made: Model, original: Any, header: Mapping[str, str]) -> nn.Module:
    """Return a model as a module like the caller's own, which stays as it was; else its network.

    Args:
        made: what was made of it.
        original: the caller's module, or a path.
        header: what the header of its file would say of where it comes from.
    """
    module: nn.Module = made.module
    if isinstance(original, nn.Module):
        module = copy.deepcopy(original)
        within, tensors = bare(module), _by_stored_name(made)
        names = {short: name for name, short in bare_names(within.state_dict()).items()}
        state = within.state_dict()
        state.update({names.get(name, name): tensor for name, tensor in tensors.items()})
        within.load_state_dict(state)
    module.eval()
    setattr(module, MADE, dict(header))
    return module


def _by_stored_name(made: Model) -> dict[str, Tensor]:
    state = made.module.state_dict()
    return {stored: state[name] for name, stored in stored_names(made).items()}
