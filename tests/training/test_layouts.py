"""Channels-last pictures are a matter of speed: no score may change by it."""

from __future__ import annotations

import pytest
import torch
import torchvision

from poison_audit.models.image import NORMALIZE, CifarResNet, CifarResNetSpec, image_classifier
from poison_audit.models.model import Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.gaussian.probe import leak_scores
from poison_audit.training.batches import shuffled
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import descend
from poison_audit.training.scoring import exact, input_gradients, logits, losses, margins

RNG = Rng(11)
N = 24


def cifar() -> torch.nn.Module:
    return CifarResNet(CifarResNetSpec((1, 1), 8), channels=3, classes=10)


def small(name: str) -> torch.nn.Module:
    return torchvision.models.get_model(name, weights=None, num_classes=10)


def pair(build) -> tuple[Model, Model]:
    """Return the same network twice, the second with its pictures laid out channels last."""
    settings = {"build": build, "arch": "", "classes": 10, "normalize": NORMALIZE["cifar10"]}
    plain = image_classifier(build(), **settings).fresh(RNG)
    plain.module.eval()
    other = image_classifier(plain.clone().module, channels_last=True, **settings)
    return plain, other


def pictures() -> Samples:
    draws = RNG.named("pictures").torch()
    return Samples(
        ids=tuple(map(str, range(N))), x=torch.rand(N, 3, 32, 32, generator=draws),
        y=torch.randint(10, (N,), generator=draws),
    )  # fmt: skip


def test_scores_are_the_same_to_a_hundred_thousandth():
    data = pictures()
    noise = 0.1 * torch.randn(data.x.shape, generator=RNG.named("noise").torch())
    told = []
    for model in pair(cifar):
        with exact(model.module):
            scores = leak_scores(input_gradients(model, data), noise, sigma=0.1)
            told.append((
                logits(model, data), losses(model, data), margins(model, data.batch()),
                torch.tensor(scores),
            ))  # fmt: skip
    for plain, other in zip(*told, strict=True):
        torch.testing.assert_close(other, plain, rtol=0, atol=1e-5)


def test_steps_of_training_are_the_same_up_to_rounding():
    ends = []
    for model in pair(cifar):
        batches = ((batch,) for batch in shuffled(pictures(), 8, RNG.named("batches")))
        descend(
            model, batches, lambda mean: mean, steps=6, lr=0.05, ledger=Ledger(), rng=RNG,
            batch_norm="train", momentum=0.9,
        )  # fmt: skip
        ends.append(model.module.state_dict())
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "vgg11", "shufflenet_v2_x0_5", "mobilenet_v2"])
def test_torchvisions_networks_take_it(name):
    plain, other = pair(lambda: small(name))
    data = pictures().at(range(4))
    torch.testing.assert_close(logits(other, data), logits(plain, data), rtol=1e-4, atol=1e-5)


def test_a_network_of_ones_own_is_given_plain_pictures():
    class Viewing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(3 * 32 * 32, 10)

        def forward(self, x):
            return self.head(x.view(len(x), -1))  # refuses another layout

    plain, other = pair(Viewing)
    assert logits(plain, pictures()).shape == (N, 10)
    with pytest.raises(RuntimeError, match="view"):
        logits(other, pictures())


@pytest.mark.parametrize(("width", "last"), [(4, False), (8, True)])
def test_networks_whose_layers_would_overrun_are_laid_out_plainly(width, last):
    module = CifarResNet(CifarResNetSpec((1, 1), width), channels=3, classes=10)
    image_classifier(module, build=cifar, arch="", classes=10, channels_last=True)
    weight = module.layer1[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == last
