"""Which of their kernels cuDNN and cuBLAS may take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def reproducible() -> Iterator[None]:
    """Take kernels that add in a fixed order, and multiply float32 as float32, without TF32.

    Whatever else is done inside keeps to it, or goes back to it: `torch.backends.cudnn.flags` by
    itself resets what it is not told.
    """
    matmul = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul
