"""Numbers that stay on a device: sent there each time, they would make the host wait for it."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=64)
def constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return numbers as a tensor, (n,), which is the same one each time: never write into it."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)
