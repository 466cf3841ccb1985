"""An exponential average of the weights along a descent, which often does better than its end."""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn

from poison_audit.training.sharding import own_shard


class Average:
    """The average of a network's parameters and of BatchNorm's statistics after each step.

        a <- w in the first step;   a <- decay * a + (1 - decay) * w in every other

    As torch.optim.swa_utils.AveragedModel has it with get_ema_multi_avg_fn and use_buffers, for
    parameters and for buffers of floating point. Counters stay those of the last step. With a decay
    of 0 nothing is kept: the weights are those of the last step.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        own = chain(module.named_parameters(), module.named_buffers())
        named = {name: own_shard(tensor.detach()) for name, tensor in own}
        kept = named.items() if decay else ()
        self._now = {name: each for name, each in kept if each.is_floating_point()}
        self._decay = decay
        self.tensors = {f"average.{name}": each.clone() for name, each in self._now.items()}
        """By name: all that going on later needs."""

    @torch.no_grad()
    def take(self, step: int) -> None:
        """Take in the weights after so many steps."""
        weight = 1.0 if step == 1 else 1 - self._decay
        if self.tensors:
            torch._foreach_lerp_(list(self.tensors.values()), list(self._now.values()), weight)

    @torch.no_grad()
    def put(self) -> None:
        """Put the averages in the place of the weights."""
        for now, average in zip(self._now.values(), self.tensors.values(), strict=True):
            now.copy_(average)
