"""targets.csv: the test samples that a targeted attack was to have misclassified, and as what."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from audit.data.samples import Samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Test samples that a targeted attack was to have misclassified."""

    samples: Samples
    """Clean, with their true labels; ids are those of the test table."""
    adversarial: Tensor
    """The label each was to be given, never its true one: int64, (n,)."""

    def __len__(self) -> int:
        return len(self.samples)

    def to(self, device: torch.device | str) -> Targets:
        """Return the same targets on `device`."""
        return replace(
            self, samples=self.samples.to(device), adversarial=self.adversarial.to(device)
        )
