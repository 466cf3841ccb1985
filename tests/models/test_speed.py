"""The network that learns fast: known by its tensors, of any widths, classes and channels."""

import pytest
import torch
from safetensors.torch import save_file

from poison_audit.models.checkpoint import load_model
from poison_audit.models.identify import architecture, identify
from poison_audit.models.image import image_classifier
from poison_audit.models.seeds import Rng
from poison_audit.models.speed import SpeedNet, SpeedSpec, speed_spec


def test_it_has_the_shape_of_airbench94():
    net = SpeedNet(SpeedSpec(), channels=3, classes=10)
    seen = []
    for group in net.groups:
        group.register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape[1:])))
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert seen == [(64, 15, 15), (256, 7, 7), (256, 3, 3)]


def test_the_answers_are_those_of_the_formula():
    net = SpeedNet(SpeedSpec((3,)), channels=1, classes=2).eval()
    x, gelu = torch.rand(2, 1, 8, 8), torch.nn.GELU()
    y = gelu(net.stem(x))
    y = gelu(net.groups[0].norm1(torch.nn.MaxPool2d(2)(net.groups[0].conv1(y))))
    y = gelu(net.groups[0].norm2(net.groups[0].conv2(y)))
    right = y.flatten(2).max(2).values @ net.head.weight.T / 9
    torch.testing.assert_close(net(x), right)


@pytest.mark.parametrize("spec", [SpeedSpec(), SpeedSpec((8,)), SpeedSpec((4, 6, 8, 10))])
def test_it_is_known_by_its_tensors(spec):
    assert speed_spec(spec.name) == spec
    tensors = SpeedNet(spec, channels=1, classes=7).state_dict()
    assert identify(tensors) == [spec.name]
    found = architecture(spec.name, tensors)
    assert (found.channels, found.classes) == (1, 7)
    found.build().load_state_dict(tensors)


@pytest.mark.parametrize("name", ["cifar-speed:w0", "cifar-speed:w", "cifar-speed:w9999", "fast"])
def test_other_names_are_none(name):
    assert speed_spec(name) is None


def test_what_was_saved_is_read_without_a_word_about_it(tmp_path):
    def build():
        return SpeedNet(SpeedSpec((4, 6)), channels=1, classes=3)

    model = image_classifier(build(), build=build, arch="", classes=3).fresh(Rng(0))
    assert [len(block) for block in model.blocks] == [2, 6, 6, 1]  # the stem, two groups, the head
    tensors = {name: tensor.contiguous() for name, tensor in model.module.state_dict().items()}
    save_file(tensors, tmp_path / "m.safetensors")
    loaded = load_model(tmp_path / "m.safetensors", normalize=((0.0,), (1.0,)))
    assert loaded.model.arch == "cifar-speed:w4-6"
    assert loaded.model.digest() == model.digest()
