"""What a checkpoint looks like that fits nothing: the name and the few tensors that differ."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import mobilenet_v2, resnet18

from builders import repositories as theirs
from builders.checkpoints import NONE, problems_of
from poison_audit.models.nearest import nearest


def meta(build, change=lambda module: None):
    with torch.device("meta"):
        module = build()
        change(module)
    return module.state_dict()


def small_stem(module):
    module.conv1 = nn.Conv2d(1, 64, 5)


def two_layers(module):
    module.fc = nn.Sequential(nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 3))


def squeezed(module):
    module.layer1[0].se = nn.Linear(64, 4)


@pytest.mark.parametrize(
    ("tensors", "parts"),
    [
        (
            meta(resnet18, small_stem),
            ["resnet18 with", "a 5x5 stem of 1 channels", "1 tensor more: conv1.bias"],
        ),
        (
            meta(resnet18, two_layers),
            ["resnet18 with", "2 tensors less: fc.bias, fc.weight", "4 tensors more: fc.0.bias"],
        ),
        (meta(resnet18, squeezed), ["resnet18 with 2 tensors more: layer1.0.se.bias"]),
        (
            {k: t for k, t in meta(mobilenet_v2).items() if k != "features.3.conv.2.weight"},
            ["mobilenet_v2 with 1 tensor less: features.3.conv.2.weight"],
        ),
        (
            {**meta(lambda: theirs.WideResNet(16, 1)), "other.weight": torch.zeros(1)},
            ["wrn-16-1 with 1 tensor more: other.weight"],
        ),
        (
            {**meta(lambda: theirs.HeResNet(3)), "extra": torch.zeros(1)},
            ["cifar-resnet20 with 1 tensor more: extra"],
        ),
    ],
)
def test_the_nearest_is_named(tensors, parts):
    found = nearest(tensors)
    for part in parts:
        assert part in found
    assert len(found) < 400


def test_what_looks_like_nothing():
    assert nearest(nn.Linear(3, 2).state_dict()) is None
    assert nearest(meta(lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(8, 2)))) is None


def test_the_message_is_one_line_that_says_what_to_do(tmp_path):
    module = theirs.HeResNet(3)
    module.layer1[0].se = nn.Linear(16, 2)
    save_file(module.state_dict(), tmp_path / "m.safetensors")
    (found,) = problems_of(tmp_path / "m.safetensors", normalize=NONE)
    assert "they look like cifar-resnet20 with 2 tensors more: layer1.0.se.bias" in found
    assert "--factory" in found
    assert "\n" not in found


def test_a_wrong_flag_is_told_the_right_one(tmp_path):
    save_file(theirs.HeResNet(3).state_dict(), tmp_path / "m.safetensors")
    (found,) = problems_of(tmp_path / "m.safetensors", arch="resnet18", normalize=NONE)
    assert "not of resnet18: they fit cifar-resnet20" in found
    assert "--arch cifar-resnet20" in found


def test_a_wrong_factory_is_told_the_right_name(tmp_path, monkeypatch):
    (tmp_path / "own_net.py").write_text("from torchvision.models import resnet18 as make")
    monkeypatch.chdir(tmp_path)
    save_file(theirs.HeResNet(3).state_dict(), tmp_path / "m.safetensors")
    (found,) = problems_of(tmp_path / "m.safetensors", factory="own_net:make", normalize=NONE)
    assert "they fit cifar-resnet20. Leave --factory out" in found
