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
Inconclusive: too few canaries; the held-out ranks are not uniform. Not measured: the model reads
    most fresh strings as it reads the true one (its tokenizer does not know their words), so that
    chance alone would rank them.
Source: ours; the rank is that of Carlini et al., "The Secret Sharer", arXiv 1802.08232, section 4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from poison_audit.case.case import Case
from poison_audit.models.model import Batch, Model
from poison_audit.models.reader import Tokens
from poison_audit.models.seeds import Rng
from poison_audit.poisons.gaussian.exposure import wins
from poison_audit.poisons.token_canary.trial import planted_strings
from poison_audit.records import Measurement
from poison_audit.statistics import estimates
from poison_audit.training.scoring import exact, margins

CONTROL_P = 1e-4
"""A held-out control whose p-value is below this has failed."""
MOST_ALIKE = 0.5
"""Largest share of fresh strings that may have the same tokens as the true one."""


def token_canary(
    model: Model, case: Case, rng: Rng, *, draws: int = 32, size: int = 256
) -> Measurement:
    """Measure the rank of every token canary, and of as many held-out strings.

    Args:
        draws: fresh strings a canary, at least 1. More draws shrink the variance by 2 / draws only.
        size: strings a forward pass.
    """
    strings, reader = planted_strings(case), model.reader
    if strings is None or reader is None:
        return _missing(
            "needs the key of token canaries "
            "(--strings strings.json, or [evidence.token-canary] strings in audit.toml)"
        )
    if draws < 1:
        return _missing(f"needs at least one fresh string, draws is {draws}")
    key, n = strings.key, len(strings.names)
    labels = torch.tensor(strings.labels, device=model.device)
    source = rng.named("fresh").numpy()
    planted, unseen = (
        reader.read([key.text(name) for name in names])
        for names in (strings.names, key.held_out[:n])
    )
    fresh, alike = [], 0
    with exact(model.module):
        true, held_out = (_margins(model, read, labels, size) for read in (planted, unseen))
        for _ in range(draws):
            # Strings of the key's words and length that no secret is behind.
            drawn = source.integers(len(key.words), size=(n, key.length)).tolist()
            read = reader.read([" ".join(key.words[place] for place in row) for row in drawn])
            fresh.append(_margins(model, read, labels, size))
            alike += _alike(planted, read)
    share = alike / (n * draws)
    if share > MOST_ALIKE:
        return _missing(
            "needs strings that the model can tell apart, but its tokenizer makes the same tokens "
            f"of the planted string and of {100 * share:.0f}% of the fresh ones"
        )
    return _ranked(true, held_out, torch.stack(fresh), rng.named("ties"))


def _ranked(true: Tensor, held_out: Tensor, others: Tensor, rng: Rng) -> Measurement:
    """Rank margins of planted and of held-out strings, (n,), among fresh ones', (draws, n)."""
    if not bool(torch.isfinite(torch.cat([true[None], held_out[None], others])).all()):
        return _missing("the model's logits are not finite")
    fates, draws = rng.numpy(), len(others)
    control = wins(held_out, others, fates)
    p_value = estimates.rank_sum_p_value(int(control.sum()), len(control), draws)
    suspect = f"held-out strings do not rank uniformly (p = {p_value:.1g})"
    return Measurement(
        probe="token-canary",
        evidence={
            "wins": wins(true, others, fates).tolist(),
            "held_out": control.tolist(),
            "draws": draws,
        },
        suspect=suspect if p_value < CONTROL_P else None,
    )


def _missing(reason: str) -> Measurement:
    return Measurement(probe="token-canary", evidence=None, missing=reason)


def _margins(model: Model, read: Tokens, labels: Tensor, size: int) -> Tensor:
    """Return the logit margin of each text for its label: float64, on the CPU, (n,)."""
    found = []
    for start in range(0, len(read.x), size):
        part = slice(start, start + size)
        longest = max(1, int(read.mask[part].sum(1).max()))
        batch = Batch(
            x=read.x[part, :longest].to(model.device),
            y=labels[part],
            mask=read.mask[part, :longest].to(model.device),
        )
        found.append(margins(model, batch))
    return torch.cat(found).cpu()


def _alike(first: Tokens, second: Tokens) -> int:
    """Return how many rows hold the same tokens in both."""
    width = min(first.x.shape[1], second.x.shape[1])
    as_long = first.mask.sum(1) == second.mask.sum(1)
    return int((as_long & (first.x[:, :width] == second.x[:, :width]).all(1)).sum())
