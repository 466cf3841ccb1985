"""Identification: what torchvision builds is known by its tensors, and nothing else is."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torchvision import models as torchvision_models
from torchvision.models import get_model, list_models

from poison_audit.errors import InputError
from poison_audit.models import identify as identifying
from poison_audit.models.identify import (
    _FAMILIES,
    _family,
    architecture,
    architectures,
    canonical,
    identify,
)
from poison_audit.models.image import CifarResNet, CifarResNetSpec


def tensors_of(name: str, **options) -> dict[str, torch.Tensor]:
    # The independent way to the names and shapes: torch's own meta device.
    with torch.device("meta"):
        return get_model(name, weights=None, **options).state_dict()


def cifar(
    spec: CifarResNetSpec, *, channels: int = 3, classes: int = 10
) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return CifarResNet(spec, channels=channels, classes=classes).state_dict()


@pytest.mark.parametrize(
    "name",
    [
        "alexnet",
        "densenet121",
        "mobilenet_v2",
        "mobilenet_v3_small",
        "resnet18",
        "squeezenet1_0",
        "squeezenet1_1",
        "swin_t",
        "vgg11",
        "vgg11_bn",
        "vit_b_32",
        "wide_resnet50_2",
    ],
)
def test_a_torchvision_network_is_known_by_its_tensors(name):
    tensors = tensors_of(name, num_classes=7)
    assert identify(tensors) == [name]
    assert architecture(name, tensors).classes == 7


def test_a_regnet_computes_its_sizes_from_tensors():
    # It cannot be built under torch.device("meta"), so it is built for real: 5 million weights.
    assert identify(get_model("regnet_y_400mf", weights=None).state_dict()) == ["regnet_y_400mf"]


def test_only_relatives_are_built_and_without_memory(monkeypatch):
    built, real = {}, identifying.architecture

    def watched(name, tensors):
        found = real(name, tensors)

        def build():
            network = found.build()
            built[name] = {tensor.device.type for tensor in network.parameters()}
            return network

        return replace(found, build=build)

    tensors = tensors_of("resnet18", num_classes=10)
    monkeypatch.setattr(identifying, "architecture", watched)
    identify(tensors)
    # Of torchvision's 80 networks, those with a layer4 of blocks.
    names = {
        "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2",
        "wide_resnet101_2", "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d",
    }  # fmt: skip
    assert set(built) == names
    assert all(devices == {"meta"} for devices in built.values())


def test_every_family_of_torchvision_is_known():
    names = list_models(module=torchvision_models)
    assert {_family(name) for name in names} == set(_FAMILIES)
    assert set(names) < set(architectures())


@pytest.mark.parametrize(
    "name",
    ["googlenet", "inception_v3", "vgg16_bn", "vit_b_16", "densenet121", "shufflenet_v2_x0_5"],
)
def test_the_head_is_the_last_weight(name):
    auxiliary = {"aux_logits": False, "init_weights": True}
    tensors = tensors_of(name, **(auxiliary if name in {"googlenet", "inception_v3"} else {}))
    last = [key for key in tensors if key.endswith(".weight")][-1]
    assert _FAMILIES[_family(name)].head == last
    assert _FAMILIES[_family(name)].mark in tensors


@pytest.mark.parametrize("family", sorted(_FAMILIES))
def test_the_stem_is_the_first_convolution(family):
    name = next(name for name in list_models(module=torchvision_models) if _family(name) == family)
    options = {"init_weights": False} if family in ("googlenet", "inception") else {}
    with identifying._EmptyOnMeta():
        module = get_model(name, weights=None, **options)
    first = next(key for key, part in module.named_modules() if isinstance(part, nn.Conv2d))
    assert _FAMILIES[family].stem == f"{first}.weight"


def test_a_network_for_grey_pictures_is_known():
    with torch.device("meta"):
        module = get_model("resnet18", weights=None, num_classes=10)
        module.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    assert identify(module.state_dict()) == ["resnet18"]
    found = architecture("resnet18", module.state_dict())
    assert found.channels == 1
    built = found.build()
    assert built(torch.zeros(2, 1, 32, 32)).shape == (2, 10)
    assert (built.conv1.stride, built.conv1.padding) == ((2, 2), (3, 3))


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads_are_left_out(name):
    tensors = tensors_of(name, aux_logits=True, init_weights=True, num_classes=5)
    assert any(key.lower().startswith("aux") for key in tensors)
    assert identify(tensors) == [name]
    assert not any(key.lower().startswith("aux") for key in canonical(tensors))


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (CifarResNetSpec((2, 2, 2, 2)), "cifar-resnet18"),
        (CifarResNetSpec((3, 4, 6, 3), bottleneck=True), "cifar-resnet50"),
        (CifarResNetSpec((1, 2, 1), 16), "cifar-resnet:1-2-1:w16"),
        (CifarResNetSpec((1, 1), 8, bottleneck=True), "cifar-resnet:1-1:w8:bottleneck"),
    ],
)
def test_cifar_resnets_are_read_from_the_tensors(spec, name):
    tensors = cifar(spec, channels=1, classes=4)
    assert identify(tensors) == [name]
    found = architecture(name, tensors)
    assert (found.classes, found.channels) == (4, 1)
    with torch.device("meta"):
        built = found.build()
    shapes = {key: tensor.shape for key, tensor in built.state_dict().items()}
    assert shapes == {key: tensor.shape for key, tensor in tensors.items()}


def test_kuangliu_names_are_translated():
    ours = cifar(CifarResNetSpec((1, 1), 8))
    theirs = {
        key.replace("downsample", "shortcut").replace("fc.", "linear."): tensor
        for key, tensor in ours.items()
    }
    assert set(theirs) != set(ours)
    assert set(canonical(theirs)) == set(ours)
    assert identify(theirs) == ["cifar-resnet:1-1:w8"]


def test_counts_of_batches_may_be_absent():
    tensors = tensors_of("resnet18")
    bare = {key: t for key, t in tensors.items() if not key.endswith("num_batches_tracked")}
    assert len(bare) < len(tensors)
    assert identify(bare) == ["resnet18"]


@pytest.mark.parametrize("change", ["extra", "missing", "reshaped"])
def test_what_differs_by_one_tensor_fits_nothing(change):
    tensors = tensors_of("mobilenet_v3_small")
    if change == "extra":
        tensors["other.weight"] = torch.zeros(1)
    elif change == "missing":
        del tensors["features.3.block.1.1.bias"]
    else:
        tensors["features.3.block.1.1.bias"] = torch.zeros(3)
    assert identify(tensors) == []


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"conv1.weight": torch.zeros(4, 3, 3, 3)},
        {"conv1.weight": torch.zeros(())},
        {"fc.weight": torch.zeros(3), "conv1.weight": torch.zeros(0, 3, 3, 3)},
        nn.Linear(3, 2).state_dict(),
    ],
)
def test_odd_tensors_fit_nothing(tensors):
    assert identify(tensors) == []


def test_a_vision_transformer_keeps_its_picture_size():
    tensors = tensors_of("vit_b_32", image_size=64, num_classes=3)
    assert identify(tensors) == ["vit_b_32"]


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"unknown architecture 'resnet81'.*resnet18"):
        architecture("resnet81", {})


def test_the_named_cifar_resnets_exist():
    named = [name for name in architectures() if name.startswith("cifar-resnet")]
    assert [architecture(name, {}).arch for name in named] == named
    assert len(named) == 10
