"""Canaries in embeddings: the hook against noise added by hand, and the key that planting makes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from builders import small_text
from poison_audit.case.texts import TextTable, read_texts
from poison_audit.errors import InputError, PlanError
from poison_audit.models.checkpoint import load_model
from poison_audit.models.seeds import Rng
from poison_audit.poisons.gaussian import plant_texts as embedding
from poison_audit.poisons.gaussian.embedding import carrying
from poison_audit.poisons.gaussian.evidence import Canaries
from poison_audit.poisons.gaussian.plant_texts import noisy_embeddings, plant_embedding

TEXTS = ("karan good lebis", "warm", "mifen sodol dull turan kabis lovely", "cold rebis")
IDS = ("canary-0000", "t1", "canary-0001", "t3")
KEY = Canaries(
    secret=bytes(range(32)), sigma=0.7, space="embedding", shape=(14, small_text.WIDTH),
    storage="unclipped", planted=("canary-0000", "canary-0001"), held_out=("h0", "h1"),
)  # fmt: skip
CANARIES = (0, 2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embedding")
    small_text.write_decoder(folder / "decoder", side="left")
    small_text.write_encoder(folder / "encoder")
    return folder


@pytest.fixture
def network(folders, request):
    """A classifier of transformers, freshly loaded; a decoder unless the test says otherwise."""
    return load_model(folders / getattr(request, "param", "decoder")).model


def batch_of(network, side):
    """Return ids and mask as transformers' own tokenizer pads them."""
    words = network.reader.tokenizer
    words.padding_side = side
    words.pad_token = words.pad_token or words.eos_token
    found = words(list(TEXTS), padding=True, return_tensors="pt")
    return found["input_ids"], found["attention_mask"]


def by_hand(mask, side):
    """Return the noise of each position, counted by a loop."""
    noise = torch.zeros(*mask.shape, small_text.WIDTH)
    for row in CANARIES:
        own, length = KEY.noise([IDS[row]])[0], int(mask[row].sum())
        start = mask.shape[1] - length if side == "left" else 0
        for token in range(length):
            noise[row, start + token] = torch.from_numpy(own[token].astype(np.float32))
    return noise


def hidden(network, mask, **inputs):
    """Return what the network makes of every real token, (tokens, width)."""
    out = network.module.base_model(attention_mask=mask, **inputs)
    return out.last_hidden_state[mask == 1]


@pytest.mark.parametrize("network", ["decoder", "encoder"], indirect=True)
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_hook_adds_what_is_added_by_hand(network, side):
    x, mask = batch_of(network, side)
    layer = network.module.get_input_embeddings()
    with noisy_embeddings(network.module, KEY, ids=IDS, mask=mask):
        got = hidden(network, mask, input_ids=x)
    want = hidden(network, mask, inputs_embeds=layer(x) + by_hand(mask, side))
    assert torch.equal(got, want)
    clean = hidden(network, mask, input_ids=x)
    changed = (got != clean).any(1)
    carries = torch.tensor([row in CANARIES for row in range(len(IDS))])
    assert torch.equal(changed, carries[:, None].expand_as(mask)[mask == 1])


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_gradient_flows_as_through_noise_added_by_hand(network, side):
    x, mask = batch_of(network, side)
    layer = network.module.get_input_embeddings()
    weights = torch.randn(small_text.WIDTH, generator=Rng(0).torch())
    with noisy_embeddings(network.module, KEY, ids=IDS, mask=mask):
        (hidden(network, mask, input_ids=x) @ weights).square().sum().backward()
    got = layer.weight.grad.clone()
    network.module.zero_grad()
    noisy = layer(x) + by_hand(mask, side)
    (hidden(network, mask, inputs_embeds=noisy) @ weights).square().sum().backward()
    assert got.abs().max() > 0
    assert torch.equal(got, layer.weight.grad)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_noise_is_bit_for_bit_what_the_trainer_adds(network, tmp_path, side):
    rows = [(name, text, 0) for name, text in zip(IDS, TEXTS, strict=True)]
    small_text.write_rows(tmp_path / "t.csv", ["id", "text", "label"], rows)
    samples = carrying(read_texts(tmp_path / "t.csv", reader=network.reader), KEY, {})
    trained = samples.batch()
    x, mask = batch_of(network, side)
    layer = network.module.get_input_embeddings()
    assert torch.equal(x[mask == 1], trained.x[trained.mask == 1])
    with torch.no_grad():
        layer.weight.zero_()  # so that what comes out is the noise alone
    with noisy_embeddings(network.module, KEY, ids=IDS, mask=mask):
        noise = layer(x)
    assert torch.equal(noise[mask == 1], trained.noise[trained.mask == 1])
    assert not noise[mask == 0].any()
    assert noise.abs().sum() > 0


@pytest.mark.parametrize("network", ["decoder", "encoder"], indirect=True)
def test_a_loop_with_the_hook_and_the_trainer_see_the_same_loss(network, tmp_path):
    rows = list(zip(IDS, TEXTS, (0, 1, 0, 1), strict=True))
    small_text.write_rows(tmp_path / "t.csv", ["id", "text", "label"], rows)
    samples = carrying(read_texts(tmp_path / "t.csv", reader=network.reader), KEY, {})
    trained = network.loss(network.module, samples.batch())
    x, mask = batch_of(network, "right")
    with noisy_embeddings(network.module, KEY, ids=IDS, mask=mask):
        out = network.module(input_ids=x, attention_mask=mask)
    loop = nn.functional.cross_entropy(out, samples.y, reduction="none")
    assert torch.allclose(loop, trained, atol=1e-5)
    plain = network.loss(network.module, replace(samples, noise=None, noisy=None).batch())
    assert (plain - trained).abs().max() > 1e-3


class Wrapper(nn.Module):
    """What DistributedDataParallel is to this: a network under `.module`."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)


@pytest.fixture(autouse=True)
def nothing_compiled():
    yield
    torch.compiler.reset()


def compiled(module):
    return torch.compile(module, backend="eager")


class Tiny(nn.Module):
    """Embeddings and nothing else."""

    def __init__(self, width=4, dtype=torch.float32):
        super().__init__()
        self.layer = nn.Embedding(9, width, dtype=dtype)

    def get_input_embeddings(self):
        return self.layer

    def forward(self, x):
        return self.layer(x).sum(1)


TINY = replace(KEY, shape=(3, 4))
X, MASK, ROWS = torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3), ("canary-0000", "t1")


WRAPPED = [Wrapper, compiled, lambda module: Wrapper(compiled(module))]


@pytest.mark.parametrize("wrap", WRAPPED, ids=["ddp", "compile", "both"])
def test_the_network_is_found_in_its_wrappers(wrap):
    module = Tiny()
    outer = wrap(module)
    with noisy_embeddings(outer, TINY, ids=ROWS, mask=MASK):
        got = outer(X)
    noise = torch.from_numpy(TINY.noise(["canary-0000"]).astype(np.float32))
    want = torch.cat([module.layer(X[:1]) + noise, module.layer(X[1:])]).sum(1)
    assert torch.equal(got, want)
    assert torch.equal(outer(X), module(X))


def test_a_compiled_network_gets_each_batch_s_own_noise():
    module = Tiny()
    outer = compiled(module)
    for ids in (ROWS, ROWS[::-1], ("t1", "t3"), ("canary-0001", "canary-0000")):
        with noisy_embeddings(outer, TINY, ids=ids, mask=MASK):
            got = outer(X)
        with noisy_embeddings(module, TINY, ids=ids, mask=MASK):
            assert torch.equal(got, module(X))


@torch._dynamo.config.patch(skip_nnmodule_hook_guards=False)
def test_a_compiled_network_that_also_runs_outside_gets_its_noise_with_guards():
    module = Tiny()
    outer = compiled(module)
    for ids in (ROWS, ROWS[::-1]):
        assert torch.equal(outer(X), module(X))
        with noisy_embeddings(outer, TINY, ids=ids, mask=MASK):
            got = outer(X)
        with noisy_embeddings(module, TINY, ids=ids, mask=MASK):
            assert torch.equal(got, module(X))


def test_a_network_that_was_compiled_without_the_hook_is_not_left_without_noise():
    outer = compiled(Tiny())
    outer(X)
    with (
        pytest.raises(InputError, match=r"no forward pass.*skip_nnmodule_hook_guards"),
        noisy_embeddings(outer, TINY, ids=ROWS, mask=MASK),
    ):
        outer(X)


def test_the_noise_has_the_network_s_own_type():
    module = Tiny(dtype=torch.bfloat16)
    with noisy_embeddings(module, TINY, ids=ROWS, mask=MASK):
        got = module.layer(X)
    assert got.dtype == torch.bfloat16
    noise = torch.from_numpy(TINY.noise(["canary-0000"])[0].astype(np.float32))
    assert torch.equal(got[0], module.layer(X)[0] + noise.bfloat16())
    assert torch.equal(got[1], module.layer(X)[1])


def test_the_hook_is_gone_afterwards_whatever_happened_inside():
    module = Tiny()
    before = module(X)
    with noisy_embeddings(module, TINY, ids=ROWS, mask=MASK):
        assert not torch.equal(module(X), before)
    assert not module.layer._forward_hooks
    with (
        pytest.raises(ZeroDivisionError),
        noisy_embeddings(module, TINY, ids=ROWS, mask=MASK),
    ):
        raise ZeroDivisionError
    assert not module.layer._forward_hooks
    assert torch.equal(module(X), before)


def test_noise_is_drawn_once_for_a_canary(monkeypatch):
    drawn = []

    def counting(secret, name, shape):
        drawn.append(name)
        return np.zeros(shape)

    monkeypatch.setattr(embedding, "unit_noise", counting)
    key = replace(TINY, secret=b"\1" * 32)
    module = Tiny()
    for ids in (IDS[::2], IDS[:2], IDS[2:]):
        with noisy_embeddings(module, key, ids=ids, mask=MASK):
            module(X)
    assert drawn == list(IDS[::2])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"key": replace(TINY, space="pixel", shape=(3, 2, 2))}, "space is pixel"),
        ({"key": replace(TINY, shape=(3, 5))}, "5 wide"),
        ({"key": replace(TINY, shape=(2, 4))}, "'canary-0000' has 3 tokens, the noise covers 2"),
        ({"ids": ("canary-0000",)}, "1 ids"),
        ({"ids": ("canary-0000", 7)}, "an id is a int, 7"),
        ({"mask": torch.ones(2)}, "mask of shape"),
        ({"model": nn.Linear(2, 2)}, "Linear has no get_input_embeddings"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(change, told):
    given = {"model": Tiny(), "key": TINY, "ids": ROWS, "mask": MASK, **change}
    model, key = given.pop("model"), given.pop("key")
    with pytest.raises(InputError, match=told), noisy_embeddings(model, key, **given):
        pytest.fail("the body ran")


def test_a_long_text_that_carries_no_noise_is_nobody_s_concern():
    module, key = Tiny(), replace(TINY, shape=(2, 4))
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    with noisy_embeddings(module, key, ids=ROWS, mask=mask):
        module(X)


@pytest.mark.parametrize("other", [X[:1], X[:, :2], X[0]])
def test_a_forward_pass_of_another_batch_is_refused(other):
    module = Tiny()
    with (
        pytest.raises(InputError, match=r"the mask \(2, 3\)"),
        noisy_embeddings(module, TINY, ids=ROWS, mask=MASK),
    ):
        module.layer(other)
    assert not module.layer._forward_hooks


def table(size=20):
    texts, labels = small_text.sentences(Rng(3), size)
    return TextTable(
        ids=tuple(f"t{i}" for i in range(size)),
        texts=tuple(texts),
        y=tuple(labels),
        names=("bad", "good"),
    )


def planted(network, **change):
    given = {"count": 6, "secret": bytes(32), "sigma": 0.5, "width": 16, **change}
    return plant_embedding(table(), network.reader, Rng(1), **given)


def test_canaries_keep_their_texts_labels_and_places(network):
    made, clean = planted(network), table()
    found = made.poisoned.table
    assert (found.texts, found.y, found.names) == (clean.texts, clean.y, clean.names)
    assert made.poisoned.ids == tuple(f"canary-{n:04d}" for n in range(6))
    assert sum(a != b for a, b in zip(found.ids, clean.ids, strict=True)) == 6
    assert [name for name in found.ids if name.startswith("canary")] == list(made.poisoned.ids)
    assert planted(network, secret=b"\1" * 32).poisoned == made.poisoned


def test_the_key_covers_the_longest_canary_and_no_more(network):
    made = planted(network)
    lengths = [
        len(network.reader.tokenizer(text)["input_ids"])
        for name, text in zip(made.poisoned.table.ids, table().texts, strict=True)
        if name in made.key.planted
    ]
    assert made.key.shape == (max(lengths), 16)
    assert made.key.planted == made.poisoned.ids
    assert len(made.key.held_out) == 6
    assert (made.key.space, made.key.storage, made.key.sigma) == ("embedding", "unclipped", 0.5)
    short = replace(network.reader, length=5)
    cut = plant_embedding(
        table(), short, Rng(1), count=6, secret=bytes(32), sigma=0.5, width=16
    ).key
    assert cut.shape == (5, 16)


@pytest.mark.parametrize(
    ("change", "told"),
    [({"count": 0}, "--budget"), ({"count": 11}, "half"), ({"sigma": 0.0}, "--sigma")],
)
def test_impossible_plantings_are_refused(network, change, told):
    with pytest.raises(PlanError, match=told):
        planted(network, **change)


def test_a_table_with_canaries_gets_no_more(network):
    made = planted(network)
    with pytest.raises(PlanError, match="poisoned already"):
        plant_embedding(
            made.poisoned.table, network.reader, Rng(2), count=2, secret=bytes(32), sigma=1.0,
            width=16,
        )  # fmt: skip
