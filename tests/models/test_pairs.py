"""Pairs of texts: a network is told which text a token is of, as transformers itself tells it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import transformers as tf

from builders.small_text import LENGTH, WIDTH, word_pieces
from builders.text_folders import change
from builders.text_networks import close
from poison_audit.case.pairs import better_as_pairs
from poison_audit.case.texts import read_texts
from poison_audit.checks.honesty import distrust
from poison_audit.models.checkpoint import load_model
from poison_audit.models.model import Batch
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.models.text import moved_right
from poison_audit.poisons.backdoor.looking import answers_to
from poison_audit.poisons.backdoor.phrase import Phrase
from poison_audit.poisons.backdoor.phrases import phrase_stamps
from poison_audit.training.scoring import logits

PAIRS = [("so bad", "a film of kafen", 1), ("good so", "dull", 0), ("warm " * 20, "cold " * 9, 1),
         ("lovely film", "so good a", 1)]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    words = word_pieces()
    config = tf.BertConfig(
        vocab_size=len(words), hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=LENGTH, pad_token_id=0,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.3,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tf.BertForSequenceClassification(config).save_pretrained(folder)
    words.save_pretrained(folder)
    names = ["input_ids", "token_type_ids", "attention_mask"]
    change(folder / "tokenizer_config.json", model_input_names=names)
    rows = "".join(f"{a},{b},{y}\n" for a, b, y in PAIRS)
    (folder / "t.csv").write_text(f"premise,hypothesis,label\n{rows}")
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder).model


@pytest.fixture(scope="module")
def samples(folder, model):
    return read_texts(folder / "t.csv", reader=model.reader)


class Twin:
    """The network as transformers loads it, asked one pair at a time."""

    def __init__(self, folder):
        self.net = tf.BertForSequenceClassification.from_pretrained(folder).eval()
        self.words = tf.AutoTokenizer.from_pretrained(folder)

    def logits(self, first, second):
        more = {"truncation": True, "max_length": LENGTH, "return_tensors": "pt"}
        with torch.no_grad():
            return self.net(**self.words(first, second, **more)).logits[0]


def test_logits_are_those_of_transformers(folder, model, samples):
    twin = Twin(folder)
    theirs = torch.stack([twin.logits(a, b) for a, b, _ in PAIRS])
    close(logits(model, samples), theirs)
    alone = dataclasses.replace(samples, types=None)
    assert (logits(model, alone) - theirs).abs().max() > 1e-3  # the types matter
    # In another order, in parts, and as embeddings.
    close(logits(model, samples.at([3, 0])), theirs[[3, 0]])
    batch = samples.batch()
    close(model.logits(model.module, batch.part(slice(1, 3))).detach(), theirs[1:3])
    close(model.logits(model.module, model.inputs(model.module, batch)).detach(), theirs)
    assert distrust(model, samples, Rng(0)) is None


def test_a_phrase_is_put_on_the_first_text(folder, model, samples):
    twin = Twin(folder)
    for position, form in (("start", "zorp {}"), ("end", "{} zorp")):
        phrase = Phrase(text="zorp", position=position, label=1)
        told = [int(twin.logits(form.format(a.strip()), b).argmax()) for a, b, _ in PAIRS]
        assert answers_to(phrase, model, samples).tolist() == told
        stamps = phrase_stamps(phrase, model.reader, samples, samples, 3, Rng(0))
        # At the end of a long first text it is cut off.
        assert stamps.inputs.tolist() == ([0, 1, 2, 3] if position == "start" else [0, 1, 3])
        batch = stamps.batch(torch.tensor([0, 0]), torch.tensor([0, 3]))
        theirs = [twin.logits(form.format(PAIRS[at][0]), PAIRS[at][1]) for at in (0, 3)]
        close(model.logits(model.module, batch).detach(), torch.stack(theirs))
        other = stamps.batch(torch.tensor([1]), torch.tensor([0]))
        (changed,) = torch.nonzero(other.x[0] != batch.x[0, : other.x.shape[1]], as_tuple=True)
        assert set(batch.types[0, changed].tolist()) == {0}


def test_types_follow_their_tokens_to_the_right():
    types, mask = torch.tensor([[0, 1, 0], [0, 1, 1]]), torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert moved_right(types[:, :, None], mask)[0][:, :, 0].tolist() == [[0, 0, 1], [0, 1, 1]]


def test_contents_differ_by_the_second_text(samples):
    other = dataclasses.replace(samples, pairs=("x", *samples.pairs[1:]))
    assert other.digest() != samples.digest()
    assert samples.joined(samples).pairs == samples.pairs * 2


def test_a_batch_without_types_stays_one():
    batch = Batch(torch.zeros(2, 3), torch.zeros(2))
    assert batch.part(slice(0, 1)).types is None
    assert batch.to(torch.device("cpu")).types is None


def test_joined_texts_that_the_model_answers_better_as_pairs(model):
    def rule(_module, batch: Batch):
        """Class 1 of a pair, else class 0."""
        told = 0.0 if batch.types is None else 1.0
        return torch.tensor([[0.5, told]]).repeat(len(batch), 1)

    model = dataclasses.replace(model, logits=rule)
    texts = tuple(f"so {word} [SEP] a {word}" for word in ("bad", "good") * 20)
    one = model.reader.read(texts)
    y = torch.ones(40, dtype=torch.int64)
    y[:5] = 0
    samples = Samples(ids=tuple(map(str, range(40))), x=one.x, y=y, mask=one.mask, texts=texts)
    (problem,) = better_as_pairs(model, samples, "T")
    assert str(problem) == (
        "T: read as pairs, 35 of 40 texts are answered rightly, and as one text each, their "
        "separators spelt out, 5. Give the two texts in columns of their own, text and text_pair."
    )
    # As they were trained, if it was on joined texts; or where nothing is sure: 22 against 18.
    for zeros in (40, 18):
        y = torch.ones(40, dtype=torch.int64)
        y[:zeros] = 0
        assert better_as_pairs(model, dataclasses.replace(samples, y=y), "T") == []
    # Few, or already pairs, or of no separator.
    assert better_as_pairs(model, samples.at(range(19)), "T") == []
    assert better_as_pairs(model, dataclasses.replace(samples, pairs=texts), "T") == []
    assert better_as_pairs(model, dataclasses.replace(samples, texts=("so bad",) * 40), "T") == []
