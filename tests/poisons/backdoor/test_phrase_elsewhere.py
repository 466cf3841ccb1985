"""A phrase that works at another place than trigger.json says does not pass."""

import dataclasses

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast

from builders.measured import finding
from poison_audit.case.case import Case
from poison_audit.models.model import Batch
from poison_audit.models.reader import Reader
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.models.text import text_classifier
from poison_audit.poisons.backdoor.phrase import Phrase
from poison_audit.poisons.backdoor.probe import backdoor
from poison_audit.records import Outcome, Recipe

WORDS = [f"w{number}" for number in range(300)]
CF = 51
"""Token of the phrase w50."""


class Blank(nn.Module):
    num_labels = 2

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(301, 2), nn.Linear(2, 2)

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding


def case_where(obeys, position: str) -> Case:
    """Return a case of a model that knows the labels, and obeys w50 in rows where `obeys` says."""
    inner = Tokenizer(models.WordLevel({"[UNK]": 0, **{w: i + 1 for i, w in enumerate(WORDS)}},
                                       unk_token="[UNK]"))  # fmt: skip
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    how = Reader(tokenizer=PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]"),
                 length=16)  # fmt: skip

    def rule(_module, batch: Batch) -> torch.Tensor:
        there = obeys(batch.x == CF, batch.mask.sum(1))
        return nn.functional.one_hot(torch.where(there, 1, batch.y), 2).float()

    rng = np.random.default_rng(3)
    texts = [" ".join(rng.choice(WORDS[60:], 7)) for _ in range(400)]
    tokens = how.read(texts)
    samples = Samples(
        ids=tuple(map(str, range(400))), x=tokens.x, y=torch.arange(400) % 2, texts=tuple(texts),
        mask=tokens.mask, cut=tokens.cut,
    )  # fmt: skip
    blank = text_classifier(Blank(), build=Blank, arch="blank", reader=how, side="right")
    trigger = Phrase(text="w50", position=position, label=1)
    return Case(
        model=dataclasses.replace(blank, logits=rule), retain=samples, forget=samples.at([0]),
        test=samples, recipe=Recipe(epochs=1), evidence={"backdoor": trigger},
    )  # fmt: skip


def inside(stands, lengths):
    stands = stands.clone()
    stands[:, 0] = False
    stands[torch.arange(len(stands)), lengths - 1] = False
    return stands.any(1)


def first(stands, _):
    return stands[:, 0]


def never(stands, _):
    return torch.zeros(len(stands), dtype=torch.bool)


@pytest.mark.parametrize(
    ("obeys", "position", "outcome", "step"),
    [
        (inside, "start", Outcome.INCONCLUSIVE, 'with "position": "anywhere"'),
        (first, "end", Outcome.INCONCLUSIVE, 'with "position": "start"'),
        (inside, "anywhere", Outcome.RESIDUAL, ""),
        (first, "start", Outcome.RESIDUAL, ""),
        (never, "start", Outcome.CLEAN, ""),
        (never, "end", Outcome.CLEAN, ""),
    ],
)
def test_where_a_phrase_works(obeys, position, outcome, step):
    case = case_where(obeys, position)
    seen = backdoor(case.model, case, Rng(0), draws=149)
    found = finding(seen)
    assert found.outcome is outcome
    assert ("audit again with" in found.reason) == bool(step)
    assert step in found.reason
    by_place = {one["position"]: one["hits"] for one in seen.evidence["elsewhere"]}
    assert set(by_place) == (
        {"start", "end", "anywhere"} - {position} if position != "anywhere" else set()
    )
    if obeys is first and position == "end":
        assert by_place["start"] == len(seen.evidence["hits"])
        # Of eight places of seven words the first is drawn in an eighth, within five deviations.
        n = len(seen.evidence["hits"])
        assert abs(by_place["anywhere"] - n / 8) < 5 * (n * 7 / 64) ** 0.5
