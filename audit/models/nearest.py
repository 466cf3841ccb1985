"""Which architecture a checkpoint's tensors nearly fit, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from poison_audit.models.identify import canonical, expected_of, relatives

_FAR = 0.4
"""A network of which more than this share of tensors is otherwise is another network."""
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Difference:
    """What a checkpoint's tensors have otherwise than an architecture's."""

    arch: str
    missing: tuple[str, ...]
    more: tuple[str, ...]
    reshaped: tuple[str, ...]
    """`name (shape, not shape)`."""

    @property
    def size(self) -> int:
        """The number of tensors that are otherwise."""
        return len(self.missing) + len(self.more) + len(self.reshaped)


def nearest(tensors: Mapping[str, Tensor]) -> str | None:
    """Return what a checkpoint looks like, and what it has otherwise; None: it looks like nothing.

    Args:
        tensors: fit no architecture. Only names and shapes are read.
    """
    tensors = canonical(tensors)
    found = [_difference(name, tensors) for name in relatives(tensors)]
    best = min(found, key=lambda one: one.size, default=None)
    if best is None or best.size > _FAR * len(tensors):
        return None
    parts = [
        _stem(best, tensors),
        _told(_counted(best.missing, "less"), best.missing),
        _told(_counted(best.more, "more"), best.more),
        _told("other shapes", [one for one in best.reshaped if not one.startswith("conv1.weight")]),
    ]
    return f"{best.arch} with {', and '.join(part for part in parts if part)}"


def _difference(name: str, tensors: Mapping[str, Tensor]) -> Difference:
    expected = expected_of(name, tensors)
    return Difference(
        arch=name,
        missing=tuple(
            key
            for key in expected
            if key not in tensors and not key.endswith("num_batches_tracked")
        ),
        more=tuple(key for key in tensors if key not in expected),
        reshaped=tuple(
            f"{key} ({tuple(tensors[key].shape)}, not {tuple(expected[key].shape)})"
            for key in expected
            if key in tensors and tensors[key].shape != expected[key].shape
        ),
    )


def _stem(best: Difference, tensors: Mapping[str, Tensor]) -> str:
    """Return what is said of a first convolution that is otherwise."""
    if not any(one.startswith("conv1.weight") for one in best.reshaped):
        return ""
    shape = tensors["conv1.weight"].shape
    if len(shape) != 4:
        return f"conv1.weight of shape {tuple(shape)}"
    return f"a {shape[2]}x{shape[3]} stem of {shape[1]} channels"


def _counted(names: Sequence[str], what: str) -> str:
    return f"{len(names)} tensor{'' if len(names) == 1 else 's'} {what}"


def _told(what: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    shown = ", ".join(sorted(names)[:_SHOWN])
    return f"{what}: {shown}{', ...' if len(names) > _SHOWN else ''}"
