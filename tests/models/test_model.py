"""The adapter: blocks, independence of clones, seeds, digests, and the image classifiers."""

import hashlib

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models as torchvision_models

from poison_audit.models.image import (
    NORMALIZE,
    CifarResNet,
    CifarResNetSpec,
    cifar_resnet_spec,
    image_classifier,
)
from poison_audit.models.model import Batch, Model, blocks_of, evaluating
from poison_audit.models.seeds import Rng

SPEC = CifarResNetSpec((1, 1), 4)


def small() -> nn.Module:
    return CifarResNet(SPEC, channels=3, classes=5)


@pytest.fixture
def model() -> Model:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return image_classifier(small(), build=small, arch=SPEC.name, classes=5)


def batch(n: int = 4) -> Batch:
    x = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return Batch(x, torch.arange(n) % 5)


def on_meta(builder) -> nn.Module:
    with torch.device("meta"):
        return builder(weights=None)


def heads(module: nn.Module) -> list[str]:
    return [block[0] for block in blocks_of(module)]


def test_blocks_of_a_resnet():
    # The stem with its BatchNorm, four stages, the head.
    module = on_meta(torchvision_models.resnet18)
    assert heads(module) == [
        "conv1.weight",
        "layer1.0.conv1.weight",
        "layer2.0.conv1.weight",
        "layer3.0.conv1.weight",
        "layer4.0.conv1.weight",
        "fc.weight",
    ]
    assert blocks_of(module)[0] == ("conv1.weight", "bn1.weight", "bn1.bias")
    assert blocks_of(module)[-1] == ("fc.weight", "fc.bias")


def test_blocks_of_a_vgg_with_batchnorm():
    # VGG-11: eight convolutions, each with its BatchNorm, and three linear layers.
    module = on_meta(torchvision_models.vgg11_bn)
    convolutions = [0, 4, 8, 11, 15, 18, 22, 25]
    expected = [f"features.{i}.weight" for i in convolutions]
    assert heads(module) == [*expected, *(f"classifier.{i}.weight" for i in (0, 3, 6))]
    assert blocks_of(module)[0] == (
        "features.0.weight",
        "features.0.bias",
        "features.1.weight",
        "features.1.bias",
    )


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "mobilenet_v3_small", "densenet121"])
def test_blocks_partition_the_parameters(name):
    module = on_meta(getattr(torchvision_models, name))
    names = [parameter for block in blocks_of(module) for parameter in block]
    assert sorted(names) == sorted(dict(module.named_parameters()))
    assert all(blocks_of(module))


class TextLike(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.embed = nn.Embedding(7, 4)
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight


def test_blocks_of_layers_in_a_list_with_a_tied_head():
    assert blocks_of(TextLike()) == (
        ("scale",),
        ("embed.weight",),
        ("layers.0.weight", "layers.0.bias"),
        ("layers.1.weight", "layers.1.bias"),
        ("layers.2.weight", "layers.2.bias", "norm.weight", "norm.bias"),
    )


def test_a_clone_is_independent(model):
    before = model.digest()
    clone = model.clone()
    assert clone.digest() == before
    with torch.no_grad():
        for tensor in clone.module.state_dict().values():
            tensor.add_(1)
    assert clone.digest() != before
    assert model.digest() == before


def test_fresh_is_seeded_and_leaves_the_global_generator_alone(model):
    state = torch.random.get_rng_state()
    one, same, other = (model.fresh(Rng(0).named(name)) for name in ("a", "a", "b"))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert one.digest() == same.digest()
    assert len({one.digest(), other.digest(), model.digest()}) == 3


def test_fresh_does_not_depend_on_the_global_generator(model):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        one = model.fresh(Rng(0))
        torch.manual_seed(6)
        assert model.fresh(Rng(0)).digest() == one.digest()


def test_fresh_keeps_the_dtype(model):
    model.module.double()
    assert next(model.fresh(Rng(0)).module.parameters()).dtype == torch.float64


def test_the_digest_is_of_names_types_shapes_and_bytes():
    module = nn.Linear(2, 1)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1.0, 2.0]]))
        module.bias.fill_(3)
    model = image_classifier(module, build=small, arch="linear", classes=1)
    expected = hashlib.sha256()
    for name, shape, values in (("bias", "(1,)", [3.0]), ("weight", "(1, 2)", [1.0, 2.0])):
        expected.update(f"{name}\0torch.float32\0{shape}\0".encode())
        expected.update(np.array(values, dtype="<f4").tobytes())
    assert model.digest() == expected.hexdigest()


def test_the_digest_sees_buffers(model):
    before = model.digest()
    model.module.get_buffer("bn1.running_mean")[0] += 1
    assert model.digest() != before


def test_evaluating_restores_each_part():
    module = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)).train()
    module[1].eval()
    with evaluating(module) as inside:
        assert not any(part.training for part in inside.modules())
    assert [part.training for part in module.modules()] == [True, True, False]


def test_normalisation_is_part_of_the_adapter(model):
    mean, std = NORMALIZE["cifar10"]
    normalised = image_classifier(
        model.module, build=small, arch=SPEC.name, classes=5, normalize=(mean, std)
    )
    data = batch()
    module = model.module.eval()
    by_hand = data.x.clone()
    for channel in range(3):
        by_hand[:, channel] = (by_hand[:, channel] - mean[channel]) / std[channel]
    torch.testing.assert_close(normalised.logits(module, data), module(by_hand))


def test_the_loss_is_per_sample(model):
    data = batch()
    module = model.module.eval()
    logits = model.logits(module, data).double()
    expected = [
        torch.logsumexp(row, 0) - row[label] for row, label in zip(logits, data.y, strict=True)
    ]
    torch.testing.assert_close(model.loss(module, data).double(), torch.stack(expected))


def test_the_stem_does_not_shrink_the_picture(model):
    shapes = []
    model.module.layer1.register_forward_hook(lambda _, inputs, __: shapes.append(inputs[0].shape))
    model.module.eval()(batch().x)
    assert shapes == [(4, 4, 8, 8)]


def test_a_cifar_resnet18_has_the_known_number_of_parameters():
    with torch.device("meta"):
        module = CifarResNet(CifarResNetSpec((2, 2, 2, 2)), channels=3, classes=10)
    # kuangliu's pytorch-cifar ResNet-18 has 11,173,962.
    assert sum(p.numel() for p in module.parameters()) == 11_173_962


@pytest.mark.parametrize(
    "spec",
    [SPEC, CifarResNetSpec((2, 2, 2, 2)), CifarResNetSpec((3, 1), 8, bottleneck=True)],
)
def test_a_spec_reads_back_from_its_name(spec):
    assert cifar_resnet_spec(spec.name) == spec


@pytest.mark.parametrize("name", ["resnet18", "cifar-resnet", "cifar-resnet:1-:w8", ""])
def test_other_names_are_no_spec(name):
    assert cifar_resnet_spec(name) is None
