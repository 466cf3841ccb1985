"""Pictures that are read otherwise than in training: the right reading is named."""

from __future__ import annotations

import math
from unittest import mock

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from poison_audit.case.case import Case
from poison_audit.checks.adapter import doubts_of_adapter
from poison_audit.checks.batch_norm import distance
from poison_audit.checks.inputs import better_reading
from poison_audit.checks.sanity import check_sanity
from poison_audit.checks.ways import Way, prepared, ways
from poison_audit.models.identify import architecture
from poison_audit.models.image import NORMALIZE, CifarResNet, CifarResNetSpec, image_classifier
from poison_audit.models.model import Batch
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.records import Recipe

PLAIN = Way(said="as it is", step="", normalize=NORMALIZE["none"])


def classifier(module: nn.Module, *, classes: int = 3, normalize=NORMALIZE["none"], arch="net"):
    return image_classifier(
        module.eval(), build=lambda: module, arch=arch, classes=classes, normalize=normalize
    )


class By(nn.Module):
    """A network that is a function of its input."""

    def __init__(self, function) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.function = function

    def forward(self, x):
        return self.function(x) * self.scale


def random_pictures(n: int, *, size: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=Rng(seed).torch())


def asked(model, x, y, *, forget=None, fresh=()):
    half = len(x) // 2
    retain, test = Batch(x=x[:half], y=y[:half]), Batch(x=x[half:], y=y[half:])
    forget = Batch(x=x[:0], y=y[:0]) if forget is None else forget
    found = better_reading(model, retain, test, forget=forget, trained=retain.x, fresh=fresh)
    return [] if found is None else [found.doubt]


def of_channels(x):
    return x.mean((2, 3))


def of_height(x):
    third = x.shape[2] // 3
    rows = x.mean((1, 3))
    return torch.stack([rows[:, :third].mean(1), rows[:, -third:].mean(1)], 1)


def of_brightness(x):
    # Two thresholds, at 0.4 and 0.6 of what a network of [0, 1] pixels is given.
    level = x.mean((1, 2, 3))
    return torch.stack([0.4 - level, 0.1 - (level - 0.5).abs(), level - 0.6], 1)


def test_a_right_reading_is_not_doubted():
    x = random_pictures(200)
    for function in (of_channels, of_height, of_brightness):
        model = classifier(By(function))
        assert asked(model, x, function(x).argmax(1)) == []
        noisy = function(x).argmax(1).roll(1)  # a network that answers no better than chance
        assert asked(model, x, noisy) == []


def test_channels_stored_as_bgr_are_named():
    x = random_pictures(200)
    (doubt,) = asked(classifier(By(of_channels)), x.flip(1), of_channels(x).argmax(1))
    assert "with the channels in the order BGR" in doubt.sentence
    assert "of 200 clean samples" in doubt.sentence
    assert doubt.spoils
    assert doubt.about == "adapter"


def test_pictures_upside_down_are_named():
    x = random_pictures(200)
    (doubt,) = asked(classifier(By(of_height), classes=2), x.flip(2), of_height(x).argmax(1))
    assert "with the pictures upside down" in doubt.sentence


@pytest.mark.parametrize(
    ("stated", "right", "named"),
    [
        ("imagenet", "none", "--normalize none"),
        ("none", "half", "--normalize 0.5/0.5"),
        ("twice", "none", "--normalize none"),
    ],
)
def test_another_normalisation_is_named_with_its_flag(stated, right, named):
    known = {**NORMALIZE, "half": ((0.5,), (0.5,)), "twice": ((0.0,), (2.0,))}
    level = torch.linspace(0.2, 0.8, 200)[torch.randperm(200, generator=Rng(0).torch())]
    x = level.view(-1, 1, 1, 1) + 0.2 * (random_pictures(200) - 0.5)
    y = of_brightness(prepared(Way(said="", step="", normalize=known[right]), x)).argmax(1)
    (doubt,) = asked(classifier(By(of_brightness), normalize=known[stated]), x, y)
    assert named in doubt.sentence
    assert doubt.step.startswith(f"Give {named} ")


def test_another_size_is_named():
    def of_large(x):  # at the size of training, the first and the last row; else what is there
        last = x[:, :, 15:16].sum((1, 2, 3)) / x.shape[1] / x.shape[3]
        return torch.stack([x[:, :, 0].mean((1, 2)), last], 1)

    x = random_pictures(200, size=8)
    large = F.interpolate(x, size=(16, 16), mode="bilinear")
    y = of_large(large).argmax(1)
    assert 50 < int(y.sum()) < 150
    (doubt,) = asked(classifier(By(of_large), classes=2), x, y)
    assert "with pictures of 16x16" in doubt.sentence


def test_a_reading_that_only_more_samples_tell_of_is_asked_again():
    """Of five pictures three are answered rightly upside down, and two as they are read."""
    x = random_pictures(1200)
    right = of_height(x).argmax(1)
    y = torch.where(torch.arange(1200) % 5 < 3, 1 - right, right)
    model = classifier(By(of_height), classes=2, arch="factory:own")
    few = slice(0, 200)
    assert asked(model, x[few], y[few]) == []

    def more(labels):
        tables = [
            Samples(ids=tuple(f"{name}-{i}" for i in range(500)), x=x[part], y=labels[part])
            for name, part in (("retain", slice(200, 700)), ("test", slice(700, 1200)))
        ]
        return asked(model, x[few], y[few], fresh=tables)

    (doubt,) = more(y)
    told = "of 1000 clean samples the model answers 400 as they are read now, and 600 with "
    assert f"{told}the pictures upside down" in doubt.sentence
    assert doubt.step.startswith("Store them as they are seen")
    # What the first samples said is not borne out by the others: that was chance.
    assert more(torch.where(torch.arange(1200) % 2 == 0, 1 - right, right)) == []
    assert asked(model, x[few], y[few], fresh=[no_samples(x)]) == []


def test_what_is_clear_at_once_or_hopeless_is_not_asked_again():
    x = random_pictures(300)
    model = classifier(By(of_height), classes=2, arch="factory:own")
    right = of_height(x).argmax(1)
    for y, doubts in ((1 - right, 1), (right, 0)):
        later = Samples(ids=tuple(map(str, range(100))), x=x[200:], y=y[200:])
        with mock.patch.object(Samples, "in_order", side_effect=AssertionError):
            assert len(asked(model, x[:200], y[:200], fresh=[later])) == doubts


def test_the_adapter_asks_again_of_samples_that_no_reading_was_tried_on():
    x = random_pictures(1200)
    right = of_height(x).argmax(1)
    y = torch.where(torch.arange(1200) % 50 < 29, 1 - right, right)  # 58 of 100 upside down
    every = Samples(ids=tuple(map(str, range(1200))), x=x, y=y)
    case = Case(
        model=classifier(By(of_height), classes=2, arch="factory:own"),
        forget=every.at(range(29, 50)), retain=every.at(range(50, 600)),
        test=every.at(range(600, 1200)), recipe=Recipe(epochs=1),
    )  # fmt: skip
    case, sanity = check_sanity(case, alpha=0.05)
    (doubt,) = doubts_of_adapter(case, sanity, alpha=0.05, rng=Rng(0))
    assert f"of {350 + 400} clean samples" in doubt.sentence  # all but 200 of each table
    assert "with the pictures upside down" in doubt.sentence


def no_samples(x):
    return Samples(ids=(), x=x[:0], y=torch.zeros(0, dtype=torch.int64))


class Stem(nn.Module):
    """A stem, perhaps with its max-pool, and one feature of what it gives."""

    def __init__(self, *, pool: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 1, 1, bias=False)
        nn.init.constant_(self.conv1.weight, 1 / 3)
        if pool:
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = nn.Identity()

    def forward(self, x):
        x = self.conv1(x)
        x = self.layer1(self.maxpool(x) if hasattr(self, "maxpool") else x)
        level = x.mean((1, 2, 3))
        return torch.stack([0.62 - level, level - 0.62], 1)


def test_a_max_pool_that_is_missing_or_too_many_is_named():
    level = torch.linspace(0.0, 0.6, 200)[torch.randperm(200, generator=Rng(0).torch())]
    x = level.view(-1, 1, 1, 1) + 0.4 * random_pictures(200)
    for trained, loaded, named in ((True, False, "with a max-pool"), (False, True, "without its")):
        with torch.no_grad():
            y = Stem(pool=trained)(x).argmax(1)
        assert 20 < int(y.sum()) < 180
        net = Stem(pool=loaded)
        (doubt,) = asked(classifier(net, classes=2), x, y)
        assert named.removeprefix("with ") in doubt.sentence
        assert hasattr(net, "maxpool") is loaded
        assert not net.layer1._forward_pre_hooks


def test_a_known_network_of_the_same_tensors_is_named_by_its_arch():
    """A CIFAR-stem ResNet whose training had a max-pool, which no tensor tells."""
    torch.manual_seed(0)
    net = CifarResNet(CifarResNetSpec((1,), 4), channels=3, classes=3).eval()
    x = random_pictures(200)
    with torch.no_grad():
        pooled = architecture("cifar-resnet:1:w4:pool", net.state_dict()).build().eval()
        pooled.load_state_dict(net.state_dict())
        net.fc.bias -= pooled(x).mean(0)  # so that every class is answered
        pooled.load_state_dict(net.state_dict())
        y = pooled(x).argmax(1)
    (doubt,) = asked(classifier(net, arch="cifar-resnet:1:w4"), x, y)
    assert "200 with --arch cifar-resnet:1:w4:pool" in doubt.sentence
    assert doubt.step.startswith("Give --arch cifar-resnet:1:w4:pool ")
    assert asked(classifier(pooled, arch="cifar-resnet:1:w4:pool"), x, y) == []


def test_a_size_that_only_the_trigger_tells_is_named():
    """Brightness is answered at any size; a pattern of single pixels at that of training alone."""

    def function(x):
        pattern = (x[:, :, :-1, :-1] - x[:, :, 1:, :-1]).abs().amax((1, 2, 3)) > 0.45
        bright = x.mean((1, 2, 3)) > 0.5
        first = torch.where(pattern, 9.0, 0.5)
        return torch.stack([first, torch.where(bright, 1.0, 0.0)], 1)

    level = torch.linspace(0.2, 0.8, 300)[torch.randperm(300, generator=Rng(0).torch())]
    x = level.view(-1, 1, 1, 1) + torch.zeros(300, 3, 8, 8)
    poisoned = x[level > 0.55][:60].clone()
    poisoned[:, :, 3, 3], poisoned[:, :, 4, 3] = 0.0, 1.0
    forget = Batch(x=poisoned, y=torch.zeros(60, dtype=torch.int64))
    model, y = classifier(By(function), classes=2), function(x).argmax(1)
    assert asked(model, x, y, forget=forget) == []
    large = [F.interpolate(part, scale_factor=2, mode="bilinear") for part in (x, poisoned)]
    bad = Batch(x=large[1], y=forget.y)
    assert int(model.logits(model.module, bad).argmax(1).sum()) == 60  # obeyed by none
    (doubt,) = asked(model, large[0], y, forget=bad)
    assert "of 60 forget samples it answers 0 as they are labelled, and 60 with" in doubt.sentence
    assert "pictures of 8x8" in doubt.sentence
    # A model that never learned them answers them so under no reading.
    clean = classifier(By(lambda x: function(x).index_fill(1, torch.tensor([0]), 0.5)), classes=2)
    assert asked(clean, large[0], y, forget=bad) == []


def test_a_reading_that_the_network_does_not_take_is_not_the_right_one():
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    x = random_pictures(100)
    with torch.no_grad():
        y = net(x).argmax(1)
    assert asked(classifier(net), x, (y + 1) % 3) == []


def test_what_is_raised_by_us_or_by_memory_is_no_reading_that_was_not_taken(monkeypatch):
    x = random_pictures(40)
    y = of_channels(x).argmax(1)

    def broken(way, x):
        if way.said:
            raise KeyError("ours")
        return prepared(way, x)

    def full(x):
        if x.shape[2] > 8:
            raise MemoryError
        return of_channels(x.flip(1))

    with pytest.raises(MemoryError):
        asked(classifier(By(full)), x, y)
    monkeypatch.setattr("poison_audit.checks.inputs.prepared", broken)
    with pytest.raises(KeyError, match="ours"):
        asked(classifier(By(lambda x: of_channels(x.flip(1)))), x, y)


def test_the_distance_from_stored_statistics_is_what_its_formula_says():
    layer = nn.BatchNorm2d(2, eps=0.0).eval()
    layer.running_mean.copy_(torch.tensor([0.25, 0.5]))
    layer.running_var.copy_(torch.tensor([0.25, 1.0]))
    # Channels of mean 0.75 and 0.5, variance 1/16 and 1/4.
    x = torch.zeros(1, 2, 1, 2)
    x[0, 0] = torch.tensor([[0.5, 1.0]])
    x[0, 1] = torch.tensor([[0.0, 1.0]])
    first = math.hypot(0.5 / 0.5, math.log((1 / 16) / (1 / 4)) / 2)
    second = math.hypot(0.0, math.log(1 / 4) / 2)
    assert distance(layer, x, PLAIN) == pytest.approx((first + second) / 2)
    assert distance(nn.Conv2d(2, 2, 1), x, PLAIN) is None
    assert not layer._forward_pre_hooks


def test_statistics_tell_of_a_wrong_normalisation_where_accuracy_does_not():
    """Pictures of any brightness are answered alike; what BatchNorm stored is otherwise."""
    torch.manual_seed(0)
    net = CifarResNet(CifarResNetSpec((1,), 4), channels=3, classes=3)
    x, right = random_pictures(200), ((0.49, 0.48, 0.45), (0.2, 0.2, 0.2))
    net.train()
    with torch.no_grad():
        for _ in range(100):
            net(prepared(Way(said="", step="", normalize=right), x))
    model = classifier(net, normalize=right)
    with torch.no_grad():
        y = model.logits(net, Batch(x=x, y=torch.zeros(0))).argmax(1)
    assert asked(model, x, y) == []
    for wrong in (NORMALIZE["imagenet"], NORMALIZE["none"], ((0.0,), (2.0,)), ((0.25,), (1.0,))):
        stated = classifier(net, normalize=wrong)
        with torch.no_grad():
            y = stated.logits(net, Batch(x=x, y=torch.zeros(0))).argmax(1)
        found = asked(stated, x, y)
        assert bool(found) == (wrong != NORMALIZE["imagenet"]), wrong
        for doubt in found:
            assert "BatchNorm's stored statistics" in doubt.sentence
            assert "clean samples" not in doubt.sentence


def test_other_ways_leave_the_stated_one_out():
    model = classifier(By(of_channels), normalize=NORMALIZE["imagenet"])
    said = [way.said for way in ways(model, random_pictures(5))]
    assert "--normalize none" in said
    assert "--normalize imagenet" not in said
    others = [words for words in said if not words.startswith("pictures of ")]
    assert len(set(others)) == len(others)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_an_enlargement_is_undone_to_the_pixel(mode):
    x = random_pictures(5)
    side = x.shape[2]
    large = F.interpolate(x, scale_factor=2, mode=mode)
    model = classifier(By(of_channels), normalize=NORMALIZE["none"])
    undone = [
        way.change(large) for way in ways(model, large) if way.said == f"pictures of {side}x{side}"
    ]
    assert min(float((small - x).abs().max()) for small in undone) < 1e-5
