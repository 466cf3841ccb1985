"""Training an adapter alone: its matrices and what it holds whole move, its base stays.

A method sees a network whose parameters are the adapter's alone; every layer that is adapted
computes its weight from them anew (models.lora). What comes out is merged again.

Departs from PEFT: the dropout that it puts before A is not there.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from poison_audit.errors import PlanError, Problem
from poison_audit.models.lora import Adapter, Pair, merge, summed
from poison_audit.models.model import Model, blocks_of
from poison_audit.training.modes import has_batch_norm
from poison_audit.training.sharding import processes


class _Sum(nn.Module):
    """W of a layer as a function of A, B and m, given W0."""

    def __init__(self, pair: Pair, *, turned: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(pair.a.clone()), nn.Parameter(pair.b.clone())
        m = pair.magnitude
        self.m = None if m is None else nn.Parameter(m.clone())
        self.scale, self.turned = pair.scale, turned

    @property
    def pair(self) -> Pair:
        """The matrices as they stand."""
        return Pair(a=self.a, b=self.b, scale=self.scale, magnitude=self.m)

    def forward(self, weight: Tensor) -> Tensor:
        return summed(weight, self.pair, turned=self.turned)


def run(
    method: Callable[..., Model], model: Model, *given: object, whole: bool, **numbers: object
) -> Model:
    """Return what a method makes of a model; of an adapter its parameters alone, unless `whole`.

    Args:
        method: (model, case, rng, *, ledger, numbers) -> Model.
        given: the case and the generators.
        whole: whether an adapter's base is trained with it.

    Raises:
        PlanError: the adapter cannot be trained alone.
    """
    if model.adapter is None:
        return method(model, *given, **numbers)
    if whole:
        return replace(method(model, *given, **numbers), adapter=None)
    return _closed(method(_opened(model, model.adapter), *given, **numbers), model)


def _opened(model: Model, adapter: Adapter) -> Model:
    """Return a model whose parameters are its adapter's."""
    if has_batch_norm(model.module) or processes() > 1:
        what = "its network has BatchNorm, whose statistics would move with it"
        if processes() > 1:
            what = "processes that share its steps share whole networks"
        fix = "Leave it out: methods then train the whole network"
        raise PlanError(
            Problem(f"an adapter is not trained alone here: {what}", "--trainable", fix)
        )
    with torch.random.fork_rng(devices=[]):
        base = model.build()
    module = _taking(base, adapter).to(model.device)
    build = partial(_anew, model.build, adapter)
    return replace(model, module=module.eval(), build=build, blocks=blocks_of(module))


def _anew(build: Callable[[], nn.Module], adapter: Adapter) -> nn.Module:
    """Return the base with an adapter as PEFT begins one: B is zero, A drawn, m the base's norm."""
    base = build()
    whole = {name: base.get_parameter(name).detach().clone() for name in adapter.whole}
    pairs = {}
    for layer, pair in adapter.pairs.items():
        a = torch.empty_like(pair.a)
        nn.init.kaiming_uniform_(a, a=math.sqrt(5))
        fresh = replace(pair, a=a, b=torch.zeros_like(pair.b), magnitude=None)
        if pair.magnitude is not None:
            part = base.get_submodule(layer)
            weight = base.get_parameter(f"{layer}.weight").detach()
            along = 1 if isinstance(part, nn.Linear) else 0
            fresh = replace(fresh, magnitude=torch.linalg.norm(weight, dim=along))
        pairs[layer] = fresh
    return _taking(base, replace(adapter, pairs=pairs, whole=whole))


def _taking(base: nn.Module, adapter: Adapter) -> nn.Module:
    """Return a base, changed in place, with the adapter's tensors as its only parameters."""
    # What it holds whole is put in place, and all is checked; W0 stays.
    merge(base, replace(adapter, pairs={}))
    for layer, part in base.named_modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            if f"{layer}.{name}".lstrip(".") not in adapter.whole:
                delattr(part, name)
                part.register_buffer(name, parameter.detach())
    for layer, pair in adapter.pairs.items():
        part = base.get_submodule(layer)
        turned = not isinstance(part, nn.Linear)
        parametrize.register_parametrization(part, "weight", _Sum(pair, turned=turned))
    return base


@torch.no_grad()
def _closed(made: Model, like: Model) -> Model:
    """Return what was made of an opened model as a network like any other, and its adapter."""
    if like.adapter is None:
        raise ValueError("what was opened has an adapter")
    module, pairs = copy.deepcopy(like.module), {}
    for name, tensor in module.state_dict().items():
        layer, _, leaf = name.rpartition(".")
        tensor.copy_(getattr(made.module.get_submodule(layer), leaf))
    for layer in like.adapter.pairs:
        held = made.module.get_submodule(f"{layer}.parametrizations.weight.0")
        if not isinstance(held, _Sum):
            raise TypeError(f"{layer} is not what was opened")
        m = held.pair.magnitude
        pairs[layer] = replace(
            like.adapter.pairs[layer], a=held.a.detach().cpu(), b=held.b.detach().cpu(),
            magnitude=None if m is None else m.detach().cpu(),
        )  # fmt: skip
    whole = {name: made.module.get_parameter(name).detach().cpu() for name in like.adapter.whole}
    adapter = replace(like.adapter, pairs=pairs, whole=whole)
    return replace(like, module=module.eval(), adapter=adapter)
