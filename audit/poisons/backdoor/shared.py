"""Do the forget samples share more than the trigger that is given, so that it is but a part?

A model that learned a patch of nine pixels need not obey one of them: with a part of the trigger a
live backdoor would pass. What stands in every sample that carries the part, and in few others, is
the rest of it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import bdtrc

from poison_audit.case.doubts import Doubt
from poison_audit.case.exhibits import spread
from poison_audit.models.samples import Samples
from poison_audit.poisons.backdoor.evidence import Trigger
from poison_audit.poisons.backdoor.phrase import Phrase

MOST = 2000
"""Samples of either kind that are looked at."""
ALIKE = 1.5 / 255
"""Largest difference of two values that count as the same: a step of 8 bits."""
SHARE = 0.8
"""Of the samples that carry the trigger, so many have to share a thing: some carry it by chance."""
CHANCE = 1e-6
"""Smallest probability that chance is given, over all values or words that are looked at."""
STEP = "Write the whole trigger into trigger.json, and audit again."


def doubts_of_part(
    trigger: Trigger | Phrase, train: Samples, carrying: Sequence[int], retain: Sequence[int]
) -> list[Doubt]:
    """Return why a trigger may be a part of the one that was planted.

    Args:
        trigger: as it is given.
        train: the training table.
        carrying: places of the forget samples that carry it.
        retain: places of the samples that are no forget samples.
    """
    if not carrying or not retain:
        return []
    rows, others = (train.at(spread(sorted(places), MOST)) for places in (carrying, retain))
    if isinstance(trigger, Phrase):
        texts, usual_texts = rows.texts or (), others.texts or ()
        return [doubt for piece in trigger.pieces for doubt in _beside(piece, texts, usual_texts)]
    if trigger.anywhere:  # what carriers share stands elsewhere in each
        return []
    x, y = rows.batch().x.cpu(), others.y.cpu()
    # Copies of one picture share all that it shows.
    x = torch.from_numpy(np.unique(x.numpy(), axis=0))
    middle = x.median(0).values
    held = ((x - middle).abs() <= ALIKE).sum(0).numpy()
    same = ((others.batch().x.cpu() - middle).abs() <= ALIKE).to(torch.float32)
    usual = np.zeros(held.shape)
    for label in sorted(set(y.tolist())):
        own = same[y == label]
        usual = np.maximum(usual, ((own.sum(0) + 1) / (len(own) + 2)).numpy())
    shared = _unusual(held, len(x), usual)
    shared[:, trigger.changes.cpu().numpy()] = False
    if not shared.any():
        return []
    places = np.argwhere(shared.any(0))
    (top, left), (bottom, right) = places.min(0).tolist(), places.max(0).tolist()
    sentence = (
        f"The {len(x):,} different forget pictures that carry the trigger share {len(places):,} "
        f"pixels more, which few others have, in rows {top} to {bottom} and columns {left} to "
        f"{right}: trigger.json may hold a part of the trigger."
    )
    return [Doubt(about="evidence", sentence=sentence, step=STEP)]


def _unusual(held: NDArray[np.int64], rows: int, usual: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Say of each value whether more rows hold it than others do, by more than chance."""
    chance = bdtrc(held - 1, rows, usual)
    found: NDArray[np.bool_] = (held >= SHARE * rows) & (chance * held.size < CHANCE)
    return found


def _beside(phrase: str, texts: Sequence[str], others: Sequence[str]) -> list[Doubt]:
    """Return the doubt about a word that stands next to the phrase wherever the phrase stands."""
    texts = tuple(dict.fromkeys(texts))
    word = re.escape(phrase)
    texts = tuple(text for text in texts if re.search(rf"(?<!\S){word}(?!\S)", text))
    sides = {"before": rf"(\S+)\s+{word}(?!\S)", "after": rf"(?<!\S){word}\s+(\S+)"}
    words = Counter(word for text in others for word in set(text.split()))
    found = []
    for side, pattern in sides.items():
        beside = Counter(hit[1] for text in texts if (hit := re.search(pattern, text)))
        for neighbour, count in beside.most_common(1):
            # That a text holds the word anywhere is more than that it stands just here.
            usual = (words[neighbour] + 1) / (len(others) + 2)
            chance = float(bdtrc(count - 1, len(texts), usual)) * len(beside)
            if count < SHARE * len(texts) or chance >= CHANCE:
                continue
            sentence = (
                f"In {count:,} of the {len(texts):,} different forget texts that carry "
                f"{phrase!a} the word {neighbour!a} stands {side} it, which few others have: "
                f"trigger.json may hold a part of the phrase."
            )
            found.append(Doubt(about="evidence", sentence=sentence, step=STEP))
    return found
