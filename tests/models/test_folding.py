"""A folded network answers as it did, and the one that it was made of stays as it is."""

import copy

import pytest
import torch
from torch import nn
from torchvision import models as torchvision_models

from poison_audit.models.cifar_vgg import CifarVgg, VggSpec
from poison_audit.models.folding import folded
from poison_audit.models.image import CifarResNet, CifarResNetSpec, image_classifier
from poison_audit.models.preact import PreActNet, PreActSpec, wide_spec
from poison_audit.models.speed import SpeedNet, SpeedSpec

OWN = {
    "basic": lambda: CifarResNet(CifarResNetSpec((1, 2), 4), channels=3, classes=5),
    "padded": lambda: CifarResNet(
        CifarResNetSpec((1, 1), 4, shortcut="padded"), channels=3, classes=5
    ),
    "bottleneck": lambda: CifarResNet(CifarResNetSpec((1, 1), 4, True), channels=3, classes=5),
    "preact": lambda: PreActNet(PreActSpec((1, 1), 4, 4), channels=3, classes=5),
    "preact-bottleneck": lambda: PreActNet(
        PreActSpec((1, 1), 4, 4, bottleneck=True), channels=3, classes=5
    ),
    "wide": lambda: PreActNet(wide_spec(1, 1), channels=3, classes=5),
    "biased": lambda: PreActNet(wide_spec(1, 1, biased=True), channels=3, classes=5),
    "vgg": lambda: CifarVgg(VggSpec((4, "M", 6)), channels=3, classes=5),
    "speed": lambda: SpeedNet(SpeedSpec((4, 6)), channels=3, classes=5),
    **{
        name: lambda name=name: torchvision_models.get_model(name, weights=None, num_classes=5)
        for name in ("resnet18", "densenet121", "mobilenet_v2", "regnet_y_400mf", "alexnet")
    },
}
NORMS = {"basic": 8, "bottleneck": 9, "vgg": 2, "speed": 2, "resnet18": 20, "alexnet": 0}


def norms(module):
    return [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]


def model_of(build):
    torch.manual_seed(3)
    module = build()
    for norm in norms(module):  # statistics of training, not those of a new network
        nn.init.uniform_(norm.running_mean, -0.3, 0.3)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.uniform_(norm.weight, -1, 1.5)
        nn.init.uniform_(norm.bias, -0.3, 0.3)
    return image_classifier(module.eval(), build=build, arch="", classes=5)


@pytest.mark.parametrize("name", OWN)
@torch.no_grad()
def test_answers_are_the_same(name):
    model = model_of(OWN[name])
    state, x = copy.deepcopy(model.module.state_dict()), torch.rand(3, 3, 64, 64)
    if name == "vgg":
        model = model_of(lambda: CifarVgg(VggSpec((4, "M", 6)), channels=3, classes=5))
        state, x = copy.deepcopy(model.module.state_dict()), torch.rand(3, 3, 32, 32)
    quick = folded(model)
    right = model.module(x)
    error = (quick.module(x) - right).abs().max() / right.abs().max()
    assert float(error) < 1e-5
    if name in NORMS:
        assert len(norms(model.module)) - len(norms(quick.module)) == NORMS[name]
    assert all(torch.equal(state[key], each) for key, each in model.module.state_dict().items())


class Curious(nn.Module):
    """A network that looks between a convolution and its BatchNorm."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))

    def forward(self, x):
        return self.body[0](x).mean((2, 3)) + self.body(x).mean((2, 3))


def test_somebody_elses_network_is_left_alone():
    model = model_of(Curious)
    assert folded(model) is model


def test_a_layer_that_somebody_watches_is_left_alone():
    model = model_of(OWN["basic"])
    seen = []
    model.module.bn1.register_forward_hook(lambda *_: seen.append(1))
    quick = folded(model)
    assert isinstance(quick.module.bn1, nn.BatchNorm2d)
    assert isinstance(quick.module.layer1[0].bn1, nn.Identity)


def test_tensors_that_stay_are_shared():
    model = model_of(OWN["basic"])
    assert folded(model).module.fc.weight is model.module.fc.weight
