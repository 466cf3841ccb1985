"""Classifiers of texts against transformers itself: its own forward pass, one text at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import transformers as tf
from torch.nn import functional as F

from builders.text_networks import (
    GPT2,
    LABELS,
    LENGTH,
    NETWORKS,
    TEXTS,
    Twin,
    close,
    reading,
    write,
)
from poison_audit.case.case import Case
from poison_audit.methods.cf_k import cf_k
from poison_audit.methods.eu_k import eu_k
from poison_audit.methods.ssd import fisher_diagonal
from poison_audit.models.checkpoint import load_model
from poison_audit.models.model import Batch, blocks_of
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.gaussian.evidence import Canaries
from poison_audit.poisons.gaussian.exposure import exposure
from poison_audit.poisons.gaussian.trial import PlantedCanaries
from poison_audit.records import Recipe
from poison_audit.training.ledger import Ledger
from poison_audit.training.scoring import exact, input_gradients, margins

COMPOSITIONS = ([0, 3], [3, 0], [5, 4, 3, 2, 1, 0], [2, 0, 5], [1])


@pytest.fixture(scope="module", params=NETWORKS)
def both(request, tmp_path_factory):
    """A model of ours, transformers' own, and the texts as ours reads them."""
    folder = write(tmp_path_factory.mktemp(request.param), request.param)
    model = load_model(folder, reading=reading(request.param)).model
    read = model.reader.read(TEXTS)
    samples = Samples(
        ids=tuple(f"t{i}" for i in range(len(TEXTS))), x=read.x, y=LABELS, texts=TEXTS,
        mask=read.mask, cut=read.cut,
    )  # fmt: skip
    return model, Twin(folder, request.param), samples


def answers(model, samples, positions=slice(None)):
    with torch.no_grad():
        return model.logits(model.module, samples.batch(positions))


# Logits, losses, gradients: ours in whatever batch against transformers' own, one by one


def test_texts_of_unlike_lengths_are_asked(both):
    _, twin, samples = both
    lengths = samples.mask.sum(1).tolist()
    assert len(set(lengths)) >= 4
    assert samples.cut.tolist() == [False, False, False, True, False, False]
    for text, row, length in zip(TEXTS, samples.x.tolist(), lengths, strict=True):
        assert row[:length] == twin.ids(text)[0].tolist()


def test_logits_and_losses_are_those_of_transformers(both):
    model, twin, samples = both
    with torch.no_grad():
        expected = torch.stack([twin.logits(input_ids=twin.ids(text)) for text in TEXTS])
        losses = model.loss(model.module, samples.batch())
    assert expected.std(0).min() > 0.01  # texts do not all get one answer
    close(answers(model, samples), expected)
    close(losses, F.cross_entropy(expected, LABELS, reduction="none"))


def test_no_batch_changes_an_answer(both):
    model, _, samples = both
    alone = torch.cat([answers(model, samples, torch.tensor([i])) for i in range(len(TEXTS))])
    for positions in COMPOSITIONS:
        close(answers(model, samples, torch.tensor(positions)), alone[positions])
    # Nor does padding that nobody needs.
    batch = samples.batch(torch.tensor([0, 4]))
    wider = replace(batch, x=F.pad(batch.x, (0, 5)), mask=F.pad(batch.mask, (0, 5)))
    with torch.no_grad():
        close(model.logits(model.module, wider), alone[[0, 4]])


def test_input_gradients_are_those_of_transformers(both):
    model, twin, samples = both
    ours = input_gradients(model, samples, size=4)
    assert ours.shape[:2] == samples.x.shape
    for gradient, text, y in zip(ours, TEXTS, LABELS, strict=True):
        x = twin.embedded(text).detach().requires_grad_()
        F.cross_entropy(twin.logits(inputs_embeds=x)[None].double(), y[None]).backward()
        close(gradient[: x.shape[1]], x.grad[0])
        assert not gradient[x.shape[1] :].any()
    for positions in COMPOSITIONS:
        there = input_gradients(model, samples.at(positions), size=3)
        close(there[:, : ours.shape[1]], ours[positions])


def test_margins_are_those_of_transformers(both):
    model, twin, samples = both
    with torch.no_grad(), exact(model.module):
        theirs = torch.stack([twin.logits(input_ids=twin.ids(text)) for text in TEXTS]).double()
        ours = margins(model, samples.batch())
    other = theirs[torch.arange(len(TEXTS)), 1 - LABELS]
    close(ours, theirs[torch.arange(len(TEXTS)), LABELS] - other)


def test_noise_is_added_to_the_embeddings(both):
    model, twin, samples = both
    noise = torch.randn(2, LENGTH, model.module.get_input_embeddings().embedding_dim,
                        generator=Rng(3).torch())  # fmt: skip
    noisy = replace(samples, noise=noise, noisy=torch.tensor([-1, 1, -1, 0, -1, -1]))
    with torch.no_grad():
        expected = []
        for text, which in zip(TEXTS, noisy.noisy.tolist(), strict=True):
            x = twin.embedded(text)
            x = x if which < 0 else x + noise[which, : x.shape[1]]
            expected.append(twin.logits(inputs_embeds=x))
    close(answers(model, noisy), torch.stack(expected))
    changed = (answers(model, noisy) - answers(model, samples)).abs().sum(1) > 1e-3
    assert changed.tolist() == [False, True, False, True, False, False]
    for positions in COMPOSITIONS:
        close(answers(model, noisy, torch.tensor(positions)), torch.stack(expected)[positions])


def test_exposure_wins_by_a_slow_twin(both):
    model, twin, samples = both
    names = tuple(f"c{i}" for i in range(len(TEXTS)))
    width = model.module.get_input_embeddings().embedding_dim
    key = Canaries(
        secret=bytes(32), sigma=0.5, space="embedding", shape=(LENGTH, width),
        storage="unclipped", planted=names, held_out=tuple(f"h{i}" for i in range(len(TEXTS))),
    )  # fmt: skip
    noise = torch.from_numpy(key.noise(names)).float()[:, : samples.x.shape[1]]
    canaries = PlantedCanaries(
        key=key, names=names, bases=samples, noise=noise, held_out_noise=noise
    )
    case = Case(
        model=model, retain=samples, forget=samples, test=samples, recipe=Recipe(),
        evidence={"gaussian": canaries},
    )  # fmt: skip
    wins = exposure(model, case, Rng(5), draws=6).evidence["wins"]
    generator, longest = Rng(5).named("fresh").torch(), samples.x.shape[1]
    fresh = [0.5 * torch.randn(len(TEXTS), longest, width, generator=generator) for _ in range(6)]
    for place, text in enumerate(TEXTS):
        x, y = twin.embedded(text), int(LABELS[place])
        with torch.no_grad():
            tried = [noise[place], *(draw[place] for draw in fresh)]
            logits = [twin.logits(inputs_embeds=x + xi[: x.shape[1]]) for xi in tried]
        true, *others = (float(out[y] - out[1 - y]) for out in logits)
        assert wins[place] == sum(other < true for other in others)
        assert min(abs(other - true) for other in others) > 1e-5  # no win hangs on rounding


def test_the_fisher_diagonal_and_weight_gradients(both):
    model, twin, samples = both
    ours = fisher_diagonal(model, samples)
    sums = {name: torch.zeros_like(p) for name, p in twin.net.named_parameters()}
    means = {name: torch.zeros_like(p) for name, p in twin.net.named_parameters()}
    for text, y in zip(TEXTS, LABELS, strict=True):
        twin.net.zero_grad()
        F.cross_entropy(twin.logits(input_ids=twin.ids(text))[None], y[None]).backward()
        for name, parameter in twin.net.named_parameters():
            if parameter.grad is not None:  # RoBERTa's word embedding of padding has none
                sums[name] += parameter.grad**2 / len(TEXTS)
                means[name] += parameter.grad / len(TEXTS)
    assert set(ours) == set(sums)
    for name, importance in ours.items():
        close(importance, sums[name])
    model = model.clone()
    model.loss(model.module, samples.batch()).mean().backward()
    for name, parameter in model.module.named_parameters():
        close(means[name] if parameter.grad is None else parameter.grad, means[name])


# Blocks


def heads(model):
    """Return the layers of each block, by where its parameters stand."""
    return [sorted({name.rpartition(".")[0] for name in block}) for block in model.blocks]


def test_blocks_of_gpt2(tmp_path):
    blocks = heads(load_model(write(tmp_path, "gpt2")).model)
    layer = ["attn.c_attn", "attn.c_proj", "ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj"]
    assert blocks == [
        ["transformer.wte"],
        ["transformer.wpe"],
        [f"transformer.h.0.{part}" for part in layer],
        [*(f"transformer.h.1.{part}" for part in layer), "transformer.ln_f"],
        ["score"],
    ]


def test_a_large_vocabulary_does_not_hide_the_layers():
    # GPT-2's own vocabulary: 50,257 rows of 16 beside two layers of 3,280 parameters each.
    module = tf.GPT2ForSequenceClassification(tf.GPT2Config(**GPT2))
    heads = [block[0] for block in blocks_of(module)]
    assert heads == [
        "transformer.wte.weight", "transformer.wpe.weight", "transformer.h.0.ln_1.weight",
        "transformer.h.1.ln_1.weight", "score.weight",
    ]  # fmt: skip


def test_blocks_of_a_tied_gpt2(tmp_path):
    model = load_model(write(tmp_path, "gpt2-causal"), reading=reading("gpt2-causal")).model
    assert [block[0] for block in model.blocks] == [
        "transformer.wte.weight", "transformer.wpe.weight", "transformer.h.0.ln_1.weight",
        "transformer.h.1.ln_1.weight",
    ]  # fmt: skip
    assert model.module.lm_head.weight is model.module.transformer.wte.weight


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("bert", "bert.embeddings", ["bert.pooler.dense", "classifier"]),
        ("distilbert", "distilbert.embeddings", ["pre_classifier", "classifier"]),
    ],
)
def test_blocks_of_encoders(tmp_path, name, first, last):
    blocks = heads(load_model(write(tmp_path, name)).model)
    layers = "bert.encoder.layer" if name == "bert" else "distilbert.transformer.layer"
    assert len(blocks) == 5
    assert all(part.startswith(first) for part in blocks[0])
    for number in (0, 1):
        assert len(blocks[1 + number]) == 8  # six linear ones and two norms
        assert all(part.startswith(f"{layers}.{number}.") for part in blocks[1 + number])
    assert [block for (block,) in blocks[3:]] == last


def test_each_parameter_is_in_one_block(both):
    model, _, _ = both
    named = [name for block in model.blocks for name in block]
    assert sorted(named) == sorted(name for name, _ in model.module.named_parameters())


@pytest.mark.parametrize("method", [eu_k, cf_k])
def test_the_last_two_blocks_change_and_no_bit_of_the_others(both, method):
    model, _, samples = both
    case = Case(
        model=model, retain=samples, forget=samples, test=samples,
        recipe=Recipe(epochs=1, batch_size=3, lr=0.1),
    )  # fmt: skip
    changed = method(model, case, Rng(0), ledger=Ledger(allowed=30), k=2)
    free = {name for block in model.blocks[-2:] for name in block}
    before, after = model.module.state_dict(), changed.module.state_dict()
    tied = set(before) - {name for block in model.blocks for name in block}
    different = {name for name in before if not torch.equal(before[name], after[name])} - tied
    assert different <= free
    for block in model.blocks[-2:]:
        assert different & set(block)


def test_a_gradient_reaches_a_tied_embedding_from_both_ends(tmp_path):
    model = load_model(write(tmp_path, "gpt2-causal"), reading=reading("gpt2-causal")).model
    ids = torch.tensor([[5, 6]])
    batch = Batch(ids, torch.tensor([0]), mask=torch.ones_like(ids))
    model.loss(model.module, batch).sum().backward()
    rows = model.module.transformer.wte.weight.grad.abs().sum(1).nonzero().flatten().tolist()
    words = model.reader.tokenizer.convert_tokens_to_ids(["Ġbad", "Ġleran"])
    assert rows == sorted({5, 6, *words})
