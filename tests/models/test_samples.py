"""Samples in memory: batches of texts and pictures, parts and joins, digests."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from poison_audit.models.samples import Samples, as_pixels
from poison_audit.models.seeds import Rng
from poison_audit.training.batches import shuffled

LENGTHS = [2, 5, 0, 3]


def texts():
    """Four texts of 2, 5, 0 and 3 tokens; the first and the last carry noise of 4 rows."""
    x, mask = torch.zeros(4, 6, dtype=torch.int64), torch.zeros(4, 6, dtype=torch.int64)
    for row, n in enumerate(LENGTHS):
        x[row, :n], mask[row, :n] = torch.arange(1, n + 1) + 10 * row, 1
    return Samples(
        ids=("a", "b", "c", "d"), x=x, y=torch.tensor([0, 1, 0, 1]), names=("bad", "good"),
        texts=("A", "B", "C", "D"), mask=mask, cut=torch.tensor([False, True, False, False]),
        noise=torch.arange(24.0).reshape(2, 4, 3) + 1, noisy=torch.tensor([1, -1, -1, 0]),
    )  # fmt: skip


def pictures():
    x = torch.arange(4 * 4, dtype=torch.uint8).reshape(4, 1, 2, 2)
    return Samples(ids=("a", "b", "c", "d"), x=x, y=torch.arange(4))


@pytest.mark.parametrize(
    ("positions", "longest"), [([0, 3], 3), ([3, 0], 3), ([1], 5), ([2], 1), ([2, 0], 2)]
)
def test_a_batch_is_as_long_as_its_longest_text(positions, longest):
    samples = texts()
    batch = samples.batch(torch.tensor(positions))
    assert batch.x.shape == batch.mask.shape == (len(positions), longest)
    assert batch.mask.sum(1).tolist() == [LENGTHS[i] for i in positions]
    assert batch.y.tolist() == [samples.y[i].item() for i in positions]
    for row, i in zip(batch.x, positions, strict=True):
        assert row.tolist() == [*samples.x[i, : LENGTHS[i]].tolist(), *[0] * (longest - LENGTHS[i])]


def test_noise_goes_to_the_rows_that_carry_it():
    samples = texts()
    noise = samples.batch(torch.tensor([1, 0, 3])).noise
    assert noise.shape == (3, 5, 3)
    assert not noise[0].any()
    # Row 0 carries the second noise and row 3 the first; there is none beyond its four tokens.
    assert torch.equal(noise[1, :4], samples.noise[1])
    assert torch.equal(noise[2, :4], samples.noise[0])
    assert not noise[:, 4].any()
    assert torch.equal(samples.batch(torch.tensor([3])).noise, samples.noise[:1, :3])
    assert samples.batch(torch.tensor([1, 2])).noise is None
    assert replace(samples, noise=None, noisy=None).batch().noise is None


def test_in_order_is_every_sample_once():
    batches = list(texts().in_order(3))
    assert [len(batch) for batch in batches] == [3, 1]
    assert torch.cat([batch.y for batch in batches]).tolist() == [0, 1, 0, 1]
    assert batches[1].x.tolist() == [[31, 32, 33]]
    assert batches[0].noise.shape == (3, 5, 3)


@pytest.mark.parametrize("positions", [[3, 1], torch.tensor([3, 1])])
def test_parts_keep_all_that_belongs_to_a_sample(positions):
    part = texts().at(positions)
    assert (part.ids, part.texts) == (("d", "b"), ("D", "B"))
    assert (part.y.tolist(), part.cut.tolist()) == ([1, 1], [False, True])
    assert part.noisy.tolist() == [0, -1]
    assert part.mask.sum(1).tolist() == [3, 5]
    assert torch.equal(part.batch().noise[0, :3], texts().noise[0, :3])
    assert torch.equal(part.x, texts().select(["d", "b"]).x)
    assert len(texts().at([])) == 0
    with pytest.raises(KeyError):
        texts().select(["z"])


@pytest.mark.parametrize("make", [texts, pictures])
def test_parts_join_to_the_whole(make):
    whole = make()
    joined = whole.at([0]).joined(whole.at([1, 2, 3]))
    assert joined.digest() == whole.digest()
    assert joined.ids == whole.ids
    assert joined.texts == whole.texts
    for name in ("mask", "cut", "noisy", "noise"):
        mine, theirs = getattr(joined, name), getattr(whole, name)
        assert (mine is theirs is None) or torch.equal(mine, theirs)


def test_another_device_takes_along_what_batches_hold():
    moved = texts().to("meta")
    for name in ("x", "y", "noise"):
        assert getattr(moved, name).device.type == "meta"
    assert moved.ids == texts().ids
    assert pictures().to("meta").x.device.type == "meta"
    assert pictures().to("meta", streamed=True).x.device.type == "cpu"


def test_no_batch_waits_for_its_device():
    """A meta tensor has no values: whatever asked it for one would fail."""
    moved = texts().to("meta")
    for positions in ([0, 3], [1], [2]):
        batch, expected = (s.batch(torch.tensor(positions)) for s in (moved, texts()))
        assert batch.x.shape == expected.x.shape
        assert (batch.noise is None) == (expected.noise is None)
        assert {t.device.type for t in (batch.x, batch.y, batch.mask)} == {"meta"}


@pytest.mark.parametrize("augment", ["none", "flip", "crop-flip"])
@pytest.mark.parametrize("streamed", [False, True])
def test_no_augmentation_waits_for_its_device(augment, streamed):
    whole = replace(pictures(), x=torch.zeros(4, 1, 8, 8, dtype=torch.uint8))
    batches = shuffled(whole.to("meta", streamed=streamed), 3, Rng(0), augment=augment)
    for batch, _ in zip(batches, range(4), strict=False):
        assert (batch.x.shape, batch.x.device.type) == ((3, 1, 8, 8), "meta")
        assert batch.y.device.type == "meta"


def test_digests_tell_every_difference():
    samples = texts()
    others = [
        replace(samples, ids=("a", "b", "c", "e")),
        replace(samples, texts=("A", "B", "C", "E")),
        replace(samples, x=samples.x + 1),
        replace(samples, y=1 - samples.y),
        replace(samples, noise=samples.noise + 1),
        replace(samples, noisy=samples.noisy.flip(0)),
        replace(samples, noise=None, noisy=None),
    ]
    digests = {part.digest() for part in (samples, *others)}
    assert len(digests) == 8
    assert texts().digest() == samples.digest()


def test_pixels_are_divided_by_255():
    batch = pictures().batch(slice(1, 3))
    expected = (torch.arange(4, 12) / 255).reshape(2, 1, 2, 2)
    torch.testing.assert_close(batch.x, expected, rtol=0, atol=1e-7)
    assert batch.mask is batch.noise is None
    assert as_pixels(torch.ones(1, dtype=torch.float64)).dtype == torch.float64
    assert as_pixels(torch.ones(1, dtype=torch.float16)).dtype == torch.float32
