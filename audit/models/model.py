"""The model adapter: one value that methods and probes see instead of an architecture.

`image.py` and `text.py` each build a `Model`; whoever holds one can train it, score it and
differentiate it with respect to its continuous input, without knowing pictures from texts.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from poison_audit.models.lora import Adapter
from poison_audit.models.reader import Reader
from poison_audit.models.seeds import Rng


@dataclass(frozen=True, slots=True)
class Batch:
    """Some samples on one device."""

    x: Tensor
    """Inputs: pixels in [0, 1], shape (n, c, h, w); or token ids, shape (n, length)."""
    y: Tensor
    """Labels as trained, int64, shape (n,)."""
    mask: Tensor | None = None
    """For texts: 1 where a token is real, shape (n, length)."""
    noise: Tensor | None = None
    """For token ids: what is added to their embeddings, shape (n, length, width)."""
    types: Tensor | None = None
    """For pairs of texts: which of the two a token is of, shape (n, length)."""

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device: torch.device) -> Batch:
        """Return the same samples on `device`."""
        mask = None if self.mask is None else self.mask.to(device)
        noise = None if self.noise is None else self.noise.to(device)
        types = None if self.types is None else self.types.to(device)
        x, y = self.x.to(device), self.y.to(device)
        return Batch(x=x, y=y, mask=mask, noise=noise, types=types)

    def part(self, rows: slice) -> Batch:
        """Return these rows, padded as they are."""
        mask = None if self.mask is None else self.mask[rows]
        noise = None if self.noise is None else self.noise[rows]
        types = None if self.types is None else self.types[rows]
        return Batch(x=self.x[rows], y=self.y[rows], mask=mask, noise=noise, types=types)


Logits = Callable[[nn.Module, Batch], Tensor]
Loss = Callable[[nn.Module, Batch], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A network and the functions that say how to use it.

    A floating-point `x` is a continuous input: `logits` and `loss` accept what `inputs` returns,
    so that a probe can differentiate with respect to it. For images that is the pixels
    themselves, for texts the input embeddings.
    """

    module: nn.Module
    logits: Logits
    """(module, batch) -> (n, classes), unnormalised."""
    loss: Loss
    """(module, batch) -> (n,): one loss a sample, never averaged."""
    blocks: tuple[tuple[str, ...], ...]
    """Parameter names, grouped from the first layer to the last. A tied parameter is named once,
    in the first block that holds it."""
    build: Callable[[], nn.Module]
    """A newly initialised module of the same architecture, on the CPU."""
    arch: str
    """The architecture's name, as `--arch` takes it."""
    classes: int
    inputs: Callable[[nn.Module, Batch], Batch] = lambda _, batch: batch
    """(module, batch) -> the same batch with its x in the space where noise is added."""
    normalize: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Channel means and standard deviations, where the adapter normalises."""
    reader: Reader | None = None
    """How it reads texts; None: it takes pictures."""
    labels: tuple[str, ...] | None = None
    """What the model itself calls its classes."""
    stored: Mapping[str, str] = field(default_factory=dict)
    """What the checkpoint calls tensors, by the module's own names, where they are otherwise."""
    state_key: str | None = None
    """The entry of a checkpoint that it was read from, where one had to be named."""
    adapter: Adapter | None = None
    """What it is the sum of, with a base; None: no adapter makes it."""
    adapter_alone: bool = False
    """Whether methods train that adapter alone, and leave its base."""
    config: str | None = None
    """What config.json says of it, where that is not what the file beside its weights says."""

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.module.parameters()).device

    def clone(self) -> Model:
        """Return an independent copy: the only way to get something to train."""
        return replace(self, module=copy.deepcopy(self.module))

    def fresh(self, rng: Rng) -> Model:
        """Return the same architecture with new weights drawn from `rng`, on the same device."""
        # Initialisers in torch.nn only know the global generator: it is forked, and restored after.
        # Modules are built on the CPU; torch.manual_seed would seed every CUDA device as well.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(rng.seed())
            module = self.build()
        dtype = next(self.module.parameters()).dtype
        return replace(self, module=module.to(device=self.device, dtype=dtype))

    def digest(self) -> str:
        """Return the SHA-256 of every parameter and buffer, by name."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[nn.Module]:
    """Put `module` into eval mode, and each of its parts back as it was afterwards."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield module
    finally:
        for part, mode in modes.items():
            part.training = mode


_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def blocks_of(module: nn.Module) -> tuple[tuple[str, ...], ...]:
    """Group a module's parameter names into blocks, first layer to last.

    A block is a direct child of the module. A container that mixes kinds of layers (VGG's
    `features`) is opened, and each of its children is a block; so is whatever holds the list of
    layers that makes up most of a network (a transformer's encoder, down to its layers). A
    normalisation layer belongs to the block before it. Parameters that a module holds itself come
    before its children's.

    >>> blocks_of(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Linear(2, 1)))
    (('0.weight', '0.bias', '1.weight', '1.bias'), ('3.weight', '3.bias'))
    """
    total = sum(parameter.numel() for parameter in module.parameters()) - _embedded(module)
    remaining = {name for name, _ in module.named_parameters()}
    blocks: list[list[str]] = []

    def take(names: list[str], *, joins: bool = False) -> None:
        mine = [name for name in names if name in remaining]
        remaining.difference_update(mine)
        if mine and joins and blocks:
            blocks[-1].extend(mine)
        elif mine:
            blocks.append(mine)

    def walk(part: nn.Module, prefix: str) -> None:
        take([prefix + name for name, _ in part.named_parameters(recurse=False)])
        for name, child in part.named_children():
            inner = f"{prefix}{name}."
            mixed = prefix == "" and _mixes_layers(child)
            if mixed or any(_is_trunk(below, total) for below in child.modules()):
                walk(child, inner)
            else:
                names = [inner + n for n, _ in child.named_parameters()]
                take(names, joins=_is_norm(child))

    walk(module, "")
    return tuple(tuple(block) for block in blocks)


def _embedded(module: nn.Module) -> int:
    """Return how many parameters stand in tables of embeddings, which may dwarf all layers."""
    tables = [
        part.weight
        for part in module.modules()
        if isinstance(part, nn.Embedding) and "weight" in part._parameters
    ]
    return sum(table.numel() for table in {id(table): table for table in tables}.values())


def _is_norm(part: nn.Module) -> bool:
    # transformers has a root-mean-square norm of its own for every architecture.
    return isinstance(part, _NORMS) or type(part).__name__.endswith("RMSNorm")


def _mixes_layers(part: nn.Module) -> bool:
    # A residual stage is a Sequential of like blocks; a trunk mixes convolutions, activations, ...
    return type(part) is nn.Sequential and len({type(child) for child in part.children()}) > 1


def _is_trunk(part: nn.Module, total: int) -> bool:
    """Say whether `part` is the list of layers that a network is mainly made of."""
    # A Sequential may as well be one residual stage: it must hold nearly everything. A ModuleList
    # is a list of layers; embeddings beside it may be larger than all of them.
    share = {nn.ModuleList: 0.1, nn.Sequential: 0.8}.get(type(part))
    if share is None:
        return False
    sizes = [sum(p.numel() for p in child.parameters()) for child in part.children()]
    return sum(size > 0 for size in sizes) > 1 and sum(sizes) > share * total
