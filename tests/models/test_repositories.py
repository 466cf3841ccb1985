"""Networks of well-known repositories are known without a factory, and answer as their own code."""

import importlib
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import resnet18

from builders import repositories as theirs
from builders.checkpoints import NONE
from poison_audit.errors import InputError
from poison_audit.models.checkpoint import load_model, peek
from poison_audit.models.identify import alternatives, architecture, architectures, identify
from poison_audit.models.model import Batch

X = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))

NETWORKS = {
    **{f"cifar-resnet{6 * n + 2}": lambda n=n: theirs.HeResNet(n, classes=7) for n in (3, 5, 9)},
    "cifar-resnet:3-3-3:w16": lambda: theirs.HeResNet(3, option="B"),
    "cifar-resnet18": lambda: theirs.KuangliuResNet((2, 2, 2, 2)),
    "cifar-preact-resnet18": lambda: theirs.PreActResNet((2, 2, 2, 2)),
    "cifar-preact:2-2-2-2:s64:w64:final": lambda: theirs.PreActResNet((2, 2, 2, 2), final=True),
    "cifar-preact:1-2-1:s8:w8:bottleneck": lambda: theirs.PreActResNet(
        (1, 2, 1), width=8, bottleneck=True
    ),
    "wrn-16-1": lambda: theirs.WideResNet(16, 1),
    "wrn-10-2": lambda: theirs.WideResNet(10, 2),
    "wrn-28-2": lambda: theirs.WideResNet(28, 2),
    "wrn-16-2:biased": lambda: theirs.BiasedWideResNet(16, 2),
    "cifar-vgg11": lambda: theirs.KuangliuVgg(theirs.VGG["cifar-vgg11"]),
    "cifar-vgg:8-M-16-16-M-16-M-16-M-16-M:plain": lambda: theirs.KuangliuVgg(
        theirs.VGG["small"], norm=False
    ),
    "cifar-vgg:8-M-16-16-M-16-M-16-M-16-M": lambda: theirs.KuangliuVgg(theirs.VGG["small"]),
    "cifar-vgg:8-M-8-M-16-M": lambda: theirs.KuangliuVgg(theirs.VGG["a last layer of 4x4"]),
    "cifar-vgg:8-M-8-16": lambda: theirs.KuangliuVgg(theirs.VGG["no last pool"]),
}
"""By the name that they are to be known by."""


def lively(module):
    """Give BatchNorm statistics of its own, so that a wrong place shows."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in module.state_dict().items():
        if name.endswith("running_mean"):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / 9)
        elif name.endswith("running_var"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return module.eval()


def logits(loaded, x):
    with torch.no_grad():
        return loaded.model.logits(loaded.model.module, Batch(x, torch.zeros(len(x)).long()))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_known_and_answers_as_its_own_code(tmp_path, name):
    own = lively(NETWORKS[name]())
    save_file(own.state_dict(), tmp_path / "m.safetensors")
    loaded = load_model(tmp_path / "m.safetensors", normalize=NONE)
    assert (loaded.model.arch, loaded.arch_source) == (name, "identified")
    with torch.no_grad():
        torch.testing.assert_close(logits(loaded, X), own(X), rtol=1e-4, atol=1e-4)
    fresh = architecture(name, dict(loaded.model.module.state_dict()))
    assert (fresh.classes, fresh.channels) == (loaded.model.classes, 3)


def test_a_network_without_modules_is_known(tmp_path):
    torch.manual_seed(0)
    params = theirs.wide_params(2, 2)
    torch.save({"params": params, "epoch": 3}, tmp_path / "model.pt7")
    loaded = load_model(tmp_path / "model.pt7", normalize=NONE, allow_pickle=True)
    assert loaded.model.arch == "wrn-16-2"
    expected = theirs.functional_wide(params, X)
    torch.testing.assert_close(logits(loaded, X), expected, rtol=1e-4, atol=1e-4)


def test_a_stage_that_no_forward_pass_asks_is_left_out(tmp_path):
    own = lively(theirs.WideResNet(16, 1))
    more = {f"sub_{n}": t.clone() for n, t in own.state_dict().items() if n.startswith("block1.")}
    save_file({**own.state_dict(), **more}, tmp_path / "trades.safetensors")
    loaded = load_model(tmp_path / "trades.safetensors", normalize=NONE)
    assert loaded.model.arch == "wrn-16-1"
    with torch.no_grad():
        torch.testing.assert_close(logits(loaded, X), own(X), rtol=1e-4, atol=1e-4)


def test_timm_s_vision_transformer_answers_as_torchvision_s(tmp_path):
    torch.manual_seed(0)
    own = theirs.TimmVit(side=64, patch=32, width=768, heads=12, depth=12, classes=3).eval()
    save_file(own.state_dict(), tmp_path / "m.safetensors")
    loaded = load_model(tmp_path / "m.safetensors", normalize=NONE)
    assert loaded.model.arch == "vit_b_32"
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(logits(loaded, x), own(x), rtol=1e-4, atol=1e-4)


def test_what_no_tensor_tells_has_names_of_its_own(tmp_path):
    own = lively(theirs.KuangliuResNet((1, 1, 1, 1), width=8))
    save_file(own.state_dict(), tmp_path / "m.safetensors")
    arch = load_model(tmp_path / "m.safetensors", normalize=NONE).model.arch
    assert alternatives(arch) == (f"{arch}:pool",)
    pooled = load_model(tmp_path / "m.safetensors", arch=f"{arch}:pool", normalize=NONE)
    with torch.no_grad():
        x = torch.relu(own.bn1(own.conv1(X)))
        x = nn.functional.max_pool2d(x, 3, 2, 1)
        x = own.layer4(own.layer3(own.layer2(own.layer1(x))))
        expected = own.linear(x.mean((2, 3)))
        torch.testing.assert_close(logits(pooled, X), expected, rtol=1e-4, atol=1e-4)


def test_zeros_may_stand_behind(tmp_path):
    own = lively(theirs.HeResNet(3))
    save_file(own.state_dict(), tmp_path / "m.safetensors")
    end = load_model(
        tmp_path / "m.safetensors", arch="cifar-resnet:3-3-3:w16:padded-end", normalize=NONE
    )
    for layer in (own.layer2[0], own.layer3[0]):

        def behind(x, layer=layer):
            out = layer.bn2(layer.conv2(torch.relu(layer.bn1(layer.conv1(x)))))
            half = x[:, :, ::2, ::2]
            return torch.relu(out + torch.cat([half, torch.zeros_like(half)], dim=1))

        layer.forward = behind
    with torch.no_grad():
        torch.testing.assert_close(logits(end, X), own(X), rtol=1e-4, atol=1e-4)


def test_a_resnet_without_its_max_pool():
    own = resnet18(weights=None, num_classes=3)
    own.maxpool = nn.Identity()
    found = architecture("resnet18:no-pool", own.state_dict())
    assert (found.arch, found.classes) == ("resnet18:no-pool", 3)
    module = found.build()
    module.load_state_dict(own.state_dict())
    with torch.no_grad():
        assert torch.equal(module.eval()(X), own.eval()(X))
    assert alternatives("resnet18:no-pool") == ("resnet18",)
    assert alternatives("vgg11") == ()


@pytest.mark.parametrize(
    "name", [name for name in architectures() if "cifar" in name or "wrn" in name]
)
def test_every_name_of_ours_builds_what_is_known_by_it(name):
    with torch.device("meta"):
        module = architecture(name, {}).build()
    assert identify(module.state_dict()) == [name]


@pytest.mark.parametrize(
    "name", ["wrn-17-1", "wrn-4-1", "cifar-vgg:", "cifar-vgg:M", "cifar-preact:0:s1:w1",
             "cifar-resnet18:pool:pool", "vgg11:no-pool", "cifar-vgg:8-M-M-M-M-M-M"],
)  # fmt: skip
def test_names_of_nothing(name):
    with pytest.raises(InputError, match="unknown architecture"):
        architecture(name, {})


PUBLISHED = Path(os.environ.get("POISON_AUDIT_PUBLISHED", "published"))
"""Checkpoints of other people, with the networks' own code in nets.py; in no repository."""


@pytest.mark.skipif(
    not (PUBLISHED / "nets.py").is_file(), reason="POISON_AUDIT_PUBLISHED names no such folder"
)
@pytest.mark.parametrize(
    ("file", "factory", "arch"),
    [
        ("clean_resnet20", "resnet20", "cifar-resnet20"),
        ("abl_wrn16_1_label0", "wrn16_1", "wrn-16-1"),
    ],
)
def test_published_checkpoints_need_no_factory(monkeypatch, file, factory, arch):
    monkeypatch.syspath_prepend(PUBLISHED)
    own = getattr(importlib.import_module("nets"), factory)()
    path = PUBLISHED / f"{file}.safetensors"
    assert peek(path)["arch"] == [arch]
    own.load_state_dict(load_file(path))
    with torch.no_grad():
        ours = logits(load_model(path, normalize=NONE), X)
        torch.testing.assert_close(ours, own.eval()(X), rtol=1e-5, atol=1e-5)
