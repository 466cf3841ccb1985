"""What stands around a network in its tensors' names, and what lies beside it in a checkpoint."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from poison_audit.models.heads import joined

_PREFIXES = ("module.", "_orig_mod.", "model.", "_module.")
"""Of DataParallel, torch.compile, Lightning and Opacus."""
_INSIDE = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What torch.compile, FSDP and activation checkpointing put before the names of a part."""
_COUNTERS = ("n_averaged", "total_ops", "total_params")
"""Of torch's AveragedModel; of thop, in every layer. No forward pass reads them."""
_LOSSES = ("criterion", "loss", "loss_fn", "loss_func", "loss_function", "train_loss", "val_loss")
"""What Lightning modules call their loss, whose tensors, such as class weights, answer nothing."""
_PAIRS = (("mean", "std"), ("_mean", "_std"), ("mu", "sigma"), ("new_mean", "new_std"),
          ("image_mean", "image_std"), ("pixel_mean", "pixel_std"))  # fmt: skip
"""What layers that normalise pictures call their buffers."""
_CHANNELS = (1, 3, 4)


def wrapper_prefix(names: Collection[str]) -> str:
    """Return what DataParallel, torch.compile, Lightning and Opacus put before all of `names`.

    >>> wrapper_prefix(["module._orig_mod.fc.weight", "module._orig_mod.fc.bias"])
    'module._orig_mod.'
    >>> wrapper_prefix(["module.fc.weight", "fc.bias"])
    ''
    """
    return _repeated(names, _PREFIXES)


def shared_prefix(names: Collection[str]) -> str:
    """Return the first parts that all of `names` share, whoever put them there.

    >>> shared_prefix(["net.encoder.conv.weight", "net.encoder.fc.weight"])
    'net.encoder.'
    >>> shared_prefix(["conv.weight", "fc.weight"])
    ''
    """
    first = next(iter(names), "")
    parts = [f"{part}." for part in first.split(".")[:-1]]
    prefix = ""
    for part in parts:
        longer = prefix + part
        if not all(name.startswith(longer) and name != longer for name in names):
            break
        prefix = longer
    return prefix


def _repeated(names: Collection[str], wrappers: Iterable[str]) -> str:
    prefix = ""
    while names:
        longer = [
            prefix + wrapper
            for wrapper in wrappers
            if all(name.startswith(prefix + wrapper) for name in names)
        ]
        if not longer or longer[0] in names:
            break
        prefix = longer[0]
    return prefix


def unwrapped(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return tensors by the names that the network itself gives them, and what was changed.

    Counters that no forward pass reads are left out.
    """
    notes = []
    counters = [name for name in tensors if name.rpartition(".")[2] in _COUNTERS]
    left = {name: tensor for name, tensor in tensors.items() if name not in counters}
    if counters and left:
        notes.append(f"{len(counters)} counters were left out, such as {counters[0]}")
    else:
        left = dict(tensors)
    short = bare_names(left)
    if prefix := wrapper_prefix(left):
        notes.append(f"the prefix {prefix!r} was taken off every tensor's name")
    if any(not name.endswith(bare) for name, bare in short.items()):
        notes.append("what torch.compile or FSDP put into names was taken out of them")
    return {short[name]: tensor for name, tensor in left.items()}, tuple(notes)


def bare_names(names: Collection[str]) -> dict[str, str]:
    """Return the names that the network itself gives its tensors, by those in `names`.

    >>> bare_names(["module.a._orig_mod.weight", "module.b.weight"])
    {'module.a._orig_mod.weight': 'a.weight', 'module.b.weight': 'b.weight'}
    """
    prefix = wrapper_prefix(names)
    bare = {name: name.removeprefix(prefix) for name in names}
    short = {name: _without(there) for name, there in bare.items()}
    return short if len(set(short.values())) == len(bare) else bare


def _without(name: str) -> str:
    for wrapper in _INSIDE:
        name = name.replace(wrapper, "")
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    """A network of pictures, taken out of what stands around it."""

    tensors: Mapping[str, Tensor]
    normalize: tuple[tuple[float, ...], tuple[float, ...]] | None
    """What a layer before it subtracts and divides by, in [0, 1] pixels; None: there is none."""
    holder: str
    """The names of that layer's tensors; empty: there is none."""
    notes: tuple[str, ...]


def inner(tensors: Mapping[str, Tensor]) -> Inner:
    """Take a network of pictures out of any single prefix, a layer that normalises, and a loss.

    What is left out is told. What else lies beside the network stays, and will have no place.
    """
    left, notes = dict(tensors), list[str]()
    normalize, holder, taken = None, "", ""
    while True:
        losses = [name for name in left if name.partition(".")[0] in _LOSSES]
        if losses and len(losses) < len(left):
            notes.append(f"tensors of a loss were left out: {', '.join(sorted(losses)[:3])}")
            left = {name: tensor for name, tensor in left.items() if name not in losses}
        if normalize is None and (pair := _pair(left)):
            mean, std = pair
            normalize = _in_pixels(left.pop(mean), left.pop(std))
            holder = f"{taken}{mean}, {taken}{std}"
            notes.append(f"{holder} are taken for the normalisation")
        prefix = shared_prefix(left)
        if not prefix:
            left, told = joined(left)
            notes += [told] if told else []
            return Inner(tensors=left, normalize=normalize, holder=holder, notes=tuple(notes))
        prefix = prefix.partition(".")[0] + "."
        taken += prefix
        left = {name.removeprefix(prefix): tensor for name, tensor in left.items()}
        notes.append(f"the prefix {prefix!r} was taken off every tensor's name")


def _pair(tensors: Mapping[str, Tensor]) -> tuple[str, str] | None:
    """Return the names of a layer's mean and standard deviation, if one may normalise pictures."""
    for name in tensors:
        head, dot, last = name.rpartition(".")
        if "." in head:
            continue
        for mean, std in _PAIRS:
            other = f"{head}{dot}{std}"
            if last == mean and other in tensors and _normalises(tensors[name], tensors[other]):
                return name, other
    return None


def _normalises(mean: Tensor, std: Tensor) -> bool:
    sizes = mean.numel() == std.numel() and mean.numel() in _CHANNELS
    return sizes and bool((mean >= 0).all() and (mean <= 255).all() and (std > 0).all())


def _in_pixels(mean: Tensor, std: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    # Means above 1 are of 8-bit values. Seven digits are what float32 held of what was typed.
    white = 255.0 if bool((mean > 1).any()) else 1.0
    means, stds = (
        tuple(float(f"{value / white:.7g}") for value in tensor.double().flatten().tolist())
        for tensor in (mean, std)
    )
    return means, stds
