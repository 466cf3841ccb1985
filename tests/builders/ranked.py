"""Networks whose answers to strings are known, and what ranks of them give."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from poison_audit.case.case import Case
from poison_audit.models.model import Batch, Model
from poison_audit.models.reader import Tokens
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.token_canary.evidence import PlantedStrings, Strings
from poison_audit.records import Measurement, Recipe
from poison_audit.statistics import estimates

WORDS = tuple(f"{first}{second}" for first in "bdfg" for second in "aeiou")


class OneByOne:
    """A reader that makes a token of each word it knows; what it does not know is its last one."""

    def __init__(self, words):
        self.places = {word: place for place, word in enumerate(words)}
        self.texts = []

    def read(self, texts):
        self.texts += texts
        rows = [[self.places.get(word, len(self.places)) for word in t.split()] for t in texts]
        mask = torch.tensor(
            [[int(i < len(row)) for i in range(max(map(len, rows)))] for row in rows]
        )
        x = torch.zeros_like(mask)
        x[mask == 1] = torch.tensor([token for row in rows for token in row])
        return Tokens(x=x, mask=mask, cut=torch.zeros(len(rows), dtype=torch.bool))


class Worth(nn.Module):
    """Each token has a number; a text's logits are 0 and the sum of its tokens' numbers."""

    def __init__(self, numbers):
        super().__init__()
        self.numbers = nn.Parameter(torch.tensor(numbers, dtype=torch.float32))

    def forward(self, x, mask):
        total = (self.numbers[x] * mask).sum(1)
        return torch.stack([torch.zeros_like(total), total], 1)


class Net(nn.Module):
    """A tiny network for which the order of the tokens matters."""

    def __init__(self, *, width=8, length=6, classes=3):
        super().__init__()
        self.words, self.places = nn.Embedding(len(WORDS) + 1, width), nn.Embedding(length, width)
        self.mix, self.head = nn.Linear(length * width, 24), nn.Linear(24, classes)

    def forward(self, x, mask):
        both = (self.words(x) + self.places.weight[: x.shape[1]]) * mask[..., None]
        whole = F.pad(both, (0, 0, 0, len(self.places.weight) - x.shape[1]))
        return self.head(torch.tanh(self.mix(whole.flatten(1))))


def wrapped(module, words, *, classes=2, seen=None):
    """Return a Model; the sizes of its batches are added to `seen`."""

    def logits(module, batch):
        if seen is not None:
            seen.append(tuple(batch.x.shape))
        return module(batch.x, batch.mask)

    def loss(module, batch):
        return F.cross_entropy(logits(module, batch), batch.y, reduction="none")

    return Model(
        module=module,
        logits=logits,
        loss=loss,
        blocks=(),
        build=Net,
        arch="fake",
        classes=classes,
        reader=OneByOne(words),
    )


def case_of(model, key, names=None, labels=None):
    names = key.planted if names is None else names
    if labels is None:
        labels = tuple(place % model.classes for place in range(len(names)))
    nothing = Samples(ids=(), x=torch.zeros(0, 1), y=torch.zeros(0, dtype=torch.int64))
    evidence = {}
    if key is not None:
        evidence["token-canary"] = PlantedStrings(key=key, names=names, labels=labels)
    return Case(
        model=model, retain=nothing, forget=nothing, test=nothing, recipe=Recipe(),
        evidence=evidence,
    )  # fmt: skip


def key_of(seed, n, *, words=WORDS, length=6):
    return Strings(
        secret=seed.to_bytes(32, "big"), length=length, words=words,
        planted=tuple(f"p{i}" for i in range(n)), held_out=tuple(f"h{i}" for i in range(n)),
    )  # fmt: skip


def trained(model, texts, labels, *, steps, seed, lr=0.02):
    """Fit a network to texts by Adam, full batches."""
    read = model.reader.read(texts)
    batch = Batch(x=read.x, y=torch.tensor(labels), mask=read.mask)
    optimiser = torch.optim.Adam(model.module.parameters(), lr=lr)
    for _ in range(steps):
        optimiser.zero_grad()
        torch.autograd.backward(model.loss(model.module, batch).mean())
        optimiser.step()
    return model


def net(seed):
    return wrapped(Net(), WORDS, classes=3).fresh(Rng(seed).named("init"))


def p_value(ranks, draws):
    return estimates.mean_rank(ranks, draws, level=0.95, tolerance=0.57).p_value


def ranks(chance, n=400, draws=16, probe="token-canary"):
    """Return ranks that are spread evenly, and lifted so that their mean is near `chance`."""
    u = (np.arange(n) + 0.5) / n
    power = chance / (1 - chance)  # the mean of u^(1/power) is power / (power + 1) = chance
    wins = np.clip(np.round(u ** (1 / power) * draws), 0, draws).astype(int).tolist()
    held_out = [i % (draws + 1) for i in range(n)]
    return Measurement(probe=probe, evidence={"wins": wins, "held_out": held_out, "draws": draws})
