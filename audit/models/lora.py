"""LoRA: a network that is its base and, in some layers, a product of two thin matrices.

    W = W0 + s B A,    s = alpha / r, or alpha / sqrt(r) (rsLoRA)
    W = m (W0 + s B A) / |W0 + s B A|, for each output (DoRA)

A is (r, inputs), B (outputs, r), m (outputs). What an adapter holds whole stands in its place.

Source: Hu et al. 2021, arXiv:2106.09685; Kalajdzievski 2023, arXiv:2312.03732; Liu et al. 2024,
arXiv:2402.09353.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from poison_audit.errors import Problem, Problems, some
from poison_audit.records import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What an adapter adds to one layer."""

    a: Tensor
    """(r, inputs), float32."""
    b: Tensor
    """(outputs, r), float32."""
    scale: float
    """s."""
    magnitude: Tensor | None = None
    """m of DoRA, (outputs,), float32; None: it is a plain LoRA."""
    embedding: bool = False
    """Whether the layer is one, whose matrices PEFT calls otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """An adapter as it was read, and the base that it belongs to."""

    config: Mapping[str, Json]
    """adapter_config.json."""
    pairs: Mapping[str, Pair]
    """By the layer's name in the network."""
    whole: Mapping[str, Tensor]
    """Tensors that it holds whole, such as a new head, by their names in the network."""
    files: tuple[Path, Path]
    """adapter_config.json and the weights."""
    config_sha256: str
    base: Path
    """The checkpoint that it was trained on: a folder or a file."""
    base_sha256: str
    """Of the base's file; of shards, over the lines `name sha256`."""
    pickles: bool = False
    """Whether pickles may be read."""

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.files[0].parent


def summed(weight: Tensor, pair: Pair, *, turned: bool) -> Tensor:
    """Return W of a layer.

    Args:
        weight: W0, (outputs, inputs), or (inputs, outputs) where it is `turned`.
        turned: whether the layer stores it the other way round, as GPT-2's Conv1D and embeddings.
    """
    added = pair.b @ pair.a
    whole: Tensor = weight + (added.T if turned else added) * pair.scale
    if pair.magnitude is None:
        return whole
    # Of DoRA's norm no gradient is taken (section 4.3 of its paper).
    norm = torch.linalg.norm(whole.detach(), dim=0 if turned else 1)
    factor: Tensor = pair.magnitude / norm
    return whole * (factor if turned else factor[:, None])


def merge(module: nn.Module, adapter: Adapter) -> None:
    """Make a base the network that an adapter makes of it, in place.

    Raises:
        InputError: everything of the adapter that has no place in the network.
    """
    turned = _places(module, adapter)
    parameters = dict(module.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        # First what is whole: it may be the base's own W0 of an embedding.
        for name, tensor in adapter.whole.items():
            parameters[name].copy_(tensor)
        for layer, pair in adapter.pairs.items():
            weight = parameters[f"{layer}.weight"]
            weight.copy_(summed(weight, pair, turned=turned[layer]))


def _places(module: nn.Module, adapter: Adapter) -> dict[str, bool]:
    """Return of each layer whether its weight is stored the other way round."""
    from transformers.pytorch_utils import Conv1D

    where = str(adapter.files[1])
    problems, turned = Problems(), dict[str, bool]()
    own = dict(module.named_parameters(remove_duplicate=False))
    layers = dict(module.named_modules())
    lacking = [name for name in adapter.pairs if name not in layers]
    lacking += [name for name in adapter.whole if name not in own]
    if lacking:
        what = f"adapts what its base does not have: {some(sorted(lacking))}"
        problems.append(Problem(what, where, "Is it the adapter's base?"))
    ties: dict[int, int] = {}
    for parameter in own.values():
        ties[id(parameter)] = ties.get(id(parameter), 0) + 1
    for name, pair in adapter.pairs.items():
        if (part := layers.get(name)) is None:
            continue
        kinds = (nn.Linear, nn.Embedding, Conv1D)
        if not isinstance(part, kinds):
            what = f"adapts {name}, a {type(part).__name__}"
            fix = "Only linear layers and embeddings are: merge it by merge_and_unload()."
            problems.append(Problem(what, where, fix))
            continue
        turned[name] = not isinstance(part, nn.Linear)
        shape = (pair.b.shape[0], pair.a.shape[1])
        if tuple(part.weight.shape) != (shape[::-1] if turned[name] else shape):
            theirs = tuple(part.weight.shape)
            what = f"adapts {name} as if it were {shape}, and in the base it is {theirs}"
            problems.append(Problem(what, where, "Is it the adapter's base?"))
        problems += _tied(f"{name}.weight", ties[id(part.weight)], where)
    for name, tensor in adapter.whole.items():
        if name in own and own[name].shape != tensor.shape:
            theirs, ours = tuple(own[name].shape), tuple(tensor.shape)
            what = f"holds {name} as {ours}, and in the base it is {theirs}"
            problems.append(Problem(what, where, "Is it the adapter's base?"))
        elif name in own and not torch.equal(own[name], tensor):
            problems += _tied(name, ties[id(own[name])], where)
    problems.raise_any()
    return turned


def _tied(name: str, count: int, where: str) -> list[Problem]:
    """Refuse a tensor that the base uses twice: the adapter changes one of the two uses."""
    if count < 2:
        return []
    what = f"changes {name}, which the base uses in two places, in one of them"
    return [Problem(what, where, "Untie it, merge it by merge_and_unload(), and save that.")]
