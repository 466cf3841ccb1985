"""Nesterov, label smoothing, averaged weights and alternating flips, against torch's own."""

from itertools import islice, pairwise

import pytest
import torch
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from poison_audit.models.image import CifarResNet, CifarResNetSpec, image_classifier
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.records import Recipe
from poison_audit.training.batches import shuffled, smallest
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import as_trained, descend_on, recipe_settings

RNG = Rng(4)
RECIPE = Recipe(
    epochs=2, lr=0.05, batch_size=5, momentum=0.8, nesterov=True, label_smoothing=0.2, ema=0.9,
    weight_decay=0.01, schedule="cosine", augment="shift-flip",
)  # fmt: skip


def net():
    def build():
        return CifarResNet(CifarResNetSpec((1,), 4), channels=1, classes=3)

    return image_classifier(build(), build=build, arch="", classes=3).fresh(RNG.named("net"))


def samples(n=12, side=8):
    draws = RNG.named("x").torch()
    return Samples(
        ids=tuple(map(str, range(n))), x=torch.rand(n, 1, side, side, generator=draws),
        y=torch.arange(n) % 3,
    )  # fmt: skip


def trained(steps, start=None, watch=lambda step, take: None):
    model, ledger = net(), Ledger()
    descend_on(
        model, samples(), RECIPE, RNG, ledger=ledger, steps=steps, start=start, watch=watch,
        **as_trained(RECIPE),
    )  # fmt: skip
    return model


def test_a_whole_recipe_is_torchs_own_parts_put_together():
    ours, steps = trained(6), 6
    module = net().module.train()
    sgd = torch.optim.SGD(
        module.parameters(), lr=0.05, momentum=0.8, nesterov=True, weight_decay=0.01
    )
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, steps)
    average = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    batches = shuffled(samples(), 5, RNG.named("batches"), augment="shift-flip")
    for batch in islice(batches, steps):
        sgd.zero_grad()
        F.cross_entropy(module(batch.x), batch.y, label_smoothing=0.2).backward()
        sgd.step()
        cosine.step()
        average.update_parameters(module)
    for name, tensor in average.module.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(ours.module.state_dict()[name], tensor, msg=name)


@pytest.mark.parametrize("stop", [1, 4])
def test_a_descent_that_went_on_ends_in_the_same_average(stop):
    kept = []
    whole = trained(6, watch=lambda step, take: kept.append(take()) if step == stop else None)
    assert trained(6, start=kept[0]).digest() == whole.digest()


def test_without_momentum_nothing_looks_ahead():
    assert not recipe_settings(Recipe(nesterov=True, momentum=0.0))["nesterov"]
    assert recipe_settings(Recipe(nesterov=True))["nesterov"]


def test_every_sample_is_flipped_in_every_other_epoch():
    # Three columns stand for the side: a shift by two leaves one of them there.
    x = torch.zeros(7, 1, 8, 8)
    x[..., :3] = 1
    data = Samples(ids=tuple(map(str, range(7))), x=x, y=torch.arange(7))
    seen = {n: [] for n in range(7)}
    for batch in islice(shuffled(data, 3, RNG, augment="shift-flip"), 14):  # six epochs
        for picture, n in zip(batch.x, batch.y.tolist(), strict=True):
            seen[n].append(bool(picture[..., -2:].sum() > picture[..., :2].sum()))
    assert all(a != b for flips in seen.values() for a, b in pairwise(flips))
    assert {flips[0] for flips in seen.values()} == {True, False}


def test_a_shift_is_a_crop_of_the_mirrored_picture():
    data = samples()
    padded = F.pad(data.x, (2, 2, 2, 2), mode="reflect")
    for batch in islice(shuffled(data, 12, RNG, augment="shift-flip"), 3):
        for n, picture in enumerate(batch.x):
            crops = [
                padded[m, :, top : top + 8, left : left + 8]
                for m in range(12) for top in range(5) for left in range(5)
                if m % 3 == batch.y[n]
            ]  # fmt: skip
            assert any(
                torch.equal(picture, each) or torch.equal(picture.flip(2), each) for each in crops
            )
    assert [smallest(each) for each in ("none", "flip", "crop-flip", "shift-flip")] == [1, 1, 1, 3]
