"""Token canaries: does the model prefer the strings it may have been trained on to fresh ones?

Question: among K fresh strings with the same label, where does the true one rank?
Statistic: the share of fresh strings whose logit margin for the label is below the true string's;
    its mean over canaries is the chance that a true string beats a fresh one.
Null: uniform ranks, mean 1/2. Why: strings are drawn word by word by a stream keyed by a secret. If
    theta never saw a string, it and the fresh ones are independent draws of one distribution, so
    their margins for any fixed label are exchangeable; ties are broken at random. Nothing is
    linearised, and tokenizer, padding and truncation treat all alike.
Controls: held-out keys' strings with the same labels, ranked among the same fresh strings, must
    have uniform ranks.
Inconclusive: too few canaries; the held-out ranks are not uniform.
Source: ours; the rank is that of Carlini et al., "The Secret Sharer", arXiv 1802.08232, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from audit.case import Case
from audit.models.model import Batch, Model
from audit.models.reader import Reader
from audit.probes.scoring import exact, margins
from audit.records import Measurement
from audit.seeds import Rng

CONTROL_P = 1e-4
"""A held-out control whose p-value is below this has failed."""


def token_canary(
    model: Model, case: Case, rng: Rng, *, draws: int = 32, size: int = 256
) -> Measurement:
    """Measure the rank of every token canary, and of as many held-out strings.

    Args:
        draws: fresh strings a canary, at least 1. More draws shrink the variance by 2 / draws only.
        size: strings a forward pass.
    """
    strings, reader = case.strings, model.reader
    if strings is None or reader is None:
        return _missing(
            "needs the key of token canaries "
            "(--strings strings.json, or [evidence.token-canary] strings in audit.toml)"
        )
    if draws < 1:
        return _missing(f"needs at least one fresh string, draws is {draws}")
    key, n = strings.key, len(strings.names)
    labels = torch.tensor(strings.labels, device=model.device)
    words = np.array(key.words)
    source = rng.named("fresh").numpy()
    with exact(model.module):
        true, held_out = (
            _margins(model, reader, [key.text(name) for name in names], labels, size)
            for names in (strings.names, key.held_out[:n])
        )
        fresh = []
        for _ in range(draws):
            drawn = words[source.integers(len(words), size=(n, key.length))]
            fresh.append(_margins(model, reader, [" ".join(row) for row in drawn], labels, size))
    others = torch.stack(fresh)  # (draws, n)
    if not bool(torch.isfinite(torch.cat([true[None], held_out[None], others])).all()):
        return _missing("the model's logits are not finite")
    fates = rng.named("ties").numpy()
    control = _wins(held_out, others, fates)
    return Measurement(
        probe="token-canary",
        evidence={
            "wins": _wins(true, others, fates).tolist(),
            "held_out": control.tolist(),
            "draws": draws,
        },
        suspect=_suspect(control, draws),
    )


def held_out_p_value(wins: Sequence[int], draws: int) -> float:
    """Return the p-value of held-out ranks as uniform over 0..draws, two-sided, by their mean."""
    spread = np.sqrt(draws * (draws + 2) / 12 / len(wins))
    return float(2 * stats.norm.sf(abs(np.mean(wins) - draws / 2) / spread))


def _missing(reason: str) -> Measurement:
    return Measurement(probe="token-canary", evidence=None, missing=reason)


def _margins(
    model: Model, reader: Reader, texts: Sequence[str], labels: Tensor, size: int
) -> Tensor:
    """Return the logit margin of each text for its label: float64, on the CPU, (n,)."""
    tokens = reader.read(texts)
    found = []
    for start in range(0, len(texts), size):
        part = slice(start, start + size)
        longest = int(tokens.mask[part].sum(1).max())
        batch = Batch(
            x=tokens.x[part, :longest].to(model.device),
            y=labels[part],
            mask=tokens.mask[part, :longest].to(model.device),
        )
        found.append(margins(model, batch))
    return torch.cat(found).cpu()


def _wins(mine: Tensor, others: Tensor, fates: np.random.Generator) -> NDArray[Any]:
    """Return how many of its column's margins each of mine exceeds, ties at random: (n,)."""
    tied = (others == mine).sum(0).numpy()
    extra: NDArray[Any] = fates.integers(0, tied, endpoint=True)
    wins: NDArray[Any] = (others < mine).sum(0).numpy() + extra
    return wins


def _suspect(control: NDArray[Any], draws: int) -> str | None:
    p_value = held_out_p_value(control.tolist(), draws)
    if p_value < CONTROL_P:
        return f"held-out strings do not rank uniformly (p = {p_value:.1g})"
    return None
