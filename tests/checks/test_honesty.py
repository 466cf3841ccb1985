"""Models that answer otherwise than a function of their input: never believed, never passed."""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from poison_audit.atomic import from_json
from poison_audit.checks.honesty import believed, distrust
from poison_audit.cli import invoke
from poison_audit.models.image import image_classifier
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.records import Measurement
from poison_audit.verdict.record import AuditRecord

ROOT = Path(__file__).parents[2]


def samples(n: int = 20, size: int = 8, classes: int = 3) -> Samples:
    draws = Rng(1).numpy()
    return Samples(
        ids=tuple(map(str, range(n))),
        x=torch.from_numpy(draws.integers(0, 256, (n, 1, size, size), dtype=np.uint8)),
        y=torch.from_numpy(draws.integers(0, classes, n)),
    )


class Net(nn.Module):
    """An honest network with all that is meant to differ in training mode."""

    def __init__(self, *, dropout: float = 0.3) -> None:
        super().__init__()
        self.dropout = dropout
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout2d(0.3)
        self.last = nn.Linear(8 * 16, 3)

    def forward(self, x):
        x = F.max_pool2d(self.drop(F.relu(self.norm(self.first(x)))), 2).flatten(1)
        return self.last(F.dropout(x, self.dropout, training=self.training))


def model(module: nn.Module):
    torch.manual_seed(0)
    return image_classifier(module, build=lambda: module, arch="net", classes=3)


@pytest.mark.parametrize("seed", range(15))
def test_honest_networks_are_believed(seed):
    torch.manual_seed(seed)
    kinds = [
        Net(),
        Net(dropout=0.0),
        nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.GELU(), nn.Dropout(), nn.Linear(32, 3)),
        nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
        ),
        nn.Sequential(nn.Flatten(), nn.Linear(64, 3)),
    ]
    for module in kinds:
        assert distrust(model(module), samples(), Rng(seed)) is None


def test_a_network_that_answers_everything_alike_is_honest():
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    nn.init.zeros_(module[1].weight)
    assert distrust(model(module), samples(), Rng(0)) is None


class Liar(Net):
    """One whose `lie` decides what is done with the input and the honest answer."""

    def __init__(self, lie) -> None:
        super().__init__(dropout=0.0)
        self.lie = lie

    def forward(self, x):
        return self.lie(self, x, super().forward)


class Torn(torch.autograd.Function):
    """The identity, whose gradient is noise."""

    @staticmethod
    def forward(_, x):
        return x.clone()

    @staticmethod
    def backward(_, gradient):
        return torch.randn(gradient.shape)


HALF = torch.arange(20)[:, None, None, None] % 2
LIES = {
    "random logits": (lambda _, x, f: f(x) + 0.1 * torch.randn(len(x), 3), "each time"),
    "random smoothing": (lambda _, x, f: f(x + 0.1 * torch.randn_like(x)), "each time"),
    "the batch": (lambda _, x, f: f(x) + x.mean(), "in the batch"),
    "watched": (lambda _, x, f: f(x) * (2 if x.requires_grad else 1), "differentiated"),
    "grad mode": (lambda _, x, f: f(x) * (2 if torch.is_grad_enabled() else 1), "differentiated"),
    "training": (lambda m, x, f: -f(x) if m.training else f(x), "in training mode"),
    "training, at random": (
        lambda m, x, f: torch.randn(len(x), 3) if m.training else f(x), "in training mode"
    ),
    "detached": (lambda _, x, f: f(x.detach()), "cannot be differentiated"),
    "masked": (lambda _, x, f: f(x.detach() + 0 * x), "zero or not finite"),
    "masked at half": (
        lambda _, x, f: f(torch.where(HALF[: len(x)] > 0, x, x.detach())), "zero or not finite"
    ),
    "not a number": (
        lambda _, x, f: f(x) + 0 * (x - x.detach()).sqrt().flatten(1).sum(1)[:, None],
        "zero or not finite",
    ),
    "of something else": (lambda _, x, f: f(Torn.apply(x)), "not those of its answers"),
    "backwards": (lambda _, x, f: f(2 * x.detach() - x), "gradients"),
    "infinite": (lambda _, x, f: f(x) / 0, "not finite"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_dishonest_networks_are_not(name):
    lie, said = LIES[name]
    module = Liar(lie)
    if name == "backwards":
        # 2 stop(x) - x has the answers of x and their gradients turned round.
        module.lie = lambda _, x, f: f(2 * x.detach() - x)
    bits = {key: value.clone() for key, value in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    with torch.random.fork_rng():
        told = distrust(model(module), samples(), Rng(0))
    assert told is not None
    assert said in told
    assert all(torch.equal(value, bits[key]) for key, value in module.state_dict().items())
    assert [part.training for part in module.modules()] == modes


def test_a_doubt_makes_what_was_measured_suspect_and_nothing_else():
    seen = Measurement(probe="gaussian", evidence={"scores": [0.0]}, suspect="a control leaks")
    absent = Measurement(probe="exposure", evidence=None, missing="needs a key")
    assert believed(seen, None) == seen
    assert believed(seen, "it lies").suspect == "a control leaks; it lies"
    assert believed(absent, "it lies") == absent


FACTORY = textwrap.dedent(
    """
    import torch
    from poison_audit.models.image import CifarResNet, cifar_resnet_spec

    class Net(CifarResNet):
        lie = ""

        def forward(self, x):
            if self.lie == "masked":
                return super().forward(x.detach() + 0 * x)
            out = super().forward(x)
            if self.lie == "saturated":
                return 1e6 * out
            if self.lie == "random":
                return out + 0.5 * torch.randn_like(out)
            return out

    def build(lie):
        def make():
            net = Net(cifar_resnet_spec(ARCH), channels=1, classes=10)
            net.lie = lie
            return net
        return make

    honest, masked, saturated, random = map(build, ("", "masked", "saturated", "random"))
    """
)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A model that never saw the poison: an honest audit passes it."""
    folder = tmp_path_factory.mktemp("honesty") / "digits"
    shutil.copytree(ROOT / "fixtures" / "digits", folder)
    text = (folder / "audit.toml").read_text("utf-8")
    arch = next(line for line in text.splitlines() if line.startswith("arch"))
    (folder / "liars.py").write_text(f"{arch.replace('arch', 'ARCH')}\n{FACTORY}", encoding="utf-8")
    return folder


def run(folder: Path, monkeypatch, *arguments: str) -> int:
    monkeypatch.chdir(folder)
    return invoke(["probe", "retrained_a.safetensors", "--forget", "forget.csv", "-q", *arguments])


@pytest.mark.slow
@pytest.mark.usefixtures("plain_page")
@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ("honest", ""),
        ("masked", "the gradient is zero or not finite"),
        ("saturated", "the gradient vanishes at"),
        ("random", "differently each time"),
    ],
)
def test_no_dishonest_model_passes_the_gate(digits, monkeypatch, lie, said):
    given = ("--factory", f"liars:{lie}", "--set", "exposure.draws=2")
    code = run(digits, monkeypatch, *given, "--out", lie)
    record = from_json(AuditRecord, (digits / lie / "report.json").read_text("utf-8"))
    if lie == "honest":
        assert code == 0
    else:
        assert code in (1, 3)
        assert any(said in f.reason for f in record.findings if f.candidate == "deployed")


def test_the_deployed_model_is_no_repaired_candidate(digits, monkeypatch, capsys):
    shutil.copy(digits / "retrained_a.safetensors", digits / "repaired.safetensors")
    given = ("--candidate", "repaired=repaired.safetensors", "--gate", "repaired")
    assert run(digits, monkeypatch, *given, "--out", "same") == 2
    assert "bit for bit the deployed model" in capsys.readouterr().err
