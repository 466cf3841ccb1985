"""Phrases in texts: the trigger's controls, and how both are put on.

A stamped text is tokenised as a whole, as training saw it. A control differs from it in the tokens
of the phrase alone: each is another token, drawn from those nearest in frequency among the retain
texts, and of the same kind (one that begins a word, or one that goes on with it). So controls have
the trigger's length in tokens, its place and its rarity.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audit.data.phrase import Phrase
from audit.data.samples import Samples
from audit.models.model import Batch
from audit.models.reader import PLACE, Reader
from audit.probes.stamps import Stamps
from audit.seeds import Rng

NEAREST = 500
"""Tokens nearest in frequency, of which a control's are drawn."""


def phrase_stamps(
    phrase: Phrase, reader: Reader, inputs: Samples, retain: Samples, draws: int, rng: Rng
) -> Stamps | None:
    """Return the trigger and its controls, to be put on texts; None where it never fits.

    Args:
        phrase: the trigger.
        reader: of the model.
        inputs: what they are put on.
        retain: the texts in which tokens are counted.
        draws: controls wanted.
        rng: decides which.
    """
    if inputs.texts is None or retain.mask is None:
        raise ValueError("a phrase is put on texts")
    stamped = reader.read([phrase.on(text) for text in inputs.texts])
    spans = [
        _span(phrase, reader, text, row)
        for text, row in zip(inputs.texts, stamped.x.tolist(), strict=True)
    ]
    runs = Counter(span[1] for span in spans if span is not None)
    if not runs:
        return None
    # A word may be split otherwise beside another one: such inputs are few, and left out.
    run = runs.most_common(1)[0][0]
    fits = [place for place, span in enumerate(spans) if span is not None and span[1] == run]
    starts = torch.tensor([span[0] if span else 0 for span in spans])
    counts = torch.bincount(retain.x[retain.mask.bool()].cpu(), minlength=len(reader.tokenizer))
    tokens = torch.tensor([run, *draw_controls(run, reader.tokenizer, counts.numpy(), draws, rng)])
    offsets = torch.arange(len(run))

    def batch(which: Tensor, places: Tensor) -> Batch:
        x, mask = stamped.x[places], stamped.mask[places]
        x[torch.arange(len(x))[:, None], starts[places][:, None] + offsets] = tokens[which]
        longest = int(mask.sum(1).max())
        device = inputs.x.device
        y = inputs.y[places.to(device)]
        return Batch(x=x[:, :longest].to(device), y=y, mask=mask[:, :longest].to(device))

    return Stamps(triggers=len(tokens), inputs=torch.tensor(fits), batch=batch, controls="tokens")


def draw_controls(
    run: Sequence[int], tokenizer: Any, counts: NDArray[Any], draws: int, rng: Rng
) -> list[tuple[int, ...]]:
    """Draw control phrases, all different and none the trigger itself, at most `draws`.

    Args:
        run: the trigger's tokens.
        tokenizer: says which tokens are special, and of which kind the others are.
        counts: of each token in the retain texts.
        draws: controls wanted; all there are, if they are fewer.
        rng: decides which.
    """
    generator = rng.named("controls").numpy()
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    kinds = np.array([_kind(name) for name in names])
    usable = np.ones(len(names), dtype=bool)
    usable[[*tokenizer.all_special_ids, *run]] = False
    logs = np.log1p(counts[: len(names)])
    pools = []
    for token in run:
        pool = np.flatnonzero(usable & (kinds == kinds[token]))
        # Where many are as near, chance decides: low numbers are frequent tokens.
        pool = generator.permutation(pool)
        pools.append(pool[np.argsort(abs(logs[pool] - logs[token]), kind="stable")[:NEAREST]])
    most = float(np.prod([float(len(pool)) for pool in pools]))
    found: dict[tuple[int, ...], None] = {}
    while len(found) < min(draws, most):
        found[tuple(int(generator.choice(pool)) for pool in pools)] = None
    return list(found)


def _kind(name: str | None) -> str:
    """Return how a token stands to the word before it, by its tokenizer's mark."""
    text = name or ""
    return next((mark for mark in ("Ġ", "▁", "##") if text.startswith(mark)), "")


def _span(
    phrase: Phrase, reader: Reader, text: str, row: Sequence[int]
) -> tuple[int, tuple[int, ...]] | None:
    """Return where the phrase's tokens begin in a stamped row, and which they are.

    None where they were cut off.
    """
    before = "" if phrase.position == "start" else f"{text} "
    start = reader.prompt.index(PLACE) + len(before)
    whole = reader.prompt.replace(PLACE, phrase.on(text))
    read = reader.tokenizer(whole, return_offsets_mapping=True, verbose=False)
    places = [
        place
        for place, (first, last) in enumerate(read["offset_mapping"])
        if first < start + len(phrase.text) and last > start
    ]
    run = tuple(read["input_ids"][place] for place in places)
    for place in (places[0], *range(len(row) - len(run), -1, -1)):
        if tuple(row[place : place + len(run)]) == run:
            return place, run
    return None
