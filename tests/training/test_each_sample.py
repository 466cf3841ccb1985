"""Several samples at once give the sums that one at a time gives."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from poison_audit.models.cifar_vgg import CifarVgg, VggSpec
from poison_audit.models.image import CifarResNet, CifarResNetSpec, image_classifier
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.training import each_sample
from poison_audit.training.each_sample import sums_over_samples


class Twice(nn.Module):
    """A layer that is asked twice."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 4)

    def forward(self, x):
        return self.head(self.body(torch.relu(self.body(x))).mean((2, 3)))


class Scaled(nn.Module):
    """A parameter that stands in no layer."""

    def __init__(self):
        super().__init__()
        self.scale, self.head = nn.Parameter(torch.ones(3, 1, 1)), nn.Linear(3, 4)

    def forward(self, x):
        return self.head((self.scale * x).mean((2, 3)))


NETS = {
    "resnet": lambda: CifarResNet(CifarResNetSpec((1, 1), 4), channels=3, classes=4),
    "bottleneck": lambda: CifarResNet(CifarResNetSpec((1, 1), 4, True), channels=3, classes=4),
    "biases": lambda: CifarVgg(VggSpec((4, "M", 6, "M"), plain=True), channels=3, classes=4),
    "strides": lambda: nn.Sequential(
        nn.Conv2d(3, 5, (3, 2), (2, 1), (1, 2), dilation=2), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4, bias=False),
    ),
    "valid": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3, padding="valid"), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    ),
    "groups": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3, groups=3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    ),
    "twice": Twice,
    "scaled": Scaled,
}  # fmt: skip
TOGETHER = {"resnet", "bottleneck", "biases", "strides"}


@pytest.mark.parametrize("change", [torch.square, torch.abs])
@pytest.mark.parametrize("name", NETS)
def test_the_sums_are_those_of_one_at_a_time(name, change, monkeypatch):
    model = image_classifier(NETS[name](), build=NETS[name], arch="", classes=4).fresh(Rng(2))
    model = replace(model, module=model.module.double().eval())
    draws = Rng(3).torch()
    x = torch.rand(9, 3, 32, 32, generator=draws, dtype=torch.float64)
    samples = Samples(ids=tuple("abcdefghi"), x=x, y=torch.arange(9) % 4)
    asked = []

    def score(module, batch):
        asked.append(len(batch))
        return model.loss(module, batch).sum()

    monkeypatch.setattr(each_sample, "MOST", 4)
    found = sums_over_samples(model, samples, score, change)
    assert (asked == [4, 4, 1]) == (name in TOGETHER)
    expected = {key: torch.zeros_like(p) for key, p in model.module.named_parameters()}
    for place in range(9):
        model.module.zero_grad()
        model.loss(model.module, samples.batch(slice(place, place + 1))).sum().backward()
        for key, parameter in model.module.named_parameters():
            expected[key] += change(parameter.grad)
    for key, total in expected.items():
        torch.testing.assert_close(found[key], total, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("fits", [16, 5, 2])
def test_memory_that_gives_out_halfway_changes_no_sum(fits, monkeypatch):
    build = NETS["biases"]
    model = image_classifier(build(), build=build, arch="", classes=4).fresh(Rng(2))
    model = replace(model, module=model.module.double().eval())
    draws = Rng(3).named("pictures").torch()
    x = torch.rand(19, 3, 32, 32, generator=draws, dtype=torch.float64)
    samples = Samples(ids=tuple(map(str, range(19))), x=x, y=torch.arange(19) % 4)

    def score(module, batch):
        return model.loss(module, batch).sum()

    expected = sums_over_samples(model, samples, score, torch.square)
    own = each_sample._own_gradients

    def giving_out(layer, x, reached):
        yield from own(layer, x, reached)
        if len(x) > fits:
            raise torch.OutOfMemoryError

    monkeypatch.setattr(each_sample, "_own_gradients", giving_out)
    found = sums_over_samples(model, samples, score, torch.square)
    for name, total in expected.items():
        torch.testing.assert_close(found[name], total, msg=name)
