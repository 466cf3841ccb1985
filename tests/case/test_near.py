"""Near-duplicates: planted ones are found, look-alikes and real data hardly merge."""

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from poison_audit.case.copies import distinct
from poison_audit.case.near import clusters
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng


def pictures(n=200, seed=1):
    """Random pictures whose amplitudes fall as those of photographs do, by 1/f: (n, 3, 32, 32)."""
    rng = Rng(seed).named("near").torch()
    rate = (torch.fft.fftfreq(48)[:, None] ** 2 + torch.fft.rfftfreq(48)[None] ** 2).sqrt()
    rough = torch.randn(n, 3, 48, 25, dtype=torch.complex64, generator=rng) / (rate + 1 / 48)
    x = torch.fft.irfft2(rough, s=(48, 48))[:, :, :32, :32]
    x = x.mean(1, keepdim=True) + 0.3 * x
    return of((0.5 + 0.2 * x / x.std((1, 2, 3), keepdim=True)).clamp(0, 1))


def of(x, y=None):
    x = (x * 255).round().to(torch.uint8) if x.is_floating_point() else x
    y = torch.zeros(len(x), dtype=torch.int64) if y is None else y
    return Samples(ids=tuple(map(str, range(len(x)))), x=x, y=y)


def texts(*told, pairs=None, labels=None):
    y = torch.tensor(labels or [0] * len(told))
    x = torch.arange(len(told))[:, None]
    return Samples(
        ids=tuple(map(str, range(len(told)))), x=x, y=y, texts=told, pairs=pairs,
        mask=torch.ones_like(x),
    )  # fmt: skip


def moved(x):
    """Four augmentations of each picture: mirrored, two padded crops, in other light with noise."""
    padded = F.pad(x, (4, 4, 4, 4))
    rng = Rng(2).named("light").torch()
    light = 0.8 * x + 0.1 + 0.01 * torch.randn(x.shape, generator=rng)
    return [x.flip(3), padded[:, :, 2:34, 7:39], padded[:, :, 6:38, 1:33], light.clamp(0, 1)]


def test_augmentations_of_a_picture_are_one_cluster():
    x = pictures(150).x / 255
    found = distinct(of(torch.cat([x, *moved(x)])))
    assert (found.repeated, found.near) == (0, 750 - len(found.samples))
    assert 150 <= len(found.samples) <= 190  # crops of other seams are not found
    assert f"{found.near} of 750 test samples are nearly the same" in found.said()[0]
    # The first of a cluster stays, in the order of the table.
    assert found.samples.ids[:150] == tuple(map(str, range(150)))


CIFAR10 = Path(__file__).parents[3] / "shared" / "data" / "cifar10" / "cifar10-full.npz"


def test_real_pictures_hardly_merge_and_their_augmentations_do():
    if not CIFAR10.exists():
        pytest.skip(f"needs {CIFAR10}")
    with np.load(CIFAR10) as held:
        head, ends = held["header"].tobytes(), np.cumsum(held["test_lengths"])[:1500]
        files = held["test_scans"][: ends[-1]].tobytes()
    scans = [files[a:b] for a, b in pairwise([0, *ends.tolist()])]
    shown = [np.asarray(Image.open(io.BytesIO(head + scan))) for scan in scans]
    x = torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2)
    assert len(distinct(of(x)).samples) >= 1498
    some = x[:300] / 255
    assert len(distinct(of(torch.cat([some, *moved(some)]))).samples) <= 360  # of 1,500


def test_other_pictures_and_other_labels_stay_apart():
    alone = pictures(300)
    assert clusters(alone) == list(range(300))
    assert distinct(alone).said() == ()
    twice = torch.cat([alone.x, alone.x.flip(3)])
    labels = torch.arange(2).repeat_interleave(300)
    assert clusters(of(twice, labels)) == list(range(600))


@pytest.mark.parametrize("shape", [(3, 1, 8, 8), (1, 3, 4, 4), (0, 3, 32, 32)])
def test_flat_few_and_small_pictures_do_no_harm(shape):
    assert clusters(of(torch.zeros(shape))) == list(range(shape[0]))


REVIEW = (
    "I went to see this with two friends last night and none of us could say what the plot was "
    "supposed to be, although the songs were lovely and the leading man can surely dance"
)


def test_texts_that_share_most_of_their_runs_of_words_are_one():
    other = "A quiet film about a village by the sea, and the people who leave it one after another"
    near = REVIEW.upper().replace("LOVELY", "nice") + "!!"
    assert clusters(texts(REVIEW, other, near, other + " in spring")) == [0, 1, 0, 1]
    assert clusters(texts(REVIEW, near, labels=[0, 1])) == [0, 1]
    assert clusters(texts("Good film.", "good film", "bad film", "", "!")) == [0, 0, 2, 3, 4]


def test_many_near_copies_are_one_cluster_and_a_phrase_is_none():
    copies = [f"{REVIEW} {word}" for word in map(str, range(80))]
    others = [f"I went to see this with two friends {' '.join(f'w{i}x{j}' for j in range(20))}"
              for i in range(80)]  # fmt: skip
    found = clusters(texts(*[text for both in zip(copies, others, strict=True) for text in both]))
    assert found == [place if place % 2 else 0 for place in range(160)]


def test_of_pairs_both_texts_have_to_be_nearly_the_same():
    pairs = ("It rained.", "It was dry.", "it rained")
    assert clusters(texts(REVIEW, REVIEW, REVIEW, pairs=pairs)) == [0, 1, 0]
