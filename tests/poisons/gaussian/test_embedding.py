"""Keyed noise on the embeddings of texts: which rows carry it, and keys that do not fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from builders.small_text import tokenizer
from poison_audit.case.forget import read_forget
from poison_audit.errors import InputError
from poison_audit.models.reader import Reader
from poison_audit.models.samples import Samples
from poison_audit.poisons.gaussian.embedding import (
    carrying,
    embedding_check,
    too_long,
    wrong_space,
)
from poison_audit.poisons.gaussian.evidence import Canaries, noise_rows, unit_noise
from poison_audit.poisons.readings import POISONS

LENGTH, WIDTH = 9, 5
KEY = Canaries(
    secret=bytes(range(32)), sigma=0.25, space="embedding", shape=(LENGTH, WIDTH),
    storage="unclipped", planted=("k0", "k1", "k2"), held_out=("h0", "h1", "h2"),
)  # fmt: skip
TEXTS = ("so", "so kafen bad leran midol", "so bad kafen", "so leran midol bad")  # one token a word


def table(ids=("a", "b", "c", "d")):
    read = Reader(tokenizer=tokenizer(), length=24).read(TEXTS)
    return Samples(
        ids=ids, x=read.x, y=torch.tensor([0, 1, 0, 1]), texts=TEXTS, mask=read.mask, cut=read.cut
    )


def forget(tmp_path, content, train):
    (tmp_path / "forget.csv").write_text(content)
    return read_forget(tmp_path / "forget.csv", train, where_train="train.csv", poisons=POISONS)


def check(tmp_path, content, *, key=KEY, train=None, width=WIDTH):
    train = train or table()
    names = {"where": "canaries.json", "where_forget": "forget.csv"}
    return embedding_check(key, forget(tmp_path, content, train), train, width=width, **names)


def refused(tmp_path, content, **more):
    with pytest.raises(InputError) as caught:
        check(tmp_path, content, **more)
    return [str(problem) for problem in caught.value.problems]


# The noise


@pytest.mark.parametrize("length", [1, 4, LENGTH, 30])
def test_rows_are_the_first_of_the_whole_noise(length):
    whole = np.stack([0.25 * unit_noise(bytes(range(32)), n, (LENGTH, WIDTH)) for n in ("k2", "z")])
    rows = noise_rows(KEY, ["k2", "z"], length=length)
    assert rows.dtype == torch.float32
    assert np.array_equal(rows.numpy(), whole[:, :length].astype(np.float32))
    assert np.array_equal(rows.numpy(), KEY.noise(["k2", "z"])[:, :length].astype(np.float32))


def test_noise_is_standard_normal_times_sigma():
    key = replace(KEY, shape=(64, 64))
    rows = noise_rows(key, ["k0"], length=64).numpy().ravel() / 0.25
    assert abs(rows.mean()) < 4 / 64  # four standard errors of 4096 draws
    assert abs(rows.std() - 1) < 4 / np.sqrt(2 * 4096)


def test_rows_of_a_table_carry_what_was_planted():
    train = carrying(table(), KEY, {"b": "k1", "d": "k0"})
    assert train.noisy.tolist() == [-1, 0, -1, 1]
    assert train.noise.shape == (2, 5, WIDTH)  # as long as the longest canary
    assert np.array_equal(train.noise[1], KEY.noise(["k0"])[0, :5].astype(np.float32))
    noise = train.batch(torch.tensor([3, 0, 1])).noise
    assert np.array_equal(noise[0, :4], KEY.noise(["k0"])[0, :4].astype(np.float32))
    assert not noise[1].any()
    assert np.array_equal(noise[2], KEY.noise(["k1"])[0, :5].astype(np.float32))


def test_planted_ids_name_themselves_and_others_do_not():
    train = table(ids=("k0", "h0", "k2", "d"))
    assert carrying(train, KEY, {}).noisy.tolist() == [0, -1, 1, -1]
    # A row that is named another canary carries that one, and one of no name its own.
    named = carrying(train, KEY, {"k0": "k1", "k2": ""})
    assert named.noisy.tolist() == [0, -1, 1, -1]
    expected = KEY.noise(["k1", "k2"])[:, :3].astype(np.float32)
    assert np.array_equal(named.noise, expected)


def test_a_table_without_canaries_stays_as_it_is():
    train = table()
    assert carrying(train, KEY, {}) is train


# The check


def test_canaries_are_tied_to_their_key(tmp_path):
    planting = check(tmp_path, "id,attack,canary\nd,gaussian,k2\nb,,k0\na,backdoor,\n")
    assert planting.bases.ids == ("k2", "k0")
    assert planting.missing == 1
    assert planting.attenuation == 1.0
    assert planting.bases.texts == (TEXTS[3], TEXTS[1])
    assert planting.bases.y.tolist() == [1, 1]
    assert planting.bases.noise is planting.bases.noisy is None


def test_bases_are_no_wider_than_the_longest_of_them(tmp_path):
    train = table(ids=("k0", "b", "k1", "d"))
    planting = check(tmp_path, "id,attack\nk0,gaussian\nk1,gaussian\n", train=train)
    assert planting.bases.x.shape == planting.bases.mask.shape == (2, 3)
    assert planting.bases.mask.sum(1).tolist() == [1, 3]


def test_bases_carry_no_noise_though_the_table_does(tmp_path):
    train = carrying(table(), KEY, {"b": "k1"})
    planting = check(tmp_path, "id,canary\nb,k1\n", train=train)
    assert planting.bases.batch().noise is None


def test_a_text_may_name_itself_as_its_base(tmp_path):
    assert check(tmp_path, "id,canary,base\nb,k1,b\n").bases.ids == ("k1",)
    assert refused(tmp_path, "id,canary,base\nb,k1,a\nd,k0,d\n") == [
        "forget.csv row 2: names the base 'a'. A canary's text is its own base."
    ]


def test_a_forget_set_without_canaries(tmp_path):
    assert refused(tmp_path, "id,attack\na,backdoor\nk0,token-canary\n", train=table(
        ids=("a", "b", "k0", "d")
    )) == [
        "forget.csv: no row is a canary. Say attack = gaussian, or name the key's id in the canary "
        "column; of a bare list make a CSV with the header id,attack,base first."
    ]  # fmt: skip


def test_names_that_the_key_did_not_plant(tmp_path):
    assert refused(tmp_path, "id,canary\na,k9\nb,h1\nc,k0\n") == [
        "forget.csv row 2: the canary 'k9' is not among the planted ids of canaries.json. Is this "
        "the key of this planting?",
        "forget.csv row 3: the canary 'h1' is held out in canaries.json. A held-out key must never "
        "have been trained on.",
    ]


def test_a_key_of_another_model(tmp_path):
    rows = "id,canary\nb,k0\n"
    assert refused(tmp_path, rows, width=7) == [
        "canaries.json: the noise is 5 wide, the model's input embeddings 7. Is this the key of "
        "this model's planting?"
    ]
    pixels = replace(KEY, space="pixel", shape=(3, 8, 8))
    assert refused(tmp_path, rows, key=pixels) == [
        "canaries.json: space is pixel, but the samples are texts. Canaries in texts are planted "
        "in embedding space."
    ]
    assert wrong_space(KEY, width=WIDTH, where="canaries.json") == []


def test_canaries_longer_than_the_noise(tmp_path):
    short = replace(KEY, shape=(3, WIDTH))
    assert refused(tmp_path, "id,canary\nb,k0\nc,k1\nd,k2\n", key=short) == [
        f"canaries.json: {name!r} has {n} tokens, the noise covers 3. Is the model read as it was "
        "trained, by --max-tokens and --prompt?"
        for name, n in (("b", 5), ("d", 4))
    ]
    assert too_long(replace(KEY, shape=(5, WIDTH)), table(), "canaries.json") == []


def test_several_problems_are_said_at_once(tmp_path):
    said = refused(tmp_path, "id,canary,base\na,k9,b\nb,k0,\n", width=7)
    assert [line.split(":")[0] for line in said] == [
        "canaries.json", "forget.csv row 2", "forget.csv row 2"
    ]  # fmt: skip
