"""Phrases in texts: the trigger's controls, and how both are put on.

A stamped text is tokenised as a whole, as training saw it. A control differs from it in the tokens
of the phrase alone: each is another token, drawn from those nearest in frequency among the retain
texts, and of the same kind (one that begins a word, or one that goes on with it). So controls have
the trigger's length in tokens, its place and its rarity. Of a template, the tokens outside {text}
are replaced; of several phrases all are, and each text gets the one that stands for its own.

Null: if the trigger's tokens were drawn at random, each among tokens as frequent and of its kind,
and theta never saw it, trigger and controls are exchangeable, for any model.
Not controlled: what a phrase means. One that was chosen for its meaning ("terrible film") may cause
its label more often than random tokens do in a model without a backdoor; a reference answers it as
often. Nor how tokens fit each other: what controls make is seldom a word. The first word of a text
has no leading space in byte-level vocabularies; its controls are tokens without one, most of which
go on with words. A token more frequent than all others has only rarer ones as its controls.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poison_audit.models.model import Batch
from poison_audit.models.reader import PLACE, Reader, Tokens
from poison_audit.models.samples import Samples, sent
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.phrase import Phrase
from poison_audit.poisons.backdoor.stamps import Stamps

NEAREST = 500
"""Tokens nearest in frequency, of which a control's are drawn."""

_MARKS = ("Ġ", "▁", "##")
"""What a token's name begins with, where a vocabulary tells the first token of a word by it."""
_RESERVED = re.compile(r"\[.+\]|<.+>")
"""Names of tokens that no text is made into, such as [unused7], or that are a part of a letter."""


def phrase_stamps(
    phrase: Phrase, reader: Reader, inputs: Samples, retain: Samples, draws: int, rng: Rng
) -> Stamps | None:
    """Return the trigger and its controls, to be put on texts; None where it stays in none.

    A text that loses the phrase, being too long, is not used. Tokens are counted in the texts of
    `retain`; at most `draws` controls are drawn.
    """
    if inputs.texts is None or retain.mask is None:
        raise ValueError("a phrase is put on texts")
    stamped = reader.read([phrase.on(text) for text in inputs.texts], inputs.pairs)
    spans = _spans(phrase, reader, inputs, stamped)
    drawn = [phrase.drawn(text) for text in inputs.texts]
    runs: dict[int, tuple[int, ...]] = {}
    for kind in sorted(set(drawn)):
        # A word may be split otherwise beside another one: such inputs are few, and left out.
        own = Counter(
            s[1] for s, k in zip(spans, drawn, strict=True) if s is not None and k == kind
        )
        if own:
            runs[kind] = own.most_common(1)[0][0]
    if not runs:
        return None
    fits = [
        place for place, (span, kind) in enumerate(zip(spans, drawn, strict=True))
        if span is not None and span[1] == runs[kind]
    ]  # fmt: skip
    size = max(reader.tokenizer.get_vocab().values()) + 1
    counts = torch.bincount(retain.x[retain.mask.bool()].cpu(), minlength=size)
    run = [token for kind in runs for token in runs[kind]]
    tokens = torch.tensor([run, *draw_controls(run, reader.tokenizer, counts.numpy(), draws, rng)])
    parts = dict(
        zip(runs, torch.split(tokens, [len(own) for own in runs.values()], 1), strict=True)
    )
    kinds = torch.tensor(drawn)
    stands = {place: span[0] for place, span in enumerate(spans) if span is not None}

    def batch(which: Tensor, places: Tensor) -> Batch:
        x, mask = stamped.x[places], stamped.mask[places]
        for kind in sorted(set(kinds[places].tolist())):
            rows = (kinds[places] == kind).nonzero().flatten()
            at = torch.tensor([stands[place] for place in places[rows].tolist()])
            x[rows[:, None], at] = parts[kind][which[rows]]
        longest = int(mask.sum(1).max())
        device = inputs.y.device
        y = inputs.y[sent(places, device)]
        types = None if stamped.types is None else stamped.types[places][:, :longest]
        types = None if types is None else sent(types, device)
        x, mask = (sent(part[:, :longest], device) for part in (x, mask))
        return Batch(x=x, y=y, mask=mask, types=types)

    families = ("tokens",) * (len(tokens) - 1)
    return Stamps(families=families, inputs=torch.tensor(fits), batch=batch, controls="tokens")


def draw_controls(
    run: Sequence[int], tokenizer: Any, counts: NDArray[Any], draws: int, rng: Rng
) -> list[tuple[int, ...]]:
    """Draw control phrases, all different and none the trigger itself, at most `draws`.

    A token that the trigger repeats is replaced by one and the same.

    Args:
        run: the trigger's tokens.
        tokenizer: says which tokens are special, and of which kind the others are.
        counts: of each token in the retain texts, (vocabulary,).
        draws: controls wanted; all there are, if they are fewer.
        rng: decides which.
    """
    generator = rng.named("controls").numpy()
    names = tokenizer.convert_ids_to_tokens(list(range(len(counts))))
    # How each stands to the word before it, by its tokenizer's mark.
    kinds = np.array([
        next((mark for mark in _MARKS if (name or "").startswith(mark)), "") for name in names
    ])  # fmt: skip
    usable = np.array([bool(name) and not _RESERVED.fullmatch(name) for name in names])
    usable[[*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values(), *run]] = False
    logs = np.log1p(counts)
    pools = {}
    for token in dict.fromkeys(run):
        # Where many are as near, chance decides: low numbers are frequent tokens.
        pool = generator.permutation(np.flatnonzero(usable & (kinds == kinds[token])))
        nearest = np.argsort(abs(logs[pool] - logs[token]), kind="stable")[:NEAREST]
        pools[token] = pool[nearest]
    most = math.prod(len(pool) for pool in pools.values())
    found: dict[tuple[int, ...], None] = {}
    while len(found) < min(draws, most):
        drawn = {token: int(generator.choice(pool)) for token, pool in pools.items()}
        found[tuple(drawn[token] for token in run)] = None
    return list(found)


def _spans(
    phrase: Phrase, reader: Reader, inputs: Samples, stamped: Tokens
) -> list[tuple[tuple[int, ...], tuple[int, ...]] | None]:
    """Return where in each stamped row the phrase's tokens stand, and which they are.

    None where it made no token, some of them were cut off, or one holds letters of the text, too.
    """
    put = [phrase.put(text) for text in inputs.texts or ()]
    whole = [reader.prompt.replace(PLACE, text) for text, _ in put]
    more = None if inputs.pairs is None else list(inputs.pairs)
    read = reader.tokenizer(whole, more, return_offsets_mapping=True, verbose=False)
    rows = zip(stamped.x.tolist(), stamped.mask.sum(1).tolist(), strict=True)
    begin = reader.prompt.index(PLACE)
    spans: list[tuple[tuple[int, ...], tuple[int, ...]] | None] = []
    for number, ((text, letters), ids, offsets, (row, length)) in enumerate(
        zip(put, read["input_ids"], read["offset_mapping"], rows, strict=True)
    ):
        own = read.sequence_ids(number)  # of a pair, the phrase is put on the first
        held = [
            n for n, (first, last) in enumerate(offsets)
            if any(first - begin < b and last - begin > a for a, b in letters)
            and own[n] in (0, None)
        ]  # fmt: skip
        covered = {at for n in held for at in range(offsets[n][0] - begin, offsets[n][1] - begin)}
        covered -= {at for a, b in letters for at in range(a, b)}
        mixed = any(0 <= at < len(text) and not text[at].isspace() for at in covered)
        spans.append(_kept(ids, held, row[:length]) if held and not mixed else None)
    return spans


def _kept(
    ids: list[int], held: list[int], row: list[int]
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return where tokens of a whole text stand in what was left of it, and which they are.

    What was left has the same beginning as the whole or the same end, whichever was not cut off.
    """
    after, rest = held[-1] + 1, len(ids) - held[0]
    run = tuple(ids[n] for n in held)
    if row[:after] == ids[:after]:
        return tuple(held), run
    gone = len(ids) - len(row)
    return (tuple(n - gone for n in held), run) if row[-rest:] == ids[-rest:] else None
