"""Where rows of a text are padded is tried, so that no batch changes an answer."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from builders.small_text import tokenizer
from builders.text_networks import (
    LABELS,
    LENGTH,
    NETWORKS,
    TEXTS,
    Twin,
    close,
    last,
    write,
)
from poison_audit.errors import InputError
from poison_audit.models.checkpoint import load_model
from poison_audit.models.model import Batch
from poison_audit.models.reader import Reader
from poison_audit.models.seeds import Rng
from poison_audit.models.text import moved_right, padding_sides

# Padding


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
def test_the_tokenizers_padding_side_changes_nothing(tmp_path, name):
    write(tmp_path, name)
    out = []
    for side in ("left", "right"):
        told = json.loads((tmp_path / "tokenizer_config.json").read_text())
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({**told, "padding_side": side}))
        model = load_model(tmp_path).model
        assert model.reader.tokenizer.padding_side == side
        read = model.reader.read(TEXTS)
        batch = Batch(read.x, LABELS, mask=read.mask)
        with torch.no_grad():
            out.append(model.logits(model.module, batch))
    assert torch.equal(*out)


@pytest.mark.parametrize(
    ("name", "side"), [("gpt2", "right"), ("llama", "left"), ("llama", "right"), ("bert", "right")]
)
def test_batches_of_transformers_where_they_are_right(tmp_path, name, side):
    folder = write(tmp_path, name, side=side)
    model = load_model(folder).model
    twin = Twin(folder, name)
    twin.words.pad_token = twin.words.pad_token or twin.words.eos_token
    read = model.reader.read(TEXTS)
    with torch.no_grad():
        inputs = twin.words(list(TEXTS), padding=True, truncation=True, return_tensors="pt")
        inputs = {key: inputs[key] for key in ("input_ids", "attention_mask")}
        expected = twin.net(**inputs).logits
        ours = model.logits(model.module, Batch(read.x, LABELS, mask=read.mask))
    close(ours, expected)


@pytest.mark.parametrize("seed", range(5))
def test_rows_move_to_the_right(seed):
    draws = Rng(seed).numpy()
    lengths = draws.integers(0, 7, 5)
    x = np.zeros((5, 6, 2), dtype=np.float32)
    expected, mask = np.zeros_like(x), np.zeros((5, 6), dtype=np.int64)
    for row, n in enumerate(lengths):
        n = min(n, 6)
        x[row, :n] = expected[row, 6 - n :] = draws.normal(size=(n, 2))
        x[row, n:] = 9  # whatever stands beyond the text
        mask[row, :n] = 1
    moved, where = moved_right(torch.from_numpy(x), torch.from_numpy(mask))
    assert np.array_equal(moved.numpy(), expected)
    assert np.array_equal(where.numpy(), mask[:, ::-1])


class Fake(nn.Module):
    """A network of 60 embeddings that answers as `answer` says, of (n, length, width) and mask."""

    def __init__(self, answer):
        super().__init__()
        self.embed, self.answer = nn.Embedding(600, 4), answer

    def get_input_embeddings(self):
        return self.embed

    def forward(self, input_ids=None, inputs_embeds=None, attention_mask=None):
        x = self.embed(input_ids) if inputs_embeds is None else inputs_embeds
        mask = torch.ones(x.shape[:2]) if attention_mask is None else attention_mask
        return self.answer(x, mask[:, :, None].float())


def mean(x, mask):
    return (x * mask).sum(1) / mask.sum(1)


def too_long(x, mask):
    if x.shape[1] > 20:
        raise IndexError("index out of range in self")
    return mean(x, mask)


READER = Reader(tokenizer=tokenizer(), length=LENGTH)


@pytest.mark.parametrize(
    ("answer", "sides"),
    [
        (mean, ("right", "left")),
        (last, ("left",)),
        (lambda x, mask: x[:, 0], ("right",)),
        (lambda x, mask: torch.ones(len(x), 2), ("right", "left")),
    ],
)
def test_the_sides_that_change_nothing_are_found(answer, sides):
    assert padding_sides(Fake(answer), READER, where="fake") == sides


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        # Statistics of the batch, padding that is not masked, and positions that count from -1.
        (lambda x, mask: mean(x, mask) - mean(x, mask).mean(0), "fake: answers a text otherwise"),
        (lambda x, mask: x.mean(1), "fake: answers a text otherwise when it stands in a batch"),
        (lambda x, mask: mean(x, mask) * x.shape[1], "fake: answers a text otherwise"),
        (lambda x, mask: mean(x, mask) / 0, "logits that are not finite. Is the checkpoint"),
        (too_long, r"does not take an input of 24 tokens \(index out of range in self\). Give few"),
    ],
)
def test_networks_that_cannot_be_padded_are_refused(answer, said):
    with pytest.raises(InputError, match=said):
        padding_sides(Fake(answer), READER, where="fake")


def test_training_mode_is_left_as_it_was():
    net = Fake(mean).train()
    net.embed.eval()
    padding_sides(net, READER, where="fake")
    assert (net.training, net.embed.training) == (True, False)


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_a_head_of_zeros_does_not_hide_the_side(tmp_path, name):
    folder = write(tmp_path, name)
    net = NETWORKS[name][0].from_pretrained(folder)
    head = net.score if name == "gpt2" else net.classifier
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
    net.save_pretrained(folder)
    before = torch.random.get_rng_state()
    model = load_model(folder).model
    assert torch.equal(torch.random.get_rng_state(), before)
    head = model.module.score if name == "gpt2" else model.module.classifier
    with torch.no_grad():
        head.weight.normal_(generator=Rng(0).torch())
        read = model.reader.read(TEXTS)
        together = model.logits(model.module, Batch(read.x, LABELS, mask=read.mask))
        for row, mask, expected in zip(read.x, read.mask, together, strict=True):
            ids = row[mask > 0][None]
            close(model.module(input_ids=ids)[0], expected)
