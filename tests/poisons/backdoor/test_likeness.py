"""Which pictures carry a trigger: planted ones are told from others, or it is said that none is."""

import numpy as np
import pytest
import torch

from poison_audit.models.samples import Samples
from poison_audit.poisons.backdoor.evidence import Trigger, patch
from poison_audit.poisons.backdoor.likeness import likeness

SHAPE = (3, 16, 16)


def scenes(seed, n):
    """Smooth pictures: sums of a few waves of low frequency, and a little grain, to 8 bits."""
    rng = np.random.default_rng(seed)
    low = torch.from_numpy(rng.random((n, 3, 4, 4))).float()
    x = torch.nn.functional.interpolate(low, size=16, mode="bicubic").clamp(0, 1)
    x = (x + 0.02 * torch.from_numpy(rng.standard_normal(x.shape)).float()).clamp(0, 1)
    return (x * 255).round() / 255


def samples(x):
    return Samples(ids=tuple(map(str, range(len(x)))), x=x, y=torch.zeros(len(x)).long())


def waves(size, frequency=4):
    wave = size * torch.sin(torch.arange(16) * 2 * torch.pi * frequency / 16)
    return Trigger(keep=torch.ones(SHAPE), add=wave.expand(SHAPE).clone(), label=0, mode="add")


def noise(alpha):
    p = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0))
    return Trigger(keep=torch.full(SHAPE, 1 - alpha), add=alpha * p, label=0, mode="blend")


GRID = torch.tensor([[[1.0, 0], [0, 1]]]).expand(3, 2, 2)


@pytest.mark.parametrize(
    "trigger",
    [
        patch(GRID, SHAPE, top=2, left=3, label=0),
        patch(GRID, SHAPE, top=2, left=3, label=0, anywhere=True),
        waves(20 / 255),
        noise(0.1),
        noise(0.2),
    ],
)
def test_carriers_are_told_one_by_one(trigger):
    x = scenes(0, 200)
    x[:100] = (trigger.stamp(x[:100]) * 255).round() / 255
    seen = likeness(trigger, samples(x), samples(scenes(1, 300)))
    assert seen.untold == ""
    right = seen.carries == (torch.arange(200) < 100)
    assert float(right.float().mean()) >= 0.97


def test_a_faint_one_is_told_by_many_rows_together_or_not_at_all():
    trigger, x, rows = waves(4 / 255, frequency=1), scenes(0, 200), torch.arange(200) < 100
    clean = likeness(trigger, samples(x), samples(scenes(1, 300)))
    assert "of retain pictures seem to carry it" in clean.untold
    assert not bool(clean.carries.any())
    assert not clean.together(rows)
    few = x.clone()
    few[:40] = trigger.stamp(few[:40])
    assert not likeness(trigger, samples(few), samples(scenes(1, 300))).together(rows)


@pytest.mark.parametrize(("given", "planted"), [(0.1, 0.2), (0.1, 0.5), (0.05, 0.2), (0.01, 0.2)])
def test_a_trigger_that_is_fainter_than_the_planted_one_explains_no_row(given, planted):
    # A blend moves a picture by alpha times what separates it from the pattern.
    x, rows = scenes(0, 200), torch.arange(200) < 100
    x[:100] = (noise(planted).stamp(x[:100]) * 255).round() / 255
    seen = likeness(noise(given), samples(x), samples(scenes(1, 300)))
    assert not bool(seen.carries.any())
    assert not seen.together(rows)
    many, times = seen.stronger(rows)
    assert many == 100
    assert times == pytest.approx(planted / given, rel=0.1)
    assert seen.stronger(~rows) is None


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_what_is_as_strong_as_it_is_given_is_not_called_stronger(alpha):
    for seed in range(5):
        x = scenes(seed, 200)
        x[:140] = (noise(alpha).stamp(x[:140]) * 255).round() / 255
        seen = likeness(noise(alpha), samples(x), samples(scenes(seed + 9, 300)))
        assert seen.stronger(torch.ones(200, dtype=torch.bool)) is None
        assert seen.stronger(torch.arange(200) < 140) is None


def test_what_cannot_be_told_is_said():
    faint = Trigger(keep=torch.full(SHAPE, 0.9), add=torch.zeros(SHAPE), label=0, anywhere=True)
    seen = likeness(faint, samples(scenes(0, 9)), samples(scenes(1, 300)))
    assert "at any place" in seen.untold
    assert not bool(seen.carries.any())
    few = likeness(noise(0.2), samples(scenes(0, 9)), samples(scenes(1, 20)))
    assert "by 20 retain pictures" in few.untold
