"""What a method may spend, and where a descent stood, so that it can go on from there."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")

FORWARD = 1 / 3
"""Cost of a forward pass in gradient evaluations: a backward pass costs about two forwards."""


@dataclass
class Ledger:
    """What a method may spend, in gradient evaluations (one sample, forward and backward)."""

    allowed: float | None = None
    """None: no bound."""
    spent: float = 0.0
    losses: list[Tensor] = field(default_factory=list)
    offloaded: bool = False
    """Whether memory gave out, and steps keep in main memory what their backward pass needs."""
    trail: Trail | None = field(default=None, repr=False)
    """None: nothing is taken over from a smaller budget."""
    reused: float = 0.0
    """Of what was spent, how much a smaller budget's run had computed already."""
    tell: Callable[[float], object] = field(default=lambda spent: None, repr=False)
    """Called with what is spent, whenever it grows."""

    def steps(self, cost: float) -> int:
        """Return how many steps of this cost still fit."""
        if self.allowed is None:
            raise ValueError("a ledger without a bound cannot say how many steps fit")
        # The relative slack forgives rounding in a sum of thirds, never a whole evaluation.
        return max(0, math.floor((self.allowed - self.spent) / cost * (1 + 1e-12)))

    def charge(self, cost: float) -> None:
        """Record `cost` gradient evaluations as spent."""
        self.spent += cost
        self.tell(self.spent)

    def once(self, key: Hashable, cost: float, compute: Callable[[], T]) -> T:
        """Return `compute()`, which costs `cost`; what a smaller budget's run computed is kept."""
        self.charge(cost)
        if self.trail is None:
            return compute()
        if key in self.trail.known:
            self.reused += cost
        else:
            self.trail.known[key] = compute()
        result: T = self.trail.known[key]
        return result

    def curve(self, points: int = 200) -> tuple[float, ...]:
        """Return the losses, evenly thinned to at most `points`."""
        stride = max(1, math.ceil(len(self.losses) / points))
        return tuple(float(loss) for loss in self.losses[::stride])


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that the rest of a descent depends on, besides its arguments."""

    step: int
    """Steps done."""
    tensors: Mapping[str, Tensor]
    """Parameters, buffers, the optimiser's state, generators and the ledger, on the CPU."""

    @property
    def spent(self) -> float:
        """Gradient evaluations spent by then."""
        return float(self.tensors["ledger.spent"])


Watch = Callable[[int, Callable[[], Snapshot]], None]
"""(steps done, what takes a snapshot of them), called after every step."""


@dataclass(slots=True)
class Trail:
    """Where the run of a method under a smaller budget stood, so that a larger one goes on there.

    It belongs to one case, method, parameters and seed; what else decides a descent is its key.
    Going on gives the same bits as starting anew. It holds one snapshot: a method of several
    descents starts anew.
    """

    key: Hashable = None
    """Of the descent that ended last."""
    end: Snapshot | None = None
    """Where it ended."""
    known: dict[Hashable, Any] = field(default_factory=dict)
    """What was computed once."""


def _places(module: nn.Module) -> dict[str, Tensor]:
    return {
        **{f"parameter.{name}": tensor for name, tensor in module.named_parameters()},
        **{f"buffer.{name}": tensor for name, tensor in module.named_buffers()},
    }


def take_snapshot(
    step: int,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    generators: Mapping[str, torch.Generator],
    ledger: Ledger,
    more: Mapping[str, Tensor],
) -> Snapshot:
    """Return where a descent stands; `more` tensors of it go along."""
    tensors = {
        **_places(module),
        **more,
        "ledger.losses": torch.stack(ledger.losses),
        "ledger.spent": torch.tensor(ledger.spent, dtype=torch.float64),
        **{f"generator.{name}": source.get_state() for name, source in generators.items()},
    }
    for number, values in optimiser.state_dict()["state"].items():
        for key, value in values.items():
            if value is not None:
                tensors[f"optimizer.{number}.{key}"] = value
    copies = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
    return Snapshot(step=step, tensors=copies)


@torch.no_grad()
def restore(
    start: Snapshot,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    generators: Mapping[str, torch.Generator],
    ledger: Ledger,
    more: Mapping[str, Tensor],
) -> None:
    """Put a descent back to where it stood."""
    for name, place in {**_places(module), **more}.items():
        place.copy_(start.tensors[name])
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in start.tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            number, _, key = rest.partition(".")
            # The optimiser keeps what it is given, and writes into it.
            state.setdefault(int(number), {})[key] = tensor.clone()
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    for name, source in generators.items():
        source.set_state(start.tensors[f"generator.{name}"])
    ledger.spent = start.spent
    ledger.losses = list(start.tensors["ledger.losses"].to(next(module.parameters()).device))
