"""A user's own architecture: a factory that is named on the command line."""

import importlib
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from builders.checkpoints import ARCH, NONE, X, a_model, network, problems_of
from poison_audit.models.checkpoint import load_model
from poison_audit.models.saving import save_model
from poison_audit.models.seeds import Rng


@pytest.fixture
def plain(tmp_path):
    file = tmp_path / "net.safetensors"
    save_file(network().state_dict(), file)
    return file


# Factories

FACTORY = """
import torch
from torch import nn

RUNS = []

class Net(nn.Module):
    def __init__(self, classes=5):
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, classes))

    def forward(self, x):
        return self.model(x)

def make():
    RUNS.append(1)
    return Net().double()

def needs(argument):
    return Net()

def wrong():
    return 3

def lazy():
    return nn.LazyLinear(3)

def headless():
    return nn.BatchNorm2d(3)

def trained():
    net = Net()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(0.5)
    return net
"""


@pytest.fixture
def factory(tmp_path, monkeypatch):
    (tmp_path / "audited_nets.py").write_text(FACTORY)
    (tmp_path / "broken_nets.py").write_text("def (")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "audited_nets", raising=False)
    before = list(sys.path)
    yield "audited_nets:make"
    assert sys.path == before
    sys.modules.pop("audited_nets", None)


def factory_network(factory: str) -> nn.Module:
    sys.path.insert(0, ".")
    try:
        return importlib.import_module(factory.partition(":")[0]).Net()
    finally:
        sys.path.remove(".")


def test_a_factory_builds_what_the_tensors_fill(factory, tmp_path):
    module = factory_network(factory)
    # Every name of this network begins with "model.", as a wrapper's would.
    save_file(module.state_dict(), tmp_path / "m.safetensors")
    loaded = load_model(tmp_path / "m.safetensors", factory=factory, normalize=NONE)
    assert loaded.arch_source == "factory"
    assert loaded.model.arch == f"factory:{factory}"
    assert (loaded.model.classes, loaded.channels) == (5, 3)
    assert torch.equal(loaded.model.module(X), module(X))
    assert next(loaded.model.fresh(Rng(0)).module.parameters()).dtype == torch.float32


def test_a_factory_of_kuangliu_names_keeps_them(tmp_path, monkeypatch):
    code = (
        "from torch import nn\n"
        "def make():\n"
        "    net = nn.Sequential()\n"
        "    net.add_module('conv1', nn.Conv2d(3, 4, 3))\n"
        "    net.add_module('pool', nn.Flatten())\n"
        "    net.add_module('linear', nn.Linear(144, 5))\n"
        "    return net\n"
    )
    (tmp_path / "kuangliu_like.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    state = {
        "conv1.weight": torch.rand(4, 3, 3, 3),
        "conv1.bias": torch.rand(4),
        "linear.weight": torch.rand(5, 144),
        "linear.bias": torch.rand(5),
    }
    save_file(state, tmp_path / "m.safetensors")
    loaded = load_model(tmp_path / "m.safetensors", factory="kuangliu_like:make", normalize=NONE)
    assert torch.equal(loaded.model.module.linear.weight, state["linear.weight"])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("audited_nets", "names no function"),
        (":make", "names no function"),
        ("no_such_module_here:make", "cannot be imported"),
        ("broken_nets:make", "cannot be imported"),
        ("audited_nets:mkae", "Did you mean make?"),
        ("audited_nets:RUNS", "has no function 'RUNS'"),
        ("audited_nets:needs", "without arguments"),
        ("audited_nets:wrong", "returned a int"),
        ("audited_nets:lazy", "lazy layers"),
        ("audited_nets:headless", "no linear layer"),
    ],
)
def test_factories_that_are_none(factory, plain, name, reason):
    (found,) = problems_of(plain, factory=name, normalize=NONE)
    assert found.startswith("--factory: ")
    assert reason in found


def test_a_factory_that_returns_the_checkpoint_is_refused(factory, tmp_path):
    state = {name: t.fill_(0.5) for name, t in factory_network(factory).state_dict().items()}
    save_file(state, tmp_path / "m.safetensors")
    (found,) = problems_of(
        tmp_path / "m.safetensors", factory="audited_nets:trained", normalize=NONE
    )
    assert "the checkpoint's own weights" in found


def test_a_header_cannot_choose_code_to_run(factory, tmp_path):
    module = factory_network(factory)
    save_model(a_model(module, arch=f"factory:{factory}"), tmp_path / "m.safetensors")
    (found,) = problems_of(tmp_path / "m.safetensors")
    assert "no file may choose code to run" in found
    assert sys.modules["audited_nets"].RUNS == []
    assert load_model(tmp_path / "m.safetensors", factory=factory).arch_source == "factory"


def test_a_factory_and_an_architecture_are_one_too_many(plain):
    (found,) = problems_of(plain, arch=ARCH, factory="a:b", normalize=NONE)
    assert "Give one of them" in found
